"""Decoders that give the encoder's tokens back from the compressed ones; they serve training alone.

Shapes: b batch, m compressed tokens, n tokens of the encoder, d width of a token, g tokens of a side.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge_sdk.errors import ModelError
from edge_sdk.models.token_compression._layers import Residual, spread, start_at_zero
from edge_sdk.models.token_compression.grids import strides, to_grid, to_tokens

_MOST_HIDDEN = 256


class ConvDecoder(nn.Module):
    """The mirror of the compressor: a convolution with a shortcut, and a transposed one where the grid grows.

    To what it gives, a linear map of each compressed token is added at the places that it stands for. It
    starts as repetition, to which the steps add nothing.

    Args:
        dim: Width of a token.
        grid: Tokens of a side that leave, those of the encoder.
        input_grid: Compressed tokens of a side.
        num_layers: Steps.
        hidden_dim: Channels within; ``dim``, but at most 256, where None is given.
        progressive: Whether the grid grows over several steps; else in the last one, which costs less.

    Attributes:
        ends: The first and the last layer, by name.
        spread: The linear map.

    Raises:
        ModelError: The grids do not fit each other.
    """

    shortcut = "spread"
    """The linear map, by name."""

    def __init__(
        self,
        dim: int,
        grid: int,
        input_grid: int = 6,
        num_layers: int = 3,
        hidden_dim: int | None = None,
        progressive: bool = False,
    ) -> None:
        super().__init__()
        hidden = min(dim, _MOST_HIDDEN) if hidden_dim is None else hidden_dim
        self.grid, self.input_grid = grid, input_grid
        *steps, last = reversed(strides(grid, input_grid, num_layers, progressive))
        layers: list[nn.Module] = [nn.Conv2d(dim, hidden, 1), Residual(hidden)]
        for stride in steps:
            growing = [nn.ConvTranspose2d(hidden, hidden, stride, stride)] if stride > 1 else []
            layers += [*growing, Residual(hidden)]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(hidden, dim, last, last))
        self.ends = ("layers.0", f"layers.{len(layers)}")
        self.spread = spread(dim, grid // input_grid)
        start_at_zero(self.layers[-1])

    def forward(self, compressed: Tensor) -> Tensor:
        """Compressed tokens ``[b, m, d]`` to ``[b, n, d]``."""
        maps = to_grid(compressed, self.input_grid)
        return to_tokens(self.layers(maps) + self.spread(maps))


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
    shortcut = "spread"
    """The linear map that is added, by name."""

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
        (step,) = strides(grid, input_grid, 1)
        hidden = min(dim, _MOST_HIDDEN) // num_heads * num_heads if hidden_dim is None else hidden_dim
        if hidden < num_heads or hidden % num_heads:
            raise ModelError(f"AttentionDecoder: hidden_dim {hidden} is no multiple of num_heads {num_heads}.")
        self.grid, self.input_grid = grid, input_grid
        self.queries = nn.Parameter(torch.randn(1, grid * grid, hidden) * 0.02)
        self.places = nn.Parameter(torch.randn(1, input_grid * input_grid, hidden) * 0.02)
        self.enter = nn.Linear(dim, hidden)
        self.layers = nn.ModuleList(_CrossLayer(hidden, num_heads) for _ in range(num_layers))
        self.leave = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, dim))
        self.spread = spread(dim, step)
        start_at_zero(self.leave[-1])

    def forward(self, compressed: Tensor) -> Tensor:
        """Compressed tokens ``[b, m, d]`` to ``[b, n, d]``."""
        given = to_tokens(self.spread(to_grid(compressed, self.input_grid)))
        seen = self.enter(compressed) + self.places
        x = self.queries + self.enter(given)
        for layer in self.layers:
            x = layer(x, seen)
        return self.leave(x) + given


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
