"""``bf16``: weights and arithmetic in bfloat16, inputs and outputs in single precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from edge_sdk.quantization.base import Data, Quantizer

if TYPE_CHECKING:
    from edge_sdk.pipeline.values import Captured, Quantized


@dataclass(frozen=True)
class Bf16(Quantizer):
    """Bfloat16 throughout, with a cast at each floating-point input and output."""

    name: ClassVar[str] = "bf16"
    summary: ClassVar[str] = "weights and arithmetic in bfloat16; inputs and outputs stay FP32"
    precision: ClassVar = "bf16"

    def apply_torch(self, captured: Captured, data: Data) -> Quantized:
        """Casts every part."""
        import torch

        from edge_sdk.pipeline.values import Quantized
        from edge_sdk.quantization._cast import cast
        from edge_sdk.schema.manifest import Quantization

        del data
        graphs = tuple(cast(graph, torch.bfloat16) for graph in captured.graphs)
        return Quantized(graphs, Quantization(method=self.name), captured.rewrites)
