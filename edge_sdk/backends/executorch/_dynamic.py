"""Linear layers of a static INT8 graph whose results stay in float."""

from __future__ import annotations

import copy
import operator

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators of the next line
from torch.fx import GraphModule, Node

from edge_sdk.pipeline.fx import calls

_Q = torch.ops.quantized_decomposed
# XNNPACK computes float results of 8-bit weights from inputs that are quantized at run time, and from no others.
_LINEAR = {torch.ops.aten.linear.default}
_RANGE = (-128, 127)
_SMALLEST_SCALE = torch.finfo(torch.float32).eps


def with_dynamic_inputs(module: GraphModule) -> GraphModule:
    """A copy of a quantized graph in which such layers quantize their inputs at run time; the graph where none is."""
    if not _float_results(module):
        return module
    done = copy.deepcopy(module)
    for node in _float_results(done):
        value = node.args[0]
        with done.graph.inserting_before(node):
            call = done.graph.call_function
            chosen = call(_Q.choose_qparams.tensor, (value, *_RANGE, _SMALLEST_SCALE, torch.int8))
            how = (*(call(operator.getitem, (chosen, place)) for place in (0, 1)), *_RANGE, torch.int8)
            quantized = call(_Q.quantize_per_tensor.tensor, (value, *how))
            node.update_arg(0, call(_Q.dequantize_per_tensor.tensor, (quantized, *how)))
    done.recompile()
    return done


def _float_results(module: GraphModule) -> list[Node]:
    """The layers with quantized inputs, and weights of a scale for each channel, whose results nothing quantizes."""
    return [node for node in calls(module, _LINEAR) if _is_quantized(node) and not _is_rounded(node)]


def _is_quantized(layer: Node) -> bool:
    targets = [node.target if isinstance(node, Node) else None for node in layer.args[:2]]
    return targets == [_Q.dequantize_per_tensor.default, _Q.dequantize_per_channel.default]


def _is_rounded(layer: Node) -> bool:
    return any(user.target is _Q.quantize_per_tensor.default for user in layer.users)
