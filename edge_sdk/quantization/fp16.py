"""``fp16``: weights and arithmetic in half precision, inputs and outputs in single."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from edge_sdk.quantization.base import Data, Quantizer

if TYPE_CHECKING:
    import onnx

    from edge_sdk.pipeline.values import Captured, Quantized
    from edge_sdk.schema.manifest import SkippedLayer


@dataclass(frozen=True)
class Fp16(Quantizer):
    """Half precision throughout, with a cast at each floating-point input and output."""

    name: ClassVar[str] = "fp16"
    summary: ClassVar[str] = "weights and arithmetic in half precision; inputs and outputs stay FP32"
    precision: ClassVar = "fp16"

    def apply_torch(self, captured: Captured, data: Data) -> Quantized:
        """Casts every part."""
        import torch

        from edge_sdk.pipeline.values import Quantized
        from edge_sdk.quantization._cast import cast
        from edge_sdk.schema.manifest import Quantization

        del data
        graphs = tuple(cast(graph, torch.float16) for graph in captured.graphs)
        return Quantized(graphs, Quantization(method=self.name), captured.rewrites)

    def apply_onnx(self, model: onnx.ModelProto, part: str, data: Data) -> tuple[onnx.ModelProto, list[SkippedLayer]]:
        """Casts an ONNX graph with ONNX Runtime's converter, which keeps inputs and outputs in FP32."""
        from edge_sdk.quantization._onnx import to_fp16

        del data
        return to_fp16(model, part)
