"""Decoders that give the encoder's tokens back from the compressed ones; they serve training alone.

Shapes: b batch, m compressed tokens, n tokens of the encoder, d width of a token, g tokens of a side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.errors import ModelError
from edge_sdk.models.token_compression.grids import convolution, strides, to_grid, to_tokens

_MOST_HIDDEN = 256


class ConvDecoder(nn.Module):
    """The mirror of the compressor: each step spreads tokens by a transposed convolution.

    To what it gives, each compressed token is added at all places that it stands for.

    Attributes:
        ends: The first and the last layer, by name.

    Args:
        dim: Width of a token.
        grid: Tokens of a side that leave, those of the encoder.
        input_grid: Compressed tokens of a side.
        num_layers: Steps.
        hidden_dim: Channels within; ``dim``, but at most 256, where None is given.

    Raises:
        ModelError: The grids do not fit each other.
    """

    def __init__(
        self, dim: int, grid: int, input_grid: int = 6, num_layers: int = 3, hidden_dim: int | None = None
    ) -> None:
        super().__init__()
        hidden = min(dim, _MOST_HIDDEN) if hidden_dim is None else hidden_dim
        self.grid, self.input_grid = grid, input_grid
        layers: list[nn.Module] = [nn.Conv2d(dim, hidden, 1), nn.ReLU()]
        for stride in reversed(strides(grid, input_grid, num_layers)):
            kernel, padding = convolution(stride)
            layers += [nn.ConvTranspose2d(hidden, hidden, kernel, stride, padding), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(hidden, dim, 1))
        self.ends = ("layers.0", f"layers.{len(layers)}")
        _start_at_zero(self.layers[-1])

    def forward(self, compressed: Tensor) -> Tensor:
        """Compressed tokens ``[b, m, d]`` to ``[b, n, d]``."""
        maps = to_grid(compressed, self.input_grid)
        repeated = F.interpolate(maps, size=(self.grid, self.grid), mode="nearest")
        return to_tokens(self.layers(maps) + repeated)


class AttentionDecoder(nn.Module):
    """Each place of the encoder's grid asks the compressed tokens what stood there.

    Args:
        dim: Width of a token.
        grid: Tokens of a side that leave, those of the encoder.
        input_grid: Compressed tokens of a side.
        num_layers: Layers of attention.
        hidden_dim: Width within, a multiple of ``num_heads``; ``dim``, but at most 256, where None is given.
        num_heads: Heads of the attention.

    Raises:
        ModelError: A size does not fit.
    """

    ends = ("enter", "leave.1")
    """The first and the last layer, by name."""

    def __init__(
        self,
        dim: int,
        grid: int,
        input_grid: int = 6,
        num_layers: int = 2,
        hidden_dim: int | None = None,
        num_heads: int = 4,
    ) -> None:
        super().__init__()
        strides(grid, input_grid, 1)
        hidden = min(dim, _MOST_HIDDEN) // num_heads * num_heads if hidden_dim is None else hidden_dim
        if hidden < num_heads or hidden % num_heads:
            raise ModelError(f"AttentionDecoder: hidden_dim {hidden} is no multiple of num_heads {num_heads}.")
        self.grid, self.input_grid = grid, input_grid
        self.queries = nn.Parameter(torch.randn(1, grid * grid, hidden) * 0.02)
        self.places = nn.Parameter(torch.randn(1, input_grid * input_grid, hidden) * 0.02)
        self.enter = nn.Linear(dim, hidden)
        self.layers = nn.ModuleList(_CrossLayer(hidden, num_heads) for _ in range(num_layers))
        self.leave = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, dim))
        _start_at_zero(self.leave[-1])

    def forward(self, compressed: Tensor) -> Tensor:
        """Compressed tokens ``[b, m, d]`` to ``[b, n, d]``."""
        maps = to_grid(compressed, self.input_grid)
        repeated = to_tokens(F.interpolate(maps, size=(self.grid, self.grid), mode="nearest"))
        seen = self.enter(compressed) + self.places
        x = self.queries + self.enter(repeated)
        for layer in self.layers:
            x = layer(x, seen)
        return self.leave(x) + repeated


class _CrossLayer(nn.Module):
    """Attention to the compressed tokens, and a network of two layers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.after = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """``[b, n, width]`` to the same shape."""
        x = x + self.attention(self.norm(x), seen, seen, need_weights=False)[0]
        return x + self.after(x)


def _start_at_zero(layer: nn.Module) -> None:
    """Training starts at the compressed tokens, repeated."""
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
