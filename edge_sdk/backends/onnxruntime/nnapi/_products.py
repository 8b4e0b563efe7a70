"""Products with a constant as convolutions, for NNAPI."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import NodeProto, helper

from edge_sdk.backends.onnxruntime._rewrites import Editor
from edge_sdk.backends.onnxruntime.nnapi._units import DEQUANTIZE, QUANTIZE, same_parameters
from edge_sdk.backends.onnxruntime.nnapi._view import View, attribute, is_op, only_reader

SAME_SCALE = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"}
"""Operators that only move values: their result has the scale of what they move."""


def products(editor: Editor) -> int:
    """Writes a quantized product with a constant as a 1x1 convolution.

    Its weights have a scale for each channel, which NNAPI's fully connected layer does not take: the
    provider's check lets it pass and no session starts (model_builder.cc, GetInputDataType).
    """
    view, count = View(editor.model), 0
    inserted: dict[int, list[NodeProto]] = {}
    for node in view.nodes:
        if node.op_type in ("Gemm", "MatMul") and (found := _Product.match(view, node)) is not None:
            inserted[view.producer[found.last.output[0]]] = found.convolution(editor)
            count += 1
    editor.insert(inserted)
    if count:
        editor.sweep()
    return count


class _Product:
    """A quantized product with a constant factor: its parts, and what replaces it."""

    def __init__(
        self, node: NodeProto, quantize: NodeProto, source: NodeProto, weight: np.ndarray, scale: np.ndarray, bias: str
    ) -> None:
        self._node, self._quantize, self._source = node, quantize, source
        self._weight, self._scale, self._bias = weight, scale, bias
        self.last = node
        self.rows: list[int] = []
        self.taken = ""

    @classmethod
    def match(cls, view: View, node: NodeProto) -> _Product | None:
        """The product, None where it is of another form."""
        if attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0:
            return None
        source, last, bias = view.node_that_makes(node.input[0]), node, ""
        behind = only_reader(view, node)
        if node.op_type == "Gemm":
            bias = node.input[2] if len(node.input) > 2 else ""
        elif is_op(behind, "Add"):
            other = [name for name in behind.input if name != node.output[0]]
            if len(other) == 1 and _is_constant(view, other[0]):
                last, bias, behind = behind, other[0], only_reader(view, behind)
        factor = _weight(view, node)
        if not (is_op(source, DEQUANTIZE) and is_op(behind, QUANTIZE)) or factor is None:
            return None
        shape = view.shape(source.input[0])
        if shape is None or not 2 <= len(shape) <= 4 or (bias and view.shape(bias) != (factor[0].shape[0],)):
            return None
        found = cls(node, behind, source, *factor, bias)
        found.last = last
        found.rows = list(shape[:-1])
        found.taken = _before_flattening(view, source, shape)
        return found

    def convolution(self, editor: Editor) -> list[NodeProto]:
        """Nodes that compute the same; the product and what added its bias are left for the sweep."""
        node, name = self._node, f"{self.last.output[0]}_conv"
        outputs, inputs = self._weight.shape
        given, gives = list(self._source.input[1:3]), list(self._quantize.input[1:3])
        flat = int(np.prod(self.rows))
        weight = [
            editor.add_constant(f"{name}_weight", np.ascontiguousarray(self._weight).reshape(outputs, inputs, 1, 1)),
            editor.add_constant(f"{name}_scale", self._scale),
            editor.add_constant(f"{name}_zero", np.zeros(self._scale.shape, np.int8)),
        ]
        nodes = []
        image = self.taken
        if not image:
            shape = editor.add_constant(f"{name}_in", np.array([flat, inputs, 1, 1], np.int64))
            nodes += [
                helper.make_node("Reshape", [node.input[0], shape], [f"{name}_x"]),
                helper.make_node(QUANTIZE, [f"{name}_x", *given], [f"{name}_x_q"]),
            ]
            image = f"{name}_x_q"
        axis: dict[str, Any] = {"axis": 0} if self._scale.ndim else {}
        shape = editor.add_constant(f"{name}_out", np.array([*self.rows, outputs], np.int64))
        bias = [self._bias] if self._bias else []
        nodes += [
            helper.make_node(DEQUANTIZE, [image, *given], [f"{name}_x_dq"]),
            helper.make_node(DEQUANTIZE, weight, [f"{name}_w"], **axis),
            helper.make_node("Conv", [f"{name}_x_dq", f"{name}_w", *bias], [name], name, kernel_shape=[1, 1]),
            helper.make_node(QUANTIZE, [name, *gives], [f"{name}_q"]),
            helper.make_node(DEQUANTIZE, [f"{name}_q", *gives], [f"{name}_dq"]),
            helper.make_node("Reshape", [f"{name}_dq", shape], [f"{name}_y"]),
        ]
        self._quantize.input[0] = f"{name}_y"
        return nodes


def _weight(view: View, node: NodeProto) -> tuple[np.ndarray, np.ndarray] | None:
    """The INT8 weight as ``[outputs, inputs]`` with its scales, None where it is none."""
    made = view.node_that_makes(node.input[1])
    turned = bool(attribute(node, "transB", 0))
    if is_op(made, "Transpose"):
        if attribute(made, "perm", [1, 0]) != [1, 0]:
            return None
        made, turned = view.node_that_makes(made.input[0]), not turned
    if not is_op(made, DEQUANTIZE):
        return None
    values, scale = view.value(made.input[0]), view.value(made.input[1])
    zero = view.value(made.input[2]) if len(made.input) > 2 else np.zeros(1)
    if values is None or scale is None or zero is None or values.dtype != np.int8 or values.ndim != 2 or zero.any():
        return None
    if scale.size > 1 and attribute(made, "axis", 1) % 2 != (0 if turned else 1):
        return None  # a scale for each input, which no convolution has
    return (values if turned else values.T), scale


def _before_flattening(view: View, source: NodeProto, shape: tuple[int, ...]) -> str:
    """The quantized image of one pixel that the product's input was made of by a reshape, empty where there is none."""
    quantize = view.node_that_makes(source.input[0])
    move = view.node_that_makes(quantize.input[0]) if quantize is not None and quantize.op_type == QUANTIZE else None
    before = view.node_that_makes(move.input[0]) if move is not None and move.op_type in SAME_SCALE else None
    if not is_op(before, DEQUANTIZE):
        return ""
    if not same_parameters(view, before.input[1:3], source.input[1:3]):
        return ""
    pixel = view.shape(before.input[0])
    return before.input[0] if len(shape) == 2 and pixel == (*shape, 1, 1) else ""


def _is_constant(view: View, name: str) -> bool:
    made = view.node_that_makes(name)
    return name in view.constants or (
        made is not None and made.op_type == DEQUANTIZE and made.input[0] in view.constants
    )


def reshape_pairs(editor: Editor) -> int:
    """Makes one of two reshapes in a row, or none, where the quantizers between them change nothing."""
    view, count = View(editor.model), 0
    for node in view.nodes:
        if node.op_type != "Reshape":
            continue
        between = view.node_that_makes(node.input[0])
        if not is_op(between, DEQUANTIZE):
            continue
        quantize = view.node_that_makes(between.input[0])
        first = view.node_that_makes(quantize.input[0]) if is_op(quantize, QUANTIZE) else None
        before = view.node_that_makes(first.input[0]) if is_op(first, "Reshape") else None
        if not is_op(before, DEQUANTIZE) or not same_parameters(view, before.input[1:3], between.input[1:3]):
            continue
        node.input[0] = before.output[0]
        count += 1
        behind = only_reader(view, node)
        if not is_op(behind, QUANTIZE) or view.shape(before.output[0]) != view.shape(node.output[0]):
            continue
        if same_parameters(view, before.input[1:3], behind.input[1:3]) and behind.output[0] not in view.outputs:
            for place in view.readers[behind.output[0]]:
                names = [before.input[0] if name == behind.output[0] else name for name in view.nodes[place].input]
                view.nodes[place].input[:] = names
    if count:
        editor.sweep()
    return count
