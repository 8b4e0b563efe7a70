"""``fp32``: full precision, as trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from edge_sdk.quantization.base import Data, Quantizer

if TYPE_CHECKING:
    import onnx

    from edge_sdk.pipeline.values import Captured, Quantized
    from edge_sdk.schema.manifest import SkippedLayer


@dataclass(frozen=True)
class Fp32(Quantizer):
    """Leaves everything as it is."""

    name: ClassVar[str] = "fp32"
    summary: ClassVar[str] = "full precision, as trained"
    precision: ClassVar = "fp32"

    def apply_torch(self, captured: Captured, data: Data) -> Quantized:
        """The graphs as they are."""
        from edge_sdk.pipeline.values import Quantized
        from edge_sdk.schema.manifest import Quantization

        del data
        return Quantized(captured.graphs, Quantization(method=self.name), captured.rewrites)

    def apply_onnx(self, model: onnx.ModelProto, part: str, data: Data) -> tuple[onnx.ModelProto, list[SkippedLayer]]:
        """The graph as it is."""
        del part, data
        return model, []
