"""Rewrites of a quantized graph into the operators that the NNAPI provider takes, quantizers and all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto, helper

from edge_sdk.backends.onnxruntime._rewrites import Editor, set_attribute
from edge_sdk.backends.onnxruntime.nnapi._products import SAME_SCALE, products, reshape_pairs
from edge_sdk.backends.onnxruntime.nnapi._units import DEQUANTIZE, QUANTIZE, same_parameters
from edge_sdk.backends.onnxruntime.nnapi._view import View, attribute, is_op, only_reader

TOLERANCE = 0.05
"""Outputs may move by rounding: some steps of their quantizers, of which there are 255 in the largest output."""

_SOFTMAX_SCALE = 1 / 256
_COARSER = 2.0
"""How much coarser a pool's output may become for NNAPI's wish that it share its input's scale: one bit."""


def reshapes(editor: Editor) -> int:
    """Writes Flatten, Squeeze and Unsqueeze as Reshape, the one of them that is taken as a group."""
    view, count = View(editor.model), 0
    for node in [node for node in view.nodes if node.op_type in ("Flatten", "Squeeze", "Unsqueeze")]:
        before, behind = view.shape(node.input[0]), view.shape(node.output[0])
        if before is None or behind is None or 0 in behind:
            continue
        shape = editor.add_constant(f"{node.output[0]}_shape", np.array(behind, np.int64))
        node.op_type = "Reshape"
        del node.input[1:], node.attribute[:]
        node.input.append(shape)
        count += 1
    if count:
        editor.sweep()
    return count


def means(editor: Editor) -> int:
    """Writes a quantized mean over height and width that drops them as a global average pool and a reshape."""
    view, count = View(editor.model), 0
    inserted: dict[int, list[NodeProto]] = {}
    for node in view.nodes:
        if node.op_type != "ReduceMean" or attribute(node, "keepdims", 1):
            continue
        before, behind = view.node_that_makes(node.input[0]), only_reader(view, node)
        shape, axes = view.shape(node.input[0]), attribute(node, "axes", [])
        if len(node.input) > 1:
            value = view.value(node.input[1])
            axes = [] if value is None else value.tolist()
        if shape is None or len(shape) != 4 or sorted(axis % 4 for axis in axes) != [2, 3]:
            continue
        if not (is_op(before, DEQUANTIZE) and is_op(behind, QUANTIZE)):
            continue
        name, gives = node.output[0], list(behind.input[1:3])
        flat = editor.add_constant(f"{name}_flat", np.array(shape[:2], np.int64))
        node.op_type = "GlobalAveragePool"
        del node.input[1:], node.attribute[:]
        behind.input[0] = f"{name}_y"
        inserted[view.producer[behind.output[0]]] = [
            helper.make_node(QUANTIZE, [name, *gives], [f"{name}_q"]),
            helper.make_node(DEQUANTIZE, [f"{name}_q", *gives], [f"{name}_dq"]),
            helper.make_node("Reshape", [f"{name}_dq", flat], [f"{name}_y"]),
        ]
        editor.forget([name])
        count += 1
    editor.insert(inserted)
    if count:
        editor.sweep()
    return count


def hard_sigmoids(editor: Editor) -> int:
    """Writes HardSigmoid and HardSwish of the usual slope as a sum, a Clip from 0 to 6 and a product."""
    count = 0
    inserted: dict[int, list[NodeProto]] = {}
    numbers: dict[float, str] = {}

    def number(value: float) -> str:
        if value not in numbers:
            constant = np.array(value, np.float32)
            numbers[value] = editor.add_constant(f"edge_sdk_number_{len(numbers)}", constant)
        return numbers[value]

    for place, node in enumerate(editor.graph.node):
        swish = node.op_type == "HardSwish"
        if not swish and node.op_type != "HardSigmoid":
            continue
        slope = (attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)) if not swish else (1 / 6, 0.5)
        if not np.allclose(slope, (1 / 6, 0.5)):
            continue
        name, source = node.output[0], node.input[0]
        cut = f"{name}_from_0_to_6" if not swish else f"{name}_times_6"
        inserted[place] = [
            helper.make_node("Add", [source, number(3.0)], [f"{name}_plus_3"]),
            helper.make_node("Clip", [f"{name}_plus_3", number(0.0), number(6.0)], [f"{name}_from_0_to_6"]),
        ]
        if swish:
            inserted[place].append(helper.make_node("Mul", [source, f"{name}_from_0_to_6"], [cut]))
        node.op_type = "Mul"
        del node.input[:], node.attribute[:]
        node.input.extend([cut, number(1 / 6)])
        count += 1
    editor.insert(inserted)
    return count


def softmaxes(editor: Editor) -> int:
    """Gives a softmax whose quantizer spans 0 to 1 the one scale that NNAPI has for it: 1/256 with zero point 0."""
    view, count = View(editor.model), 0
    for node in view.nodes:
        behind = only_reader(view, node) if node.op_type == "Softmax" else None
        if not is_op(behind, QUANTIZE) or not is_op(view.node_that_makes(node.input[0]), DEQUANTIZE):
            continue
        scale, zero = view.value(behind.input[1]), view.value(behind.input[2])
        if scale is None or zero is None or scale.size != 1 or zero.dtype != np.uint8 or zero.any():
            continue
        if scale.item() == _SOFTMAX_SCALE or not 1 / 1.1 < 255 * scale.item() < 1.1:
            continue
        name = node.output[0]
        parameters = [
            editor.add_constant(f"{name}_256th", np.array(_SOFTMAX_SCALE, np.float32)),
            editor.add_constant(f"{name}_zero", np.array(0, np.uint8)),
        ]
        _share_scale(view, behind, parameters)
        count += 1
    if count:
        editor.sweep()
    return count


def global_pools(editor: Editor) -> int:
    """Writes a quantized global average pool as an average pool, or as a convolution with equal weights.

    NNAPI pools UINT8 without a change of scale. Where that would cost more than a bit, the convolution
    keeps the scale that calibration chose.
    """
    view, count = View(editor.model), 0
    inserted: dict[int, list[NodeProto]] = {}
    for place, node in enumerate(view.nodes):
        if node.op_type != "GlobalAveragePool":
            continue
        before, behind = view.node_that_makes(node.input[0]), only_reader(view, node)
        shape = view.shape(node.input[0])
        if not (is_op(before, DEQUANTIZE) and is_op(behind, QUANTIZE)) or shape is None or len(shape) != 4:
            continue
        scales = view.value(before.input[1]), view.value(behind.input[1])
        if any(scale is None or scale.size != 1 for scale in scales):
            continue
        if float(scales[0]) <= _COARSER * float(scales[1]):  # type: ignore[arg-type]  # checked above
            node.op_type = "AveragePool"
            _share_scale(view, behind, list(before.input[1:3]))
        else:
            inserted[place] = [_mean_weights(editor, node, shape)]
        set_attribute(node, "kernel_shape", list(shape[2:]))
        count += 1
    editor.insert(inserted)
    return count


def _mean_weights(editor: Editor, node: NodeProto, shape: tuple[int, ...]) -> NodeProto:
    """Turns a pool into a depthwise convolution; gives the node that dequantizes its weight."""
    channels, area, name = shape[1], shape[2] * shape[3], f"{node.output[0]}_mean"
    names = [
        editor.add_constant(f"{name}_weight", np.full((channels, 1, *shape[2:]), 127, np.int8)),
        editor.add_constant(f"{name}_scale", np.full(channels, 1 / (127 * area), np.float32)),
        editor.add_constant(f"{name}_zero", np.zeros(channels, np.int8)),
    ]
    node.op_type = "Conv"
    node.input.append(name)
    set_attribute(node, "group", channels)
    return helper.make_node(DEQUANTIZE, names, [name], name, axis=0)


def _share_scale(view: View, quantize: NodeProto, parameters: list[str]) -> None:
    """Gives a quantizer, its readers, and what only moves their values, another scale and zero point."""
    old = list(quantize.input[1:3])
    quantize.input[1:3] = parameters
    for place in view.readers[quantize.output[0]]:
        node = view.nodes[place]
        node.input[1:3] = parameters
        move = only_reader(view, node)
        if move is None or move.op_type not in SAME_SCALE:
            continue
        behind = only_reader(view, move)
        if behind is not None and behind.op_type == QUANTIZE and same_parameters(view, behind.input[1:3], old):
            _share_scale(view, behind, parameters)


TABLE: dict[str, Callable[[Editor], int]] = {
    "nnapi_reshapes": reshapes,
    "nnapi_hard_sigmoids": hard_sigmoids,
    "nnapi_softmaxes": softmaxes,
    "nnapi_means": means,
    "nnapi_global_pools": global_pools,
    "nnapi_products": products,
    "nnapi_reshape_pairs": reshape_pairs,
}
