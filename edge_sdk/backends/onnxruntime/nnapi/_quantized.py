"""What the NNAPI provider asks of quantized inputs and outputs.

Source: ONNX Runtime, core/providers/nnapi/nnapi_builtin/builders: op_builder_helpers.cc
(IsQuantizedIOSupported, IsQuantizationScaleSupported, IsQuantizationZeroPointSupported,
HasRequiredScaleAndZeroPoint), helper.cc (HasValidBinaryOpQuantizedInputTypes), model_builder.cc
(GetInputDataType: which initializers it can register).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from onnx import NodeProto, TensorProto

from edge_sdk.backends.onnxruntime.nnapi._units import Edge, Unit
from edge_sdk.backends.onnxruntime.nnapi._view import Shape, View, attribute

UINT8, INT8, FLOAT = TensorProto.UINT8, TensorProto.INT8, TensorProto.FLOAT
WEIGHTED = {"Conv", "QLinearConv", "Gemm", "MatMul", "QLinearMatMul"}
_NO_CHANNELS = {"MatMul", "QLinearMatMul"}
_PER_CHANNEL_LEVEL = 29


class Context(NamedTuple):
    """A unit under a rule.

    Attributes:
        unit: The unit.
        node: Its operator.
        view: The graph.
        level: The NNAPI feature level, which is Android's API level up to 31.
    """

    unit: Unit
    node: NodeProto
    view: View
    level: int

    @property
    def quantized(self) -> bool:
        """Whether it computes on quantized values: a group, or one of the QLinear operators."""
        return self.unit.grouped or self.node.op_type.startswith("QLinear")

    def shape(self, index: int) -> Shape:
        """The sizes of an input; empty where there is none."""
        inputs = self.unit.inputs
        return self.view.shape(inputs[index].name) or () if index < len(inputs) else ()

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.unit.inputs) and bool(self.unit.inputs[index].name)

    def constant(self, index: int) -> np.ndarray | None:
        """The value of an input that is a constant."""
        return self.view.value(self.unit.inputs[index].name) if self.has(index) else None

    def get(self, name: str, default):
        """An attribute."""
        return attribute(self.node, name, default)


def io_fault(at: Context, inputs: Iterable[int] = (), outputs: Iterable[int] = ()) -> str | None:
    """Why the quantized inputs and outputs of these numbers do not fit, None where they do."""
    for edges, numbers, what in ((at.unit.inputs, inputs, "input"), (at.unit.outputs, outputs, "output")):
        for number in numbers:
            if number >= len(edges) or not edges[number].quantized:
                return f"{what} {number} is not quantized"
            weight = what == "input" and number == 1 and at.node.op_type in WEIGHTED
            if fault := _edge_fault(at, edges[number], weight):
                return f"{'its weight' if weight else what + ' ' + str(number)} {fault}"
    return None


def _edge_fault(at: Context, edge: Edge, weight: bool) -> str | None:
    dtype = at.view.dtype(edge.name)
    if dtype != UINT8 and not (weight and dtype == INT8):
        allowed = "UINT8 or INT8" if weight else "UINT8"
        return f"is {TensorProto.DataType.Name(dtype)}; NNAPI takes {allowed}"
    assert edge.scale is not None
    scale = at.view.value(edge.scale)
    if scale is None:
        return "has a scale that is computed; it must be a constant"
    if scale.size != 1 and (fault := _channel_fault(at, edge, scale.size, weight and dtype == INT8)):
        return fault
    if not edge.zero:
        return None
    zero = at.view.value(edge.zero)
    if zero is None:
        return "has a zero point that is computed; it must be a constant"
    if weight and dtype == INT8 and zero.any():
        return "is INT8 with a zero point other than 0"
    if zero.size not in (1, scale.size):
        return f"has {zero.size} zero points for {scale.size} scales"
    return None


def _channel_fault(at: Context, edge: Edge, scales: int, weight: bool) -> str | None:
    if not weight:
        return "has a scale for each channel; only INT8 weights may"
    if at.node.op_type in _NO_CHANNELS:
        return "has a scale for each channel, which NNAPI takes of convolutions only"
    if at.level < _PER_CHANNEL_LEVEL:
        return f"has a scale for each channel, which needs Android API level {_PER_CHANNEL_LEVEL}"
    shape = at.view.shape(edge.name)
    if shape is not None and shape[0] != scales:
        return f"has {scales} scales for {shape[0]} output channels; they belong to its first dimension"
    return None


def weights_fault(at: Context) -> str | None:
    """Element types of a product's or sum's two inputs: U8U8, or U8S8 where the second is a weight."""
    one, other = (at.view.dtype(edge.name) for edge in at.unit.inputs[:2])
    allowed = (UINT8, INT8) if at.node.op_type in WEIGHTED else (UINT8,)
    if one != UINT8 or other not in allowed:
        names = [TensorProto.DataType.Name(dtype) for dtype in (one, other)]
        return f"its inputs are {' and '.join(names)}; NNAPI takes UINT8 activations"
    return None


def product_build_fault(at: Context) -> str | None:
    """What the provider's check lets pass and its builder then fails on, so that no session starts."""
    node, unit = at.node, at.unit
    if node.op_type not in ("Gemm", "MatMul", "QLinearMatMul") or not at.quantized:
        return None
    if at.view.dtype(unit.inputs[1].name) != INT8:
        return None
    scale = at.view.value(unit.inputs[1].scale or "")
    if scale is not None and scale.size > 1:
        return "NNAPI's fully connected layer takes no weight with a scale for each channel"
    if node.op_type == "Gemm" and at.get("transB", 0):
        return "the provider cannot register an INT8 weight that is not to be transposed"
    return None


def required_output(at: Context, scale: float, zero: int) -> str | None:
    """Whether the output's scale and zero point are what NNAPI prescribes for the operator."""
    edge = at.unit.outputs[0]
    found, at_zero = at.view.value(edge.scale or ""), at.view.value(edge.zero or "")
    if found is not None and found.size == 1 and float(found) == scale:
        if (0 if at_zero is None else int(at_zero.reshape(-1)[0])) == zero:
            return None
    return f"its output's scale must be {scale:g} with zero point {zero}"
