"""``fp16``: weights and arithmetic in half precision, inputs and outputs in single."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from edge_sdk.quantization.base import Data, Quantizer

if TYPE_CHECKING:
    import onnx
    import torch

    from edge_sdk.pipeline.values import Captured, Graph, Quantized
    from edge_sdk.schema.manifest import SkippedLayer


@dataclass(frozen=True)
class Fp16(Quantizer):
    """Half precision throughout, with a cast at each floating-point input and output."""

    name: ClassVar[str] = "fp16"
    summary: ClassVar[str] = "weights and arithmetic in half precision; inputs and outputs stay FP32"
    precision: ClassVar = "fp16"

    def apply_torch(self, captured: Captured, data: Data) -> Quantized:
        """Casts every part."""
        from edge_sdk.pipeline.values import Quantized
        from edge_sdk.schema.manifest import Quantization

        del data
        graphs = tuple(_half(graph) for graph in captured.graphs)
        return Quantized(graphs, Quantization(method=self.name), captured.rewrites)

    def apply_onnx(self, model: onnx.ModelProto, part: str, data: Data) -> tuple[onnx.ModelProto, list[SkippedLayer]]:
        """Casts an ONNX graph with ONNX Runtime's converter, which keeps inputs and outputs in FP32."""
        from edge_sdk.quantization._onnx import to_fp16

        del data
        return to_fp16(model, part)


def _half(graph: Graph) -> Graph:
    """The graph with half-precision weights, exported anew so that every operator's type follows."""
    import torch
    from torch.utils._pytree import tree_map

    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = copy.deepcopy(graph.torch).half()  # type: ignore[union-attr]

        def forward(self, *inputs: torch.Tensor):
            halves = [value.half() if value.dtype == torch.float32 else value for value in inputs]
            return tree_map(_single, self.inner(*halves))

    shapes = (graph.dynamic_shapes,) if graph.dynamic_shapes else None
    with torch.no_grad():
        program = torch.export.export(Half(), graph.example_inputs, dynamic_shapes=shapes, strict=False)
    return replace(graph, torch=program.module(check_guards=False))


def _single(value: torch.Tensor) -> torch.Tensor:
    import torch

    return value.float() if value.dtype == torch.float16 else value
