"""Dynamic INT8 in torchao's own form, whose products are computed in integers: each row of inputs has its scale."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from edge_sdk.errors import MissingDependencyError
from edge_sdk.pipeline.values import Captured, Graph, Quantized
from edge_sdk.quantization._weights import linear_modules, refuse_without_linear, skipped_layers
from edge_sdk.schema.manifest import Quantization

if TYPE_CHECKING:
    from edge_sdk.quantization.base import Quantizer

# Source: at::native::_int_mm_cuda of PyTorch, which refuses a product of 16 rows or fewer.
MOST_FEW_ROWS = 16


def quantize(captured: Captured, quantizer: Quantizer) -> Quantized:
    """Quantizes the linear layers of every part.

    Raises:
        UnsupportedError: The model has no linear layer.
    """
    refuse_without_linear(quantizer.name, captured)
    graphs = tuple(_quantized(graph) for graph in captured.graphs)
    skipped = skipped_layers(quantizer.name, captured)
    return Quantized(graphs, Quantization(method=quantizer.name, skipped=skipped), captured.rewrites)


def _quantized(graph: Graph) -> Graph:
    try:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
        from torchao.utils import unwrap_tensor_subclass
    except ImportError as error:
        raise MissingDependencyError(
            f"int8-dynamic needs torchao, which cannot be imported: {error}. Run: pip install 'edge-sdk[aotinductor]'"
        ) from error
    module = copy.deepcopy(graph.torch)
    assert module is not None
    chosen = linear_modules(module)
    quantize_(module, Int8DynamicActivationInt8WeightConfig(), filter_fn=lambda _, name: name in chosen)
    for name in chosen:
        inner: Any = module.get_submodule(name)
        unwrap_tensor_subclass(inner)
        setattr(module, name, _EnoughRows(inner))
    with torch.no_grad():
        program = torch.export.export(module, graph.example_inputs, dynamic_shapes=graph.dynamic_shapes, strict=False)
    return replace(graph, torch=program.module(check_guards=False))


class _EnoughRows(torch.nn.Module):
    """A linear layer that gets more rows than GPUs refuse: rows of zeros are added and their results dropped."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        count = rows.shape[0]
        if isinstance(count, int) and count > MOST_FEW_ROWS:
            return self.layer(x)
        padded = torch.nn.functional.pad(rows, (0, 0, 0, MOST_FEW_ROWS))
        return self.layer(padded)[:count].reshape(*x.shape[:-1], -1)
