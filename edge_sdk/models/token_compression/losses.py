"""What the compressor, its decoder and its critic are trained with.

Sources: Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, arXiv 1704.00028,
equation 3 and algorithm 1.

Shapes: b batch, n tokens, m compressed tokens, d width of a token, g tokens of a side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from edge_sdk.errors import ModelError, unknown_name
from edge_sdk.models.token_compression.grids import strides, to_grid, to_tokens


def sampled(tokens: Tensor, grid: int, output_grid: int, draw: torch.Generator | None = None) -> Tensor:
    """One of the encoder's tokens for each compressed one, from the places that it stands for.

    All are taken from the same corner of these places, so that neighbours keep their distance.

    Args:
        tokens: ``[b, n, d]``.
        grid: Tokens of a side.
        output_grid: Compressed tokens of a side.
        draw: Chooses the corner.

    Returns:
        ``[b, m, d]``.
    """
    step = strides(grid, output_grid, 1)[0]
    row, column = torch.randint(step, (2,), generator=draw).tolist()
    return to_tokens(to_grid(tokens, grid)[:, :, row::step, column::step])


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """What the critic makes small, without the penalty: the mean score of compressed tokens less that of real ones."""
    return fake.mean() - real.mean()


def generator_loss(fake: Tensor) -> Tensor:
    """What the compressor makes small: less the mean score of its tokens."""
    return -fake.mean()


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, draw: torch.Generator | None = None
) -> Tensor:
    """``mean((norm of the critic's gradient - 1)^2)`` between real and compressed tokens.

    Args:
        critic: Gives a score ``[b]`` for tokens ``[b, m, d]``.
        real: ``[b, m, d]``.
        fake: ``[b, m, d]``.
        draw: Chooses the point between the two for each image.
    """
    share = torch.rand(len(real), 1, 1, generator=draw, device=draw.device if draw else None)
    share = share.to(real.device, real.dtype)
    between = (share * real.detach() + (1 - share) * fake.detach()).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def mse(found: Tensor, tokens: Tensor, grid: int) -> Tensor:
    """The mean squared error."""
    del grid
    return F.mse_loss(found, tokens)


def cosine(found: Tensor, tokens: Tensor, grid: int) -> Tensor:
    """1 less the mean cosine similarity of each token with what it became."""
    del grid
    return 1 - F.cosine_similarity(found, tokens, dim=2).mean()


def hybrid(found: Tensor, tokens: Tensor, grid: int) -> Tensor:
    """`mse` and `cosine`, added."""
    return mse(found, tokens, grid) + cosine(found, tokens, grid)


def perceptual(found: Tensor, tokens: Tensor, grid: int) -> Tensor:
    """`mse`, and that of the differences between neighbours: what is next to what stays so."""
    maps, wanted = to_grid(found, grid), to_grid(tokens, grid)
    return mse(found, tokens, grid) + sum(
        (F.mse_loss(maps.diff(dim=axis), wanted.diff(dim=axis)) for axis in (2, 3)), maps.new_zeros(())
    )


RECONSTRUCTION: Mapping[str, Callable[[Tensor, Tensor, int], Tensor]] = MappingProxyType(
    {"mse": mse, "cosine": cosine, "hybrid": hybrid, "perceptual": perceptual}
)
"""Name to a loss of what the decoder gave ``[b, n, d]``, the encoder's tokens ``[b, n, d]``, and their grid."""


def reconstruction(name: str) -> Callable[[Tensor, Tensor, int], Tensor]:
    """A loss of `RECONSTRUCTION`.

    Raises:
        ModelError: There is none of that name.
    """
    if name not in RECONSTRUCTION:
        raise ModelError(unknown_name("reconstruction loss", name, RECONSTRUCTION))
    return RECONSTRUCTION[name]
