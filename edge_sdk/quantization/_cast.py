"""Graphs whose weights and arithmetic are in a shorter float, with inputs and outputs in single precision."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch.utils._pytree import tree_map

from edge_sdk.pipeline.values import Graph


def cast(graph: Graph, dtype: torch.dtype) -> Graph:
    """The graph with weights of a type, exported anew so that every operator's type follows.

    Args:
        graph: A PyTorch graph in FP32.
        dtype: ``torch.float16`` or ``torch.bfloat16``.
    """

    def single(value: torch.Tensor) -> torch.Tensor:
        return value.float() if value.dtype == dtype else value

    class Cast(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = copy.deepcopy(graph.torch).to(dtype)  # type: ignore[union-attr]

        def forward(self, *inputs: torch.Tensor):
            short = [value.to(dtype) if value.dtype == torch.float32 else value for value in inputs]
            return tree_map(single, self.inner(*short))

    shapes = (graph.dynamic_shapes,) if graph.dynamic_shapes else None
    with torch.no_grad():
        program = torch.export.export(Cast(), graph.example_inputs, dynamic_shapes=shapes, strict=False)
    return replace(graph, torch=program.module(check_guards=False))
