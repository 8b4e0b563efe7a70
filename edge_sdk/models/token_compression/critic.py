"""The critic of the Wasserstein GAN: tells the encoder's tokens from compressed ones.

No batch normalisation, which would couple the images of a batch and break the gradient penalty.
Source: Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, arXiv 1704.00028.

Shapes: b batch, m tokens, d width of a token, g tokens of a side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.errors import ModelError
from edge_sdk.models.token_compression.grids import to_grid

_SLOPE = 0.2


class TokenCritic(nn.Module):
    """Scores a grid of tokens; higher means more like the encoder's.

    Args:
        dim: Width of a token.
        grid: Tokens of a side.
        hidden_dim: Channels within.
        num_layers: Convolutions.
        multi_scale: Whether a second network scores the grid at half its size; the score is the mean of both.

    Raises:
        ModelError: A size is below 1, or the grid has no half.
    """

    def __init__(
        self, dim: int, grid: int, hidden_dim: int = 256, num_layers: int = 3, multi_scale: bool = False
    ) -> None:
        super().__init__()
        sizes = {"dim": dim, "grid": grid, "hidden_dim": hidden_dim, "num_layers": num_layers}
        for name, value in sizes.items():
            if value < 1:
                raise ModelError(f"TokenCritic: {name} is {value}; expected 1 or more.")
        if multi_scale and grid < 2:
            raise ModelError("TokenCritic: a single token has no smaller scale: give multi_scale=false.")
        self.grid = grid
        self.scales = nn.ModuleList(_layers(dim, hidden_dim, num_layers) for _ in range(1 + multi_scale))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``[b, m, d]``, row by row, to scores ``[b]``."""
        maps = to_grid(tokens, self.grid)
        scores = []
        for layers in self.scales:
            scores.append(layers(maps).mean((1, 2, 3)))
            maps = F.avg_pool2d(maps, 2, ceil_mode=True) if maps.shape[2] > 1 else maps
        return torch.stack(scores).mean(0)


def _layers(dim: int, hidden: int, count: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = dim
    for _ in range(count):
        # One group is a LayerNorm over channels and places.
        layers += [nn.Conv2d(channels, hidden, 3, padding=1), nn.GroupNorm(1, hidden), nn.LeakyReLU(_SLOPE)]
        channels = hidden
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 1))
