"""Layers that the compressor and its decoder share.

Shapes: b batch, c channels, g tokens of a side.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """A convolution of what is above 0, with a shortcut.

    Nothing comes after the sum: where ReLU follows it, all channels may fall below 0 for good.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, c, g, g]`` to the same shape."""
        return x + self.conv(self.relu(x))


def merge(dim: int, step: int) -> nn.Conv2d:
    """A linear map of ``step * step`` tokens to one; it starts as their average."""
    layer = nn.Conv2d(dim, dim, step, step)
    _set(layer, torch.eye(dim)[:, :, None, None].expand(-1, -1, step, step) / step**2)
    return layer


def spread(dim: int, step: int) -> nn.ConvTranspose2d:
    """A linear map of a token to ``step * step`` of them; it starts as repetition."""
    layer = nn.ConvTranspose2d(dim, dim, step, step)
    _set(layer, torch.eye(dim)[:, :, None, None].expand(-1, -1, step, step))
    return layer


def start_at_zero(layer: nn.Module) -> None:
    """What a layer adds to a shortcut is nothing when training starts."""
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    _set(layer, torch.zeros_like(layer.weight))


def _set(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, weight: Tensor) -> None:
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.zero_()  # type: ignore[union-attr]
