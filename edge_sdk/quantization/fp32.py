"""``fp32``: full precision, as trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edge_sdk.quantization.base import Quantizer


@dataclass(frozen=True)
class Fp32(Quantizer):
    """Leaves everything as it is: the pipeline applies nothing."""

    name: ClassVar[str] = "fp32"
    summary: ClassVar[str] = "full precision, as trained"
    precision: ClassVar = "fp32"
