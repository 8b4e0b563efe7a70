"""An ONNX graph as the NNAPI provider's rules look at it: types, shapes, constants, neighbours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from typing import Any, TypeGuard

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

Shape = tuple[int, ...]


class View:
    """A graph whose nodes go by their place in it; nodes stand in topological order, as ONNX wants them.

    Args:
        model: The graph; it is not touched. Shapes that it does not tell are inferred.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[NodeProto] = list(model.graph.node)
        self.constants: dict[str, TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = [value.name for value in model.graph.input if value.name not in self.constants]
        self.outputs = {value.name for value in model.graph.output}
        self.producer = {name: place for place, node in enumerate(self.nodes) for name in node.output if name}
        self.readers: dict[str, list[int]] = defaultdict(list)
        for place, node in enumerate(self.nodes):
            for name in node.input:
                if name:
                    self.readers[name].append(place)
        self._opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}

    @cached_property
    def _types(self) -> dict[str, tuple[int, Shape | None]]:
        inferred = onnx.shape_inference.infer_shapes(self.model, data_prop=True).graph
        found: dict[str, tuple[int, Shape | None]] = {}
        for value in (*inferred.value_info, *inferred.input, *inferred.output):
            tensor = value.type.tensor_type
            sizes: list[Any] = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
            known = tensor.HasField("shape") and None not in sizes
            found[value.name] = tensor.elem_type, tuple(sizes) if known else None
        for name, tensor in self.constants.items():
            found[name] = tensor.data_type, tuple(tensor.dims)
        return found

    def dtype(self, name: str) -> int:
        """ONNX's number of the element type, 0 where nobody knows."""
        return self._types.get(name, (0, None))[0]

    def shape(self, name: str) -> Shape | None:
        """The sizes, None where one of them is not fixed."""
        return self._types.get(name, (0, None))[1]

    def value(self, name: str) -> np.ndarray | None:
        """A constant's value, None where it is computed or absent."""
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def node_that_makes(self, name: str) -> NodeProto | None:
        """The node whose output this is, None for inputs and constants."""
        place = self.producer.get(name)
        return None if place is None else self.nodes[place]

    def edges_out(self, place: int) -> Iterator[int]:
        """The readers of a node's outputs, one for each of their inputs that reads one."""
        for name in self.nodes[place].output:
            yield from self.readers.get(name, ())

    def since_version(self, node: NodeProto) -> int:
        """The operator set that the node's form of the operator came with; 1 for ONNX Runtime's own operators."""
        domain = node.domain or "ai.onnx"
        if domain != "ai.onnx":
            return 1
        try:
            return onnx.defs.get_schema(node.op_type, self._opsets.get(domain, 1)).since_version
        except onnx.defs.SchemaError:
            return 1


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """An attribute's value; text as ``str``, lists as ``list``."""
    for one in node.attribute:
        if one.name == name:
            value = helper.get_attribute_value(one)
            return value.decode() if isinstance(value, bytes) else list(value) if isinstance(default, list) else value
    return default


def is_op(node: NodeProto | None, op: str) -> TypeGuard[NodeProto]:
    """Whether there is a node and it is of that operator."""
    return node is not None and node.op_type == op


def only_reader(view: View, node: NodeProto) -> NodeProto | None:
    """The node that alone reads a node's one output, None where there are several or it is a result."""
    readers = view.readers.get(node.output[0], [])
    return view.nodes[readers[0]] if len(readers) == 1 and node.output[0] not in view.outputs else None
