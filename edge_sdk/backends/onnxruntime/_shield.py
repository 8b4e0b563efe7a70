"""Layers that were left in float stay in float.

ONNX Runtime quantizes a constant weight by itself, with one scale for all channels, where it finds
its layer between a DequantizeLinear and a QuantizeLinear. That is right for a weight that somebody
forgot, and wrong for a layer that was put back into FP32 because it quantizes badly.
"""

from __future__ import annotations

import onnx
from onnx import helper

_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def shield_float_layers(model: onnx.ModelProto) -> int:
    """Puts an operator that passes its one input on before each such layer; edits in place, returns how many.

    A Max of one tensor copies it. Unlike an Identity it is not optimised away.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    nodes, count = [], 0
    for node in model.graph.node:
        if node.op_type in _LAYERS and node.input[0] in dequantized and node.input[1] in constants:
            passed = f"{node.output[0]}_float_input"
            nodes.append(helper.make_node("Max", [node.input[0]], [passed], f"{passed}_max"))
            node.input[0] = passed
            count += 1
        nodes.append(node)
    if count:
        copied = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(copied)
    return count
