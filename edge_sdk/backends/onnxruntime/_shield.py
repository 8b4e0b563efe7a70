"""Layers that were left in float stay in float.

ONNX Runtime quantizes a constant weight by itself, with one scale for all channels, where it finds
its layer between a DequantizeLinear and a QuantizeLinear. That is right for a weight that somebody
forgot, and wrong for a layer that was put back into FP32 because it quantizes badly.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_LOWEST = "edge_sdk_lowest"


def shield_float_layers(model: onnx.ModelProto, *, by_two: bool = False) -> int:
    """Puts an operator that passes its one input on before each such layer; edits in place, returns how many.

    A Max of one tensor copies it. Unlike an Identity it is not optimised away.

    Args:
        model: The graph.
        by_two: Whether the Max takes a second input, the lowest number there is, for runtimes that want two.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    nodes, count = [], 0
    for node in model.graph.node:
        if node.op_type in _LAYERS and node.input[0] in dequantized and node.input[1] in constants:
            shield = passing(model, node.input[0], f"{node.output[0]}_float_input", by_two=by_two)
            nodes.append(shield)
            node.input[0] = shield.output[0]
            count += 1
        nodes.append(node)
    if count:
        copied = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(copied)
    return count


def passing(model: onnx.ModelProto, source: str, result: str, *, by_two: bool) -> onnx.NodeProto:
    """A Max that passes a float tensor on; the constant that it may need is added to the graph."""
    names = [source]
    if by_two:
        if all(tensor.name != _LOWEST for tensor in model.graph.initializer):
            lowest = np.full(1, np.finfo(np.float32).min, np.float32)
            model.graph.initializer.append(numpy_helper.from_array(lowest, _LOWEST))
        names.append(_LOWEST)
    return helper.make_node("Max", names, [result], f"{result}_max")
