"""Activations of a static INT8 graph as UINT8, the form that oneDNN's integer kernels take; exact."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators of the next line
from torch.fx import GraphModule

from edge_sdk.pipeline.fx import arguments, calls

_Q = torch.ops.quantized_decomposed
_SHIFT = 128


def with_unsigned_activations(module: GraphModule | None) -> GraphModule:
    """A copy of a graph whose quantizers of activations give UINT8, each value 128 higher."""
    done: Any = copy.deepcopy(module)
    for node in calls(done, {_Q.quantize_per_tensor.default, _Q.dequantize_per_tensor.default}):
        source, scale, zero, low, high, dtype = arguments(node)
        if dtype == torch.int8:
            node.args = (source, scale, zero + _SHIFT, low + _SHIFT, high + _SHIFT, torch.uint8)
    done.recompile()
    return done
