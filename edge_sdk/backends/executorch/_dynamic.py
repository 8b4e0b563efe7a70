"""Linear layers of a static INT8 graph whose results stay in float."""

from __future__ import annotations

import copy
import operator

import torch
from torch.fx import GraphModule, Node

from edge_sdk.pipeline.fx import calls

# XNNPACK computes float results of 8-bit weights from inputs that are quantized at run time, and from no others.
_LINEAR = {torch.ops.aten.linear.default}
_RANGE = (-128, 127)
_SMALLEST_SCALE = torch.finfo(torch.float32).eps


def with_dynamic_inputs(module: GraphModule) -> GraphModule:
    """A copy of a quantized graph in which such layers quantize their inputs at run time; the graph where none is."""
    import executorch.kernels.quantized  # noqa: F401 - registers the operators

    if not any(_has_float_result(node) for node in calls(module, _LINEAR)):
        return module
    done = copy.deepcopy(module)
    ops = torch.ops.quantized_decomposed
    for node in list(calls(done, _LINEAR)):
        if not _has_float_result(node):
            continue
        value = node.args[0]
        with done.graph.inserting_before(node):
            call = done.graph.call_function
            chosen = call(ops.choose_qparams.tensor, (value, *_RANGE, _SMALLEST_SCALE, torch.int8))
            how = (*(call(operator.getitem, (chosen, place)) for place in (0, 1)), *_RANGE, torch.int8)
            quantized = call(ops.quantize_per_tensor.tensor, (value, *how))
            node.update_arg(0, call(ops.dequantize_per_tensor.tensor, (quantized, *how)))
    done.recompile()
    return done


def _has_float_result(node: Node) -> bool:
    """Whether a layer with quantized weights and inputs gives results that nothing quantizes."""
    ops = torch.ops.quantized_decomposed
    value, weight = node.args[:2]
    is_static = isinstance(value, Node) and value.target is ops.dequantize_per_tensor.default
    is_quantized = isinstance(weight, Node) and weight.target is ops.dequantize_per_channel.default
    return is_static and is_quantized and not any(user.target is ops.quantize_per_tensor.default for user in node.users)
