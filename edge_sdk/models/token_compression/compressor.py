"""From the many tokens of an image encoder to a few, by convolutions over their grid.

Convolutions and ReLU alone: phones run them whole and in INT8.

Shapes: b batch, n tokens that enter, m that leave, d width of a token, g tokens of a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.errors import ModelError
from edge_sdk.models.token_compression._layers import Residual, merge, start_at_zero
from edge_sdk.models.token_compression.grids import strides, to_grid, to_tokens

_MOST_HIDDEN = 256


class TokenCompressor(nn.Module):
    """Joins neighbouring tokens in steps: a convolution where the grid shrinks, and one with a shortcut.

    Args:
        dim: Width of a token.
        grid: Tokens of a side that enter.
        output_grid: Tokens of a side that leave; it divides ``grid``.
        num_layers: Steps.
        hidden_dim: Channels within; ``dim``, but at most 256, where None is given.
        use_residual: Whether a linear map of the tokens that each one stands for is added. It starts as
            their average, to which the steps add nothing: training then starts at average pooling.
        progressive: Whether the grid shrinks over several steps; else in the first one, which costs less.

    Attributes:
        merge: The linear map, None without ``use_residual``.

    Raises:
        ModelError: A size is below 1, or ``output_grid`` is too large or does not divide ``grid``.
    """

    ends = ("layers.0", "project")
    """The first and the last layer, by name."""
    shortcut = "merge"
    """The linear map, by name."""

    def __init__(
        self,
        dim: int,
        grid: int,
        output_grid: int = 6,
        num_layers: int = 3,
        hidden_dim: int | None = None,
        use_residual: bool = True,
        progressive: bool = False,
    ) -> None:
        super().__init__()
        hidden = min(dim, _MOST_HIDDEN) if hidden_dim is None else hidden_dim
        for name, value in (("dim", dim), ("hidden_dim", hidden)):
            if value < 1:
                raise ModelError(f"TokenCompressor: {name} is {value}; expected 1 or more.")
        self.dim, self.grid, self.output_grid = dim, grid, output_grid
        first, *steps = strides(grid, output_grid, num_layers, progressive)
        layers: list[nn.Module] = [nn.Conv2d(dim, hidden, first, first), Residual(hidden)]
        for stride in steps:
            shrinking = [nn.Conv2d(hidden, hidden, stride, stride)] if stride > 1 else []
            layers += [*shrinking, Residual(hidden)]
        self.layers = nn.Sequential(*layers)
        self.project = nn.Conv2d(hidden, dim, 1)
        self.merge = merge(dim, grid // output_grid) if use_residual else None
        if use_residual:
            start_at_zero(self.project)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``[b, n, d]`` to ``[b, m, d]``, both row by row.

        Raises:
            ModelError: They are of another shape.
        """
        if tokens.dim() == 3 and tokens.shape[2] != self.dim:
            raise ModelError(f"tokens are {tokens.shape[2]} wide; the compressor takes {self.dim}.")
        maps = to_grid(tokens, self.grid)
        found = self.project(self.layers(maps))
        return to_tokens(found if self.merge is None else found + self.merge(maps))


class Compressed(NamedTuple):
    """Tokens of images that were compressed to different grids.

    Attributes:
        tokens: ``[b, m, d]``, m that of the largest grid; an image of a smaller one has zeros after its tokens.
        mask: bool ``[b, m]``, which are tokens.
        grids: int64 ``[b]``, tokens of a side of each image.
    """

    tokens: Tensor
    mask: Tensor
    grids: Tensor


class DynamicTokenCompressor(nn.Module):
    """Compresses each image to the smallest grid that is fine enough for it.

    Args:
        compressors: One for each grid, all of the same ``dim`` and ``grid``.
        tolerance: The complexity (`complexity`) that a grid may leave, from 0 to 1.

    Raises:
        ModelError: There are none, they do not fit each other, or the tolerance is not from 0 to 1.
    """

    def __init__(self, compressors: Sequence[TokenCompressor], tolerance: float = 0.5) -> None:
        super().__init__()
        if not compressors:
            raise ModelError("DynamicTokenCompressor: there are no compressors; give one for each grid.")
        if len({(one.dim, one.grid) for one in compressors}) > 1:
            raise ModelError("DynamicTokenCompressor: the compressors take tokens of different widths or grids.")
        if len({one.output_grid for one in compressors}) < len(compressors):
            raise ModelError("DynamicTokenCompressor: two compressors give the same grid.")
        if not 0 <= tolerance <= 1:
            raise ModelError(f"DynamicTokenCompressor: tolerance is {tolerance}; expected 0 to 1.")
        self.compressors = nn.ModuleList(sorted(compressors, key=lambda one: one.output_grid))
        self.tolerance = tolerance

    @property
    def grids(self) -> list[int]:
        """Those to choose from, smallest first."""
        return [int(one.output_grid) for one in self.compressors]  # type: ignore[arg-type]

    def left(self, tokens: Tensor) -> Tensor:
        """The complexity that each of `grids` leaves of each image: ``[len(grids), b]``."""
        grid = int(self.compressors[0].grid)  # type: ignore[arg-type]
        return torch.stack([complexity(tokens, grid, one) for one in self.grids])

    def choose(self, tokens: Tensor) -> Tensor:
        """The smallest grid whose complexity is within the tolerance, or the largest: int64 ``[b]``."""
        fits = self.left(tokens) <= self.tolerance
        fits[-1] = True
        return torch.tensor(self.grids, device=tokens.device)[fits.int().argmax(0)]

    def forward(self, tokens: Tensor) -> Compressed:
        """Tokens ``[b, n, d]``, each image's to the grid that `choose` names."""
        grids = self.choose(tokens)
        found = tokens.new_zeros(len(tokens), self.grids[-1] ** 2, tokens.shape[2])
        for grid, compressor in zip(self.grids, self.compressors, strict=True):
            rows = (grids == grid).nonzero()[:, 0]
            if len(rows):
                found[rows, : grid * grid] = compressor(tokens[rows]).to(found.dtype)
        mask = torch.arange(found.shape[1], device=tokens.device) < (grids * grids)[:, None]
        return Compressed(found, mask, grids)


def complexity(tokens: Tensor, grid: int, output_grid: int) -> Tensor:
    """The share of an image's variance that averages over a smaller grid lose: 0 for a plain image, at most 1.

    Args:
        tokens: ``[b, n, d]``.
        grid: Tokens of a side.
        output_grid: Averages of a side.

    Returns:
        ``[b]``; 0 where all tokens of an image are the same.
    """
    maps = to_grid(tokens, grid)
    spread = (maps - maps.mean((2, 3), keepdim=True)).square().sum((1, 2, 3))
    kept = F.avg_pool2d(maps, grid // output_grid)
    held = (kept - kept.mean((2, 3), keepdim=True)).square().sum((1, 2, 3)) * (grid // output_grid) ** 2
    return torch.where(spread > 0, 1 - held / spread.clamp(min=torch.finfo(spread.dtype).tiny), 0.0).clamp(0, 1)
