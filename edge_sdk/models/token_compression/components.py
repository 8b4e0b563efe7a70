"""The best linear compressor and decoder there are, found without training: the principal components of tokens.

Training that starts at averages takes many times as long to come where this is at once.

Shapes: i images, n tokens, d width of a token, g tokens of a side, s tokens of a side that one stands for.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.models.token_compression.compressor import TokenCompressor
from edge_sdk.models.token_compression.decoders import AttentionDecoder, ConvDecoder
from edge_sdk.models.token_compression.grids import strides, to_grid

_MORE = 16  # directions that are sought beside those wanted, for accuracy
_ITERATIONS = 4


def components(tokens: Tensor, grid: int, output_grid: int) -> Tensor:
    """The ``d`` directions that hold most of ``s * s`` neighbouring tokens, turned so that they are like averages.

    Of all linear maps to so many numbers, the one to these can be undone with the smallest squared error.
    Which of its rotations is taken does not change that; this one's compressed tokens are as close to the
    averages as can be, and so look like tokens of the encoder.

    Args:
        tokens: ``[i, n, d]``.
        grid: Tokens of a side.
        output_grid: Compressed tokens of a side.

    Returns:
        ``[d, d, s, s]``, with rows of length 1 that stand at right angles.

    Sources: Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 53(2), 2011, for the
    components; Schönemann, "A generalized solution of the orthogonal Procrustes problem", 1966, for the turn.
    """
    (step,), dim = strides(grid, output_grid, 1), tokens.shape[2]
    rows = F.unfold(to_grid(tokens.float(), grid), step, stride=step).transpose(1, 2).flatten(0, 1)
    averages = torch.eye(dim).repeat_interleave(step**2, 0) / step
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sought = min(dim + _MORE, *rows.shape)
        found = torch.svd_lowrank(rows, sought, _ITERATIONS)[2][:, :dim]
    # Of few tokens there are fewer components than wanted: averages fill up.
    directions = torch.linalg.qr(torch.cat([found, averages], 1))[0][:, :dim]
    codes = rows @ directions
    left, _, right = torch.linalg.svd(codes.T @ (rows @ averages))
    return (directions @ (left @ right)).T.reshape(dim, dim, step, step)


def start_at(compressor: TokenCompressor, decoder: ConvDecoder | AttentionDecoder, directions: Tensor) -> None:
    """Lets compressor and decoder start at `components` instead of averages; what else they have adds nothing yet."""
    step = directions.shape[2]
    if compressor.merge is not None:
        _fill(compressor.merge, directions / step)
        _fill(decoder.spread, directions * step)


@torch.no_grad()
def _fill(layer: nn.Conv2d | nn.ConvTranspose2d, weight: Tensor) -> None:
    layer.weight.copy_(weight)
