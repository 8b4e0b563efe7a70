"""How much of the encoder's tokens is still in what was made of them.

Shapes: i images, n tokens, m compressed tokens, d width of a token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edge_sdk.models.token_compression.grids import to_grid, to_tokens

_RIDGE = 1e-3  # of the probe, as a share of its descriptors' mean square


def cosine(found: Tensor, tokens: Tensor) -> Tensor:
    """The mean cosine similarity of an image's tokens ``[i, n, d]`` with what they became: ``[i]``."""
    return F.cosine_similarity(found, tokens, dim=2).mean(1)


def relative_mse(found: Tensor, tokens: Tensor) -> Tensor:
    """The squared error of an image's tokens as a share of their squares: ``[i]``."""
    return (found - tokens).square().sum((1, 2)) / tokens.square().sum((1, 2))


def pooled(tokens: Tensor, grid: int, output_grid: int) -> Tensor:
    """What average pooling makes of tokens ``[i, n, d]``, each average repeated at the places that it stands for."""
    maps = F.avg_pool2d(to_grid(tokens, grid), grid // output_grid)
    return to_tokens(F.interpolate(maps, size=(grid, grid), mode="nearest"))


def neighbours(tokens: Tensor) -> Tensor:
    """The number of the image that is most alike to each, other than itself, its tokens compared place by place.

    Args:
        tokens: ``[i, n, d]``.

    Returns:
        int64 ``[i]``.
    """
    flat = F.normalize(tokens.flatten(1).float(), dim=1)
    alike = flat @ flat.T
    return alike.fill_diagonal_(-torch.inf).argmax(1)


def retrieval_agreement(found: Tensor, tokens: Tensor) -> float:
    """How often the image most alike is the one that the encoder's own tokens name, from 0 to 1."""
    return float((neighbours(found) == neighbours(tokens)).float().mean())


def probe_agreement(found: Tensor, tokens: Tensor, labels: Tensor) -> float:
    """How often a linear classifier says of what was made of tokens what it says of the tokens themselves.

    It is fitted to the encoder's tokens of every other image, by ridge regression, and asked about the
    others. It sees the mean and the deviation of each channel over the places.

    Args:
        found: ``[i, n, d]``.
        tokens: ``[i, n, d]``.
        labels: int64 ``[i]``.
    """
    seen, asked = slice(0, None, 2), slice(1, None, 2)
    described = _moments(tokens)
    centre, spread = described[seen].mean(0), described[seen].std(0).clamp(min=1e-6)

    def rows(values: Tensor) -> Tensor:
        scaled = (values - centre) / spread
        return torch.cat([scaled, torch.ones_like(scaled[:, :1])], 1).double()

    known = rows(described[seen])
    wanted = F.one_hot(labels[seen], int(labels.max()) + 1).double()
    gram = known.T @ known
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weights = torch.linalg.solve(gram + ridge, known.T @ wanted)
    said, wanted_said = ((rows(one[asked]) @ weights).argmax(1) for one in (_moments(found), described))
    return float((said == wanted_said).float().mean())


def _moments(tokens: Tensor) -> Tensor:
    tokens = tokens.float()
    return torch.cat([tokens.mean(1), tokens.std(1)], 1)
