"""Node units: single nodes, and operators with the quantizers around them.

Source: ONNX Runtime, core/optimizer/qdq_transformer/selectors_actions (qdq_selectors.cc, shared/utils.cc:
which nodes form a group) and core/framework/node_unit.cc (what a group's inputs and outputs are).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from edge_sdk.backends.onnxruntime.nnapi._view import View, attribute

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"

# Operators that only move values: the quantizers before and behind them are the same.
_MOVES = {"Gather", "Reshape", "Expand", "Flatten", "Transpose", "MaxPool", "Resize", "Squeeze", "Unsqueeze", "Tile"}
_UNARY = set(
    "AveragePool GlobalAveragePool GlobalMaxPool LeakyRelu ReduceMean ReduceMin ReduceMax ReduceProd ReduceSum Relu "
    "Gelu Elu HardSwish Sigmoid Slice LogSoftmax Softmax Sqrt Atan Asin Sin Cos Sign Tanh Exp Log LRN Ceil Floor Round "
    "Abs Neg DepthToSpace SpaceToDepth Clip LpNormalization Pad".split()
)
_EVERY_INPUT = set("Add Div Mul Pow Sub PRelu Concat Max Min Conv ConvTranspose MatMul Gemm".split())
_OTHERS = {"Split", "InstanceNormalization", "LayerNormalization", "BatchNormalization", "Where", "TopK"}
_PRODUCTS = {"Conv", "ConvTranspose", "Gemm"}


@dataclass(frozen=True)
class Edge:
    """An input or output of a unit: the tensor outside the quantizers, and their parameters' names."""

    name: str
    scale: str | None = None
    zero: str | None = None

    @property
    def quantized(self) -> bool:
        """Whether a quantizer or dequantizer of the unit stands at it."""
        return self.scale is not None


@dataclass(frozen=True)
class Unit:
    """A node, and where it is the middle of a group, the places of the quantizers around it."""

    target: int
    inputs: tuple[Edge, ...]
    outputs: tuple[Edge, ...]
    before: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()

    @property
    def grouped(self) -> bool:
        """Whether it is an operator with the quantizers around it."""
        return bool(self.before)

    @property
    def places(self) -> tuple[int, ...]:
        """All nodes of the unit, in order."""
        return (*self.before, self.target, *self.behind)


def units_of(view: View) -> dict[int, Unit]:
    """The unit of each node, by the node's place."""
    found: dict[int, Unit] = {}
    for place in range(len(view.nodes)):
        if (group := _group(view, place)) is not None:
            found |= dict.fromkeys(group.places, group)
    for place, node in enumerate(view.nodes):
        if place not in found:
            found[place] = _single(place, node)
    return found


def _single(place: int, node) -> Unit:
    names, op = [name for name in node.input], node.op_type
    if op == QUANTIZE:
        inputs, outputs = [Edge(names[0])], [Edge(node.output[0], *names[1:3])]
    elif op == DEQUANTIZE:
        inputs, outputs = [Edge(names[0], *names[1:3])], [Edge(node.output[0])]
    elif op in ("QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul"):
        inputs = [Edge(*names[:3]), Edge(*names[3:6]), *map(Edge, names[8:9])]
        outputs = [Edge(node.output[0], *names[6:8])]
    elif op in ("QLinearSigmoid", "QLinearAveragePool"):
        inputs, outputs = [Edge(*names[:3])], [Edge(node.output[0], *names[3:5])]
    else:
        inputs, outputs = list(map(Edge, names)), list(map(Edge, node.output))
    return Unit(place, tuple(inputs), tuple(outputs))


def _group(view: View, place: int) -> Unit | None:
    node = view.nodes[place]
    op = node.op_type
    if op not in _MOVES | _UNARY | _EVERY_INPUT | _OTHERS:
        return None
    before = [at for name in node.input if (at := _made_by(view, name, DEQUANTIZE)) is not None]
    last, clip = place, None
    readers = list(view.edges_out(place))
    if len(readers) == 1 and view.nodes[readers[0]].op_type in ("Relu", "Clip") and _one_reader(view, readers[0]):
        last = clip = readers[0]
    behind = [at for at in view.edges_out(last) if view.nodes[at].op_type == QUANTIZE]
    if clip is not None and (len(behind) != 1 or not _clips_nothing(view, clip, behind[0])):
        return None
    if not _whole(view, node, last, before, behind) or not _fits(view, node, clip, before, behind):
        return None
    made = {view.nodes[at].output[0]: view.nodes[at] for at in before}
    inputs = [Edge(*made[name].input[:3]) if name in made else Edge(name) for name in node.input]
    outputs = [Edge(view.nodes[at].output[0], *view.nodes[at].input[1:3]) for at in behind]
    return Unit(place, tuple(inputs), tuple(outputs), tuple(before), (*([clip] if clip is not None else []), *behind))


def _whole(view: View, node, last: int, before: list[int], behind: list[int]) -> bool:
    """Whether the quantizers serve this node alone, and all of what it gives goes through them."""
    for at in before:
        result = view.nodes[at].output[0]
        if result in view.outputs or len(view.readers[result]) != 1:
            return False
    results = [name for name in view.nodes[last].output if name]
    if any(name in view.outputs for name in (*results, *node.output)):
        return False
    return bool(before) and len(behind) == len(list(view.edges_out(last))) == len(results)


def _fits(view: View, node, clip: int | None, before: list[int], behind: list[int]) -> bool:
    """The rule of the operator's kind: how many dequantizers, and which element types."""
    op = node.op_type
    types = [view.dtype(view.nodes[at].input[0]) for at in before]
    result = view.dtype(view.nodes[behind[0]].output[0])
    given = [name for name in node.input if name]
    if op in _MOVES:
        if clip is not None or len(before) != 1 or types[0] != result:
            return False
        if op == "MaxPool" and view.since_version(node) != 12:
            return False
        return same_parameters(view, view.nodes[before[0]].input[1:3], view.nodes[behind[0]].input[1:3])
    if op in _UNARY:
        return len(before) == 1 and types[0] == result
    if op in _OTHERS:
        return True
    if len(before) != len(given):
        return False
    if op in _PRODUCTS and len(types) == 3 and types[2] != TensorProto.INT32:
        return False
    if op in (*_PRODUCTS, "MatMul"):
        return types[0] == result and (types[0] != TensorProto.INT8 or types[1] == TensorProto.INT8)
    return len({*types, result}) == 1


def same_parameters(view: View, one, other) -> bool:
    """Whether two quantizers' scales and zero points are the same constants, one of each."""
    if len(one) != 2 or len(other) != 2:
        return False
    pairs = [(view.value(a), view.value(b)) for a, b in zip(one, other, strict=True)]
    return all(a is not None and b is not None and a.size == 1 and np.array_equal(a, b) for a, b in pairs)


def _made_by(view: View, name: str, op: str) -> int | None:
    place = view.producer.get(name)
    return place if place is not None and view.nodes[place].op_type == op else None


def _one_reader(view: View, place: int) -> bool:
    node = view.nodes[place]
    return len(list(view.edges_out(place))) == 1 and node.output[0] not in view.outputs


def _clips_nothing(view: View, clip: int, quantizer: int) -> bool:
    """Whether a quantizer saturates where a Relu or Clip before it would cut off."""
    node, quantize = view.nodes[clip], view.nodes[quantizer]
    scale = view.value(quantize.input[1])
    zero = view.value(quantize.input[2]) if len(quantize.input) > 2 else np.zeros((), np.uint8)
    if scale is None or zero is None or scale.size != 1 or zero.ndim:
        return False
    least, most = np.iinfo(zero.dtype).min, np.iinfo(zero.dtype).max
    if node.op_type == "Relu":
        return int(zero) == least
    low, high = clip_range(view, node)
    if low is None or high is None:
        return False
    return round(low / scale.item()) + int(zero) <= least and round(high / scale.item()) + int(zero) >= most


def clip_range(view: View, node) -> tuple[float | None, float | None]:
    """The bounds of a Clip; None for one that is computed."""
    if view.since_version(node) < 11:
        return attribute(node, "min", -3.4028234663852886e38), attribute(node, "max", 3.4028234663852886e38)
    bounds: list[float | None] = [-np.inf, np.inf]
    for place, name in enumerate(node.input[1:3]):
        if name:
            value = view.value(name)
            bounds[place] = None if value is None else float(value)
    return bounds[0], bounds[1]
