"""The nearest code by operators that delegates have: they lack the index of a maximum, and the rows of a table."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_SHARPNESS = 1e7  # distances that differ by less than what float32 tells apart give a mixture


class SharpNearest(nn.Module):
    """1 for the nearest code and 0 for others, by a sharp softmax.

    Args:
        codes: `[k, d]`.
    """

    factors: Tensor
    offsets: Tensor

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        self.register_buffer("factors", (2 * _SHARPNESS * codes.T).contiguous())
        self.register_buffer("offsets", _SHARPNESS * codes.square().sum(1))

    def forward(self, rows: Tensor) -> Tensor:
        """`[n, d]` to `[n, k]`."""
        return torch.softmax(rows @ self.factors - self.offsets, dim=-1)
