"""Operator by operator: what the NNAPI provider of ONNX Runtime takes, and why it does not take the rest.

The rules are those of the provider's own support checks, so that they can be asked without a phone. What
the driver on the phone then makes of the graph is another matter.

Source: ONNX Runtime, core/providers/nnapi/nnapi_builtin/builders: op_builder_factory.cc (the operators),
impl/*_op_builder.cc (IsOpSupportedImpl, HasSupportedInputOutputsImpl, IsNodeUnitTypeSupported,
GetMinSupportedNNAPIFeatureLevel, GetMinSupportedOpSet), impl/base_op_builder.cc (what all share).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from onnx import TensorProto

from edge_sdk.backends.onnxruntime.nnapi import _quantized as q
from edge_sdk.backends.onnxruntime.nnapi._quantized import FLOAT, UINT8, Context
from edge_sdk.backends.onnxruntime.nnapi._units import Unit, clip_range
from edge_sdk.backends.onnxruntime.nnapi._view import View

Check = Callable[[Context], str | None]


class Rule(NamedTuple):
    """What is asked of an operator.

    Attributes:
        check: The operator's own conditions.
        level: The least NNAPI feature level.
        opset: The least operator set of ONNX.
        grouped: Whether it is also taken as a group with its quantizers.
        types: The types it takes where it is not quantized.
    """

    check: Check | None = None
    level: int = 27
    opset: int = 1
    grouped: bool = False
    types: tuple[int, ...] = (FLOAT,)


def why_not(unit: Unit, view: View, level: int) -> str | None:
    """Why the provider leaves a unit to the CPU, None where it takes it.

    Args:
        unit: The unit.
        view: Its graph.
        level: The NNAPI feature level: Android's API level, 27 to 31.
    """
    at = Context(unit, view.nodes[unit.target], view, level)
    rule = RULES.get(at.node.op_type)
    if rule is None:
        return "the NNAPI provider has no such operator"
    if rule.level > level:
        return f"needs NNAPI feature level {rule.level}, the target has {level}"
    if unit.grouped and not rule.grouped:
        return "the NNAPI provider takes it in float, not as a group with its quantizers"
    for edge in unit.inputs:
        if edge.name and view.shape(edge.name) is None:
            return "has an input without a fixed shape"
    since = view.since_version(at.node)
    if since < rule.opset:
        return f"is of operator set {since}; NNAPI takes {rule.opset} and later"
    dtype = view.dtype(unit.inputs[0].name) if unit.inputs else 0
    quantizes = at.quantized or at.node.op_type in ("QuantizeLinear", "DequantizeLinear")
    if not quantizes and dtype not in rule.types:
        names = " or ".join(TensorProto.DataType.Name(one) for one in rule.types)
        return f"has {TensorProto.DataType.Name(dtype)} input; NNAPI takes {names}"
    return rule.check(at) if rule.check else None


def _rank(*allowed: int) -> Check:
    def check(at: Context) -> str | None:
        rank = len(at.shape(0))
        words = f"{allowed[0]} to {allowed[-1]}" if len(allowed) > 2 else " or ".join(map(str, allowed))
        return None if rank in allowed else f"has an input of {rank} dimensions; NNAPI takes {words}"

    return check


def _all(*checks: Check) -> Check:
    return lambda at: next((fault for check in checks if (fault := check(at))), None)


def _one_to_one(at: Context) -> str | None:
    """Quantized in, quantized out, for operators with one input that is data."""
    return q.io_fault(at, [0], [0]) if at.quantized else None


def _constant(index: int, what: str) -> Check:
    return lambda at: f"{what} must be a constant" if at.has(index) and at.constant(index) is None else None


def _conv(at: Context) -> str | None:
    if at.quantized and (fault := q.weights_fault(at) or q.io_fault(at, [0, 1], [0])):
        return fault
    if at.node.domain == "com.microsoft" and at.node.op_type == "QLinearConv":
        return "is ONNX Runtime's own form of QLinearConv"
    weight = at.constant(1)
    if weight is None:
        return "its weight must be a constant"
    if weight.ndim != 4:
        return f"is a convolution of {weight.ndim - 2} dimensions; NNAPI takes 2"
    if at.get("dilations", [1, 1]) != [1, 1] and at.get("group", 1) != 1 and weight.shape[1] != 1:
        return "is dilated and grouped at once"
    if at.get("dilations", [1, 1]) != [1, 1] and at.level < 29:
        return "is dilated, which needs NNAPI feature level 29"
    return "its bias must be a constant" if at.quantized and at.has(2) and at.constant(2) is None else None


def _product(at: Context) -> str | None:
    if at.quantized and (fault := q.weights_fault(at) or q.io_fault(at, [0, 1], [0])):
        return fault
    one, other = at.shape(0), at.shape(1)
    if at.node.op_type == "MatMul" and not at.unit.grouped and at.level >= 29:
        if len(one) >= 3 and len(one) == len(other) and one[:-2] == other[:-2]:
            return None  # a batch of products, which the provider splits up
    if len(one) != 2 or len(other) != 2:
        return f"multiplies {len(one)} by {len(other)} dimensions; NNAPI takes 2 by 2"
    if at.node.op_type == "Gemm":
        if at.get("transA", 0) or at.get("alpha", 1.0) != 1.0 or at.get("beta", 1.0) != 1.0:
            return "has transA, alpha or beta; NNAPI takes A B + C"
        turned = bool(at.get("transB", 0))
        if not turned and at.constant(1) is None:
            return "its second factor must be a constant, or transposed"
        if at.has(2):
            bias = at.shape(2)
            if not bias or any(size != 1 for size in bias[:-1]) or bias[-1] != other[0 if turned else 1]:
                return f"its bias is of shape {list(bias)}; NNAPI takes one value for each output"
            if at.quantized and at.constant(2) is None:
                return "its bias must be a constant"
    elif at.constant(1) is None:
        return "its second factor must be a constant"
    return q.product_build_fault(at)


def _binary(at: Context) -> str | None:
    if at.quantized and (fault := q.weights_fault(at) or q.io_fault(at, [0, 1], [0])):
        return fault
    if at.node.op_type == "Pow" and at.view.dtype(at.unit.inputs[1].name) != FLOAT:
        return "has an exponent that is not FLOAT"
    if max(len(at.shape(0)), len(at.shape(1))) > 4:
        return f"has an input of {max(len(at.shape(0)), len(at.shape(1)))} dimensions; NNAPI takes at most 4"
    return None


def _pool(at: Context) -> str | None:
    if at.unit.grouped and at.node.op_type != "AveragePool":
        return "the NNAPI provider takes it in float, not as a group with its quantizers"
    if at.quantized and (fault := q.io_fault(at, [0], [0])):
        return fault
    if len(at.shape(0)) != 4:
        return f"has an input of {len(at.shape(0))} dimensions; NNAPI takes 4"
    if at.node.op_type.startswith("Global"):
        return None
    if at.get("count_include_pad", 0) or at.get("storage_order", 0) or at.get("ceil_mode", 0):
        return "has count_include_pad, storage_order or ceil_mode"
    if len(at.get("kernel_shape", [1, 1])) != 2 or at.get("dilations", [1, 1]) != [1, 1]:
        return "is dilated, or does not pool over two dimensions"
    if len(at.node.output) != 1:
        return "gives the places of the maxima too"
    if at.quantized:
        sides = at.unit.inputs[0], at.unit.outputs[0]
        scales = [at.view.value(edge.scale or "") for edge in sides]
        zeros = [at.view.value(edge.zero or "") for edge in sides]
        if not (np.array_equal(*scales) and np.array_equal(*zeros)):  # type: ignore[arg-type]  # constants by now
            return "its input and output differ in scale or zero point"
    return None


def _softmax(at: Context) -> str | None:
    if at.quantized and (fault := q.io_fault(at, [0], [0]) or q.required_output(at, 1 / 256, 0)):
        return fault
    if at.level < 29 and at.get("axis", 1) != 1:
        return "is along another axis than 1, which needs NNAPI feature level 29"
    return _rank(2, 4)(at)


def _sigmoid(at: Context) -> str | None:
    if at.node.op_type == "QLinearSigmoid":
        return q.io_fault(at, [0], [0]) or q.required_output(at, 1 / 256, 0)
    return _rank(1, 2, 3, 4)(at)


def _concat(at: Context) -> str | None:
    if at.quantized and (fault := q.io_fault(at, range(len(at.unit.inputs)), [0])):
        return fault
    return _rank(1, 2, 3, 4)(at)


def _reshape(at: Context) -> str | None:
    if fault := _one_to_one(at) or _rank(1, 2, 3, 4)(at):
        return fault
    sizes = at.constant(1)
    if sizes is None:
        return "its new shape must be a constant"
    return "has allowzero and a size of 0" if at.get("allowzero", 0) and (sizes == 0).any() else None


def _resize(at: Context) -> str | None:
    if fault := _one_to_one(at) or _rank(4)(at):
        return fault
    mode, coordinates = at.get("mode", "nearest"), at.get("coordinate_transformation_mode", "half_pixel")
    if mode not in ("nearest", "linear") or at.get("exclude_outside", 0) or at.get("antialias", 0):
        return f"has mode {mode}, exclude_outside or antialias; NNAPI takes nearest and linear"
    if at.get("axes", []) or at.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return "has axes or keep_aspect_ratio_policy"
    if mode == "linear":
        if coordinates not in ("half_pixel", "align_corners", "asymmetric"):
            return f"has coordinates {coordinates}; NNAPI takes half_pixel, align_corners and asymmetric"
        if at.level < 30 and coordinates != "asymmetric":
            return f"has coordinates {coordinates}, which need NNAPI feature level 30"
    elif coordinates != "asymmetric" or at.get("nearest_mode", "round_prefer_floor") != "floor":
        return "is nearest, which NNAPI takes with coordinates asymmetric and nearest_mode floor only"
    return _resize_sizes(at)


def _resize_sizes(at: Context) -> str | None:
    scales, sizes = at.constant(2), at.constant(3)
    shape = at.shape(0)
    if at.has(2) and scales is not None and scales.size == 4:
        if scales[0] != 1 or 1 not in (scales[1], scales[3]):
            return "resizes the batch or the channels"
        for size, scale in zip(shape[2:], scales[2:], strict=True):
            if scale < 1 and (size * scale) % 1:
                return "shrinks by a factor that does not divide the size"
        return None
    if at.has(3) and sizes is not None:
        return None if tuple(sizes[:2]) == shape[:2] else "resizes the batch or the channels"
    return "its scales or sizes must be constants"


def _clip(at: Context) -> str | None:
    bounds = clip_range(at.view, at.node)
    if None in bounds:
        return "its bounds must be constants"
    return None if bounds in ((0.0, 6.0), (-1.0, 1.0)) else "cuts at other bounds than 0 and 6, or -1 and 1"


def _split(at: Context) -> str | None:
    size = at.shape(0)[at.get("axis", 0)]
    sizes = at.constant(1)
    if at.has(1) and sizes is None:
        return "its sizes must be constants"
    even = len(set(sizes.tolist())) == 1 if sizes is not None else size % len(at.node.output) == 0
    return None if even else "its pieces are not of one size"


def _pad(at: Context) -> str | None:
    if fault := _rank(1, 2, 3, 4)(at) or _constant(2, "its value")(at):
        return fault
    if at.get("mode", "constant") != "constant":
        return f"has mode {at.get('mode', 'constant')}; NNAPI takes constant"
    pads = at.constant(1)
    return "its amounts must be constants and not negative" if pads is None or (pads < 0).any() else None


def _gather(at: Context) -> str | None:
    if at.constant(1) is None and at.view.dtype(at.unit.inputs[1].name) != TensorProto.INT32:
        return "its places must be constants, or INT32"
    return _rank(1, 2, 3, 4)(at)


def _slice(at: Context) -> str | None:
    if any(at.has(index) and at.constant(index) is None for index in range(1, 5)):
        return "its starts, ends, axes and steps must be constants"
    return _rank(*range(5))(at)


def _batch_norm(at: Context) -> str | None:
    if len(at.node.output) != 1 or at.get("spatial", 1) != 1:
        return "is in training mode, or not spatial"
    if any(at.constant(index) is None for index in range(1, 5)):
        return "its statistics must be constants"
    return _rank(*range(5))(at)


def _mean(at: Context) -> str | None:
    if at.get("noop_with_empty_axes", 0):
        return "has noop_with_empty_axes"
    return _all(_rank(1, 2, 3, 4), _constant(1, "its axes"))(at)


def _cast(at: Context) -> str | None:
    to = at.get("to", 0)
    if to in (TensorProto.FLOAT, TensorProto.INT32):
        return None
    return f"casts to {TensorProto.DataType.Name(to)}; NNAPI takes FLOAT and INT32"


def _depth_to_space(at: Context) -> str | None:
    mode = at.get("mode", "DCR")
    return _rank(4)(at) or (None if mode == "DCR" else f"has mode {mode}; NNAPI takes DCR")


def _min_max(at: Context) -> str | None:
    count = len(at.unit.inputs)
    return None if count == 2 else f"has {count} input{'s' * (count != 1)}; NNAPI takes 2"


_SOME = _rank(1, 2, 3, 4)
_MOVED = (FLOAT, UINT8)
RULES: dict[str, Rule] = {
    **dict.fromkeys(("Conv", "QLinearConv"), Rule(_conv, grouped=True)),
    "Gemm": Rule(_product, opset=7, grouped=True),
    **dict.fromkeys(("MatMul", "QLinearMatMul"), Rule(_product, grouped=True)),
    **dict.fromkeys(("Add", "Mul"), Rule(_binary, opset=7, grouped=True)),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), Rule(_binary)),
    **dict.fromkeys(("Sub", "Div"), Rule(_binary, 28, 7)),
    "Pow": Rule(_binary, 29, 7),
    "PRelu": Rule(_binary, 29),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "GlobalMaxPool"), Rule(_pool, 28, grouped=True)),
    "QLinearAveragePool": Rule(_pool, 28),
    "MaxPool": Rule(_pool, 28, types=_MOVED),
    "Softmax": Rule(_softmax, 28, grouped=True),
    **dict.fromkeys(("Sigmoid", "QLinearSigmoid"), Rule(_sigmoid)),
    **dict.fromkeys(("Tanh", "Floor"), Rule(opset=6)),
    **dict.fromkeys(("Abs", "Exp", "Neg", "Sin", "Sqrt", "Log"), Rule(level=29, opset=6)),
    "Relu": Rule(),
    "Elu": Rule(level=30, opset=6),
    "LeakyRelu": Rule(_SOME, opset=6),
    "Clip": Rule(_clip),
    "Concat": Rule(_concat, grouped=True, types=_MOVED),
    "Reshape": Rule(_reshape, grouped=True),
    "Transpose": Rule(_all(_one_to_one, _SOME), 28, grouped=True, types=_MOVED),
    "Resize": Rule(_resize, 29, 11, grouped=True, types=_MOVED),
    "Flatten": Rule(_SOME),
    "Identity": Rule(),
    "Squeeze": Rule(_all(_SOME, _constant(1, "its axes")), 28),
    "Unsqueeze": Rule(_all(_SOME, _constant(1, "its axes"))),
    "Split": Rule(_split, 29, 13),
    "Slice": Rule(_slice, 28, 10),
    "Gather": Rule(_gather, 29),
    "Pad": Rule(_pad, 29, 11),
    "ReduceMean": Rule(_mean, 28),
    "BatchNormalization": Rule(_batch_norm, opset=7),
    "LRN": Rule(_rank(4), 28),
    "DepthToSpace": Rule(_depth_to_space),
    "Cast": Rule(_cast, 29, 6),
    **dict.fromkeys(("Min", "Max"), Rule(_min_max, 29, 6)),
    "QuantizeLinear": Rule(lambda at: q.io_fault(at, outputs=[0]), 29),
    "DequantizeLinear": Rule(lambda at: q.io_fault(at, [0])),
}
