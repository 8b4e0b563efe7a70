"""Graph rewrites on ONNX graphs, each checked numerically by running the graph before and after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeGuard

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from edge_sdk.errors import ModelError, refusals
from edge_sdk.pipeline.values import Graph
from edge_sdk.schema.manifest import Rewrite

_TOLERANCE = 1e-3


def apply(
    model: onnx.ModelProto,
    graph: Graph,
    enabled: frozenset[str],
    table: Mapping[str, Callable[[Editor], int]] | None = None,
    tolerance: float = _TOLERANCE,
) -> tuple[onnx.ModelProto, list[Rewrite]]:
    """Applies the enabled rewrites in order.

    Args:
        model: The part's ONNX graph; it is not touched.
        graph: The part, for the inputs to check with.
        enabled: Names of the table.
        table: Name to rewrite, None for ``TABLE``.
        tolerance: How far an output may move, as a share of the largest.

    Raises:
        ModelError: A rewrite moved an output by more than that.
    """
    editable = onnx.ModelProto()
    editable.CopyFrom(model)
    before = None
    done = []
    for name, rewrite in (TABLE if table is None else table).items():
        if name not in enabled:
            continue
        if not graph.example_inputs:
            break  # an ONNX file with dynamic shapes: nothing to check with, so nothing is changed
        if before is None:
            before = _run(editable, graph)
        if not (count := rewrite(Editor(editable))):
            continue
        after = _run(editable, graph)
        done.append(Rewrite(name=name, count=count, max_abs_err=_check(name, graph.name, before, after, tolerance)))
        before = after
    return editable, done


def difference(graph: Graph, model: onnx.ModelProto, other: onnx.ModelProto) -> float:
    """The largest absolute difference between the outputs of two forms of a part, both run optimised."""
    pairs = zip(_run(model, graph, optimised=True), _run(other, graph, optimised=True), strict=True)
    return max((float(np.abs(old.astype(np.float64) - new).max(initial=0.0)) for old, new in pairs), default=0.0)


def _run(model: onnx.ModelProto, graph: Graph, optimised: bool = False) -> list[np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    feed = {spec.name: tensor.numpy() for spec, tensor in zip(graph.inputs, graph.example_inputs, strict=True)}
    with refusals("ONNX Runtime", f"part '{graph.name}'"):
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [np.asarray(output) for output in session.run(None, feed)]


def _check(name: str, part: str, before: list[np.ndarray], after: list[np.ndarray], tolerance: float) -> float:
    worst = 0.0
    for old, new in zip(before, after, strict=True):
        error = float(np.abs(old.astype(np.float64) - new.astype(np.float64)).max(initial=0.0))
        if not error <= tolerance * max(float(np.abs(old).max(initial=0.0)), 1e-6):
            raise ModelError(
                f"the graph rewrite '{name}' moved an output of part '{part}' by {error:.3g}; compile with "
                "--no-rewrites and report the model."
            )
        worst = max(worst, error)
    return worst


class Editor:
    """A graph with its producers, consumers and constants at hand.

    Args:
        model: The model; its graph is edited in place.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = model.graph
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.producer = {name: node for node in self.graph.node for name in node.output}
        self.consumers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.graph.node:
            for name in node.input:
                self.consumers[name].append(node)
        inner = (graph for node in self.graph.node for graph in _graphs_of(node))
        self.results = {value.name for value in self.graph.output} | {name for graph in inner for name in _read(graph)}

    def nodes(self, op: str) -> list[NodeProto]:
        """The nodes of one operator, in a list that survives edits."""
        return [node for node in self.graph.node if node.op_type == op]

    def value(self, name: str) -> np.ndarray | None:
        """A constant's value, None where it is computed."""
        tensor = self.constants.get(name)
        if tensor is not None:
            return numpy_helper.to_array(tensor)
        node = self.producer.get(name)
        if node is not None and node.op_type == "Constant" and node.attribute[0].name == "value":
            return numpy_helper.to_array(node.attribute[0].t)
        return None

    def add_constant(self, name: str, value: np.ndarray) -> str:
        """Adds a constant and returns its name."""
        tensor = numpy_helper.from_array(value, name)
        self.graph.initializer.append(tensor)
        self.constants[name] = tensor
        return name

    def forget(self, names: Iterable[str]) -> None:
        """Drops the noted types and shapes of tensors that have others now."""
        changed = set(names)
        kept = [value for value in self.graph.value_info if value.name not in changed]
        del self.graph.value_info[:]
        self.graph.value_info.extend(kept)

    def insert(self, before: Mapping[int, Sequence[NodeProto]]) -> None:
        """Puts new nodes in before those of the given places; nodes taken from here earlier are stale then."""
        nodes: list[NodeProto] = []
        for place, node in enumerate(self.graph.node):
            nodes += [*before.get(place, ()), node]
        copied = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.graph.node[:]
        self.graph.node.extend(copied)

    def sweep(self) -> None:
        """Removes nodes and constants that nothing uses any more."""
        nodes = list(self.graph.node)
        used = set(self.results)
        kept = []
        for node in reversed(nodes):
            if used & set(node.output):
                kept.append(node)
                used.update(node.input)
        del self.graph.node[:]
        self.graph.node.extend(reversed(kept))
        constants = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(constants)


def fold_padding(editor: Editor) -> int:
    """Moves zero padding into the convolutions behind it, through a quantizer too: zero is exact in it."""
    count = 0
    for pad in editor.nodes("Pad"):
        if len(pad.input) < 2 or (len(pad.input) > 3 and pad.input[3]):
            continue  # the form of old operator sets, or padding of some axes only
        pads, value = editor.value(pad.input[1]), 0.0
        if len(pad.input) > 2 and pad.input[2]:
            constant = editor.value(pad.input[2])
            value = None if constant is None else float(constant.item())
        if pads is None or value != 0.0 or _attribute(pad, "mode", b"constant") != b"constant":
            continue
        if len(pads) != 8 or any(pads[[0, 1, 4, 5]]) or (pads < 0).any() or pad.output[0] in editor.results:
            continue
        convolutions = _convolutions_behind(editor, pad)
        if not convolutions:
            continue
        for conv in convolutions:
            old = _attribute(conv, "pads", [0, 0, 0, 0])
            added = [int(pads[axis]) for axis in (2, 3, 6, 7)]
            set_attribute(conv, "pads", [before + more for before, more in zip(old, added, strict=True)])
        _bypass(editor, pad)
        count += 1
    if count:
        editor.sweep()
    return count


def _convolutions_behind(editor: Editor, pad: NodeProto) -> list[NodeProto]:
    """All consumers of a padding where all are convolutions, directly or behind one quantizer pair."""
    found = []
    for consumer in editor.consumers[pad.output[0]]:
        if consumer.op_type == "QuantizeLinear":
            before = editor.producer.get(pad.input[0])
            if _is_dequantizer(before) and not _same_scale(editor, before, consumer):
                return []  # ONNX Runtime would melt the two quantizers into one, which moves the values
            for dequantize in editor.consumers[consumer.output[0]]:
                behind = editor.consumers[dequantize.output[0]] if dequantize.op_type == "DequantizeLinear" else []
                if not behind or any(node.op_type != "Conv" for node in behind):
                    return []
                found += behind
        elif consumer.op_type == "Conv" and consumer.input[0] == pad.output[0]:
            found.append(consumer)
        else:
            return []
    return found if all(_attribute(conv, "auto_pad", b"NOTSET") == b"NOTSET" for conv in found) else []


def _bypass(editor: Editor, pad: NodeProto) -> None:
    """Lets what reads a padding read its input instead; what was just dequantized is not quantized anew."""
    before = editor.producer.get(pad.input[0])
    for consumer in editor.consumers[pad.output[0]]:
        readers = [consumer]
        if consumer.op_type == "QuantizeLinear":
            dequantizers = editor.consumers[consumer.output[0]]
            editor.forget([consumer.output[0], *(name for node in dequantizers for name in node.output)])
        if consumer.op_type == "QuantizeLinear" and _is_dequantizer(before):
            dequantized = [node.output[0] for node in editor.consumers[consumer.output[0]]]
            readers = [conv for name in dequantized for conv in editor.consumers[name]]
        for node in readers:
            node.input[0] = pad.input[0]


def _is_dequantizer(node: NodeProto | None) -> TypeGuard[NodeProto]:
    return node is not None and node.op_type == "DequantizeLinear"


def _same_scale(editor: Editor, one: NodeProto, other: NodeProto) -> bool:
    for index in (1, 2):
        a, b = editor.value(one.input[index]), editor.value(other.input[index])
        if a is None or b is None or not np.array_equal(a, b):
            return False
    return True


def mean_to_global_average_pool(editor: Editor) -> int:
    """Turns a mean over height and width that keeps its dimensions into a global average pool."""
    count = 0
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in editor.graph.value_info}
    for node in editor.nodes("ReduceMean"):
        axes = editor.value(node.input[1]) if len(node.input) > 1 else np.asarray(_attribute(node, "axes", []))
        source = editor.producer.get(node.input[0])
        rank = ranks.get(node.input[0])
        if rank is None and source is not None and source.op_type == "DequantizeLinear":
            rank = ranks.get(source.input[0])
        if axes is None or rank != 4 or sorted(int(axis) % 4 for axis in axes) != [2, 3]:
            continue
        if not _attribute(node, "keepdims", 1):
            continue
        del node.input[1:]
        del node.attribute[:]
        node.op_type = "GlobalAveragePool"
        count += 1
    if count:
        editor.sweep()
    return count


def unsigned_activations(editor: Editor) -> int:
    """Shifts signed 8-bit activations and their zero points by 128; the values that they stand for stay."""
    quantizers = [node for node in editor.nodes("QuantizeLinear") if _zero_is_int8(editor, node)]
    changed: set[str] = set()
    for index, node in enumerate(quantizers):
        readers = editor.consumers[node.output[0]]
        if node.output[0] in editor.results or any(reader.op_type != "DequantizeLinear" for reader in readers):
            continue
        zero = editor.value(node.input[2])
        assert zero is not None and zero.ndim == 0
        name = editor.add_constant(f"unsigned_zero_point_{index}", (zero.astype(np.int16) + 128).astype(np.uint8))
        for user in (node, *readers):
            user.input[2] = name
        changed.add(node.output[0])
    values = [value for value in editor.graph.value_info if value.name in changed]
    for value in values:
        value.type.tensor_type.elem_type = TensorProto.UINT8
    if changed:
        editor.sweep()
    return len(changed)


def _zero_is_int8(editor: Editor, node: NodeProto) -> bool:
    zero = editor.value(node.input[2]) if len(node.input) > 2 else None
    return zero is not None and zero.dtype == np.int8 and zero.ndim == 0


def _graphs_of(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs within a node: the branches of an If, the body of a Loop."""
    for attribute in node.attribute:
        yield from (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs


def _read(graph: GraphProto) -> Iterator[str]:
    """Every name that a graph or a graph within it reads; some may be its own."""
    yield from (value.name for value in graph.output)
    for node in graph.node:
        yield from node.input
        for inner in _graphs_of(node):
            yield from _read(inner)


def _attribute(node: NodeProto, name: str, default):
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def set_attribute(node: NodeProto, name: str, value) -> None:
    """Sets an attribute, in place of one of the same name."""
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


TABLE: dict[str, Callable[[Editor], int]] = {
    "fold_padding": fold_padding,
    "mean_to_global_average_pool": mean_to_global_average_pool,
    "unsigned_activations": unsigned_activations,
}
