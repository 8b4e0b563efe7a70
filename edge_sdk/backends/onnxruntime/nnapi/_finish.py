"""The last steps on a graph for NNAPI, on what ONNX Runtime's basic optimisations leave."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto, TensorProto, helper

from edge_sdk.backends.onnxruntime._rewrites import Editor
from edge_sdk.backends.onnxruntime._shield import passing
from edge_sdk.backends.onnxruntime.nnapi._rules import RULES, why_not
from edge_sdk.backends.onnxruntime.nnapi._units import DEQUANTIZE, QUANTIZE, Edge, Unit, same_parameters, units_of
from edge_sdk.backends.onnxruntime.nnapi._view import View

_ANY_LEVEL = 31


def max_pools(editor: Editor) -> int:
    """Runs a max pool behind a quantized convolution on UINT8.

    The provider takes it so where the node before it, and not a quantizer around that, gives the UINT8
    (nnapi_execution_provider.cc notes the outputs of a group's operator only): the convolution becomes
    ONNX's own QLinearConv.
    """
    view, count = View(editor.model), 0
    units = units_of(view)
    done: set[str] = set()
    for place, node in enumerate(view.nodes):
        if node.op_type != "MaxPool" or not units[place].grouped:
            continue
        before, behind = (view.nodes[at] for at in (units[place].before[0], units[place].behind[0]))
        made = view.producer.get(before.input[0])
        if made is None or not same_parameters(view, before.input[1:3], behind.input[1:3]):
            continue
        layer = units[made]
        if view.nodes[layer.target].op_type == "Conv" and layer.grouped and why_not(layer, view, _ANY_LEVEL) is None:
            _to_qlinear(view, layer)
        elif before.input[0] not in done:
            continue
        done.update((before.input[0], behind.output[0]))
        node.input[0] = before.input[0]
        node.output[0] = behind.output[0]
        behind.output[0] = f"{behind.output[0]}_unused"
        count += 1
    if count:
        editor.sweep()
    return count


def _to_qlinear(view: View, layer: Unit) -> None:
    """Writes a group around a convolution as the one operator; its quantizers are left for the sweep."""
    node, quantize = view.nodes[layer.target], view.nodes[layer.behind[-1]]
    image, weight = layer.inputs[:2]
    bias = [layer.inputs[2].name] if len(layer.inputs) > 2 else []
    result = quantize.output[0]
    parameters = list(quantize.input[1:3])
    quantize.output[0] = f"{result}_unused"
    node.op_type = "QLinearConv"
    del node.input[:], node.output[:]
    node.input.extend([*_names(image), *_names(weight), *parameters, *bias])
    node.output.append(result)


def _names(edge: Edge) -> list[str]:
    return [edge.name, edge.scale or "", edge.zero or ""]


def float_operators(editor: Editor) -> int:
    """Lets an operator that the provider takes in float only run in float, by parting it from its quantizers."""
    view, count = View(editor.model), 0
    inserted: dict[int, list[NodeProto]] = {}
    for unit in {id(unit): unit for unit in units_of(view).values() if unit.grouped}.values():
        node = view.nodes[unit.target]
        if node.op_type not in RULES or why_not(unit, view, _ANY_LEVEL) is None or len(unit.before) != 1:
            continue
        alone = Unit(unit.target, tuple(map(Edge, node.input)), tuple(map(Edge, node.output)))
        if why_not(alone, view, _ANY_LEVEL) is not None:
            continue
        parted = passing(editor.model, node.input[0], f"{node.output[0]}_in_float", by_two=True)
        node.input[0] = parted.output[0]
        inserted[unit.target] = [parted]
        count += 1
    editor.insert(inserted)
    return count


def quantized_edges(editor: Editor) -> int:
    """Leaves the quantizers of the model's inputs and outputs to the CPU, so that NNAPI gets and gives UINT8.

    A quantizer with a scale for each channel is one that the provider leaves alone; here all of them
    are the same, so that the values are what they were.
    """
    view, count = View(editor.model), 0
    for node in view.nodes:
        if node.op_type == QUANTIZE and node.input[0] in view.inputs:
            shape = view.shape(node.input[0])
        elif node.op_type == DEQUANTIZE and node.output[0] in view.outputs:
            shape = view.shape(node.input[0])
        else:
            continue
        scale, zero = (view.value(name) for name in node.input[1:3])
        if scale is None or zero is None or scale.size != 1 or shape is None or len(shape) < 2 or shape[1] < 2:
            continue
        name = node.output[0]
        node.input[1] = editor.add_constant(f"{name}_scales", np.full(shape[1], scale.item(), scale.dtype))
        node.input[2] = editor.add_constant(f"{name}_zeros", np.full(shape[1], zero.item(), zero.dtype))
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("axis", 1))
        count += 1
    if count:
        editor.sweep()
    return count


def is_edge(view: View, unit: Unit) -> bool:
    """Whether a unit is one of the quantizers that `quantized_edges` leaves to the CPU."""
    node = view.nodes[unit.target]
    if unit.grouped or node.op_type not in (QUANTIZE, DEQUANTIZE) or len(node.input) < 3:
        return False
    if node.input[0] not in view.inputs and node.output[0] not in view.outputs:
        return False
    scale = view.value(node.input[1])
    quantized = node.output[0] if node.op_type == QUANTIZE else node.input[0]
    return scale is not None and scale.size > 1 and len(set(scale.tolist())) == 1 and view.dtype(quantized) == _UINT8


_UINT8 = TensorProto.UINT8
TABLE: dict[str, Callable[[Editor], int]] = {
    "nnapi_max_pools": max_pools,
    "nnapi_float_operators": float_operators,
    "nnapi_quantized_edges": quantized_edges,
}
