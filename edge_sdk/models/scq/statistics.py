"""What the weights of codes cost and how the codes are used, and how good a reconstruction is.

The 1-norm of weights on the simplex is always 1, so it says nothing of sparsity; the support and the
coded bits do.

Shapes: n latents, k codes, b batch size, c channels, h and w pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edge_sdk.errors import MissingDependencyError, ModelError

SUPPORT = 1e-6
"""A weight above it counts as in use."""

LEVELS = 255
"""Steps in which a codec would store weights, unless told otherwise."""

_SAMPLED = 256  # vectors whose coded bits a training step counts


def weight_statistics(weights: Tensor, *, levels: int = LEVELS, sampled: int | None = _SAMPLED) -> dict[str, Tensor]:
    """How weights use the codes.

    Args:
        weights: ``[n, k]``, rows on the simplex.
        levels: Steps of the weights that `coded_bits` counts.
        sampled: At most how many vectors, evenly spread, are counted for ``bits_per_vector``; None for all.

    Returns:
        Scalars. ``entropy`` (bits) of the mean weights; ``perplexity``, 2 to the power of it;
        ``utilisation``, the perplexity as a share of the codes; ``support_size``, weights above `SUPPORT`
        of a vector; ``usage``, the share of codes in the support of any; ``weight_entropy`` (bits) of one
        vector's weights, differentiable; ``bits_per_vector``, see `coded_bits`.
    """
    used = weights.detach() > SUPPORT
    total = entropy(weights.detach().mean(0))
    every = 1 if sampled is None else math.ceil(len(weights) / sampled)
    return {
        "entropy": total,
        "perplexity": total.exp2(),
        "utilisation": total.exp2() / weights.shape[1],
        "support_size": used.sum(1).to(weights.dtype).mean(),
        "usage": used.any(0).to(weights.dtype).mean(),
        "weight_entropy": entropy(weights).mean(),
        "bits_per_vector": coded_bits(weights.detach()[::every], levels).mean(),
    }


def entropy(shares: Tensor) -> Tensor:
    """The entropy in bits over the last dimension."""
    return -torch.xlogy(shares, shares.clamp(min=torch.finfo(shares.dtype).tiny)).sum(-1) / math.log(2)


def quantized_weights(weights: Tensor, levels: int = LEVELS) -> Tensor:
    """The weights in steps of ``1 / levels``, each row again summing to 1.

    Rounds down, then adds a step to the largest remainders, which is the nearest such row.

    Args:
        weights: ``[n, k]``, rows on the simplex.
        levels: Steps that a row shares out, 1 or more.

    Returns:
        ``[n, k]``; times the codes it is what a decoder would get.

    Raises:
        ModelError: ``levels`` is below 1.
    """
    return _steps(weights, levels) / levels


def coded_bits(weights: Tensor, levels: int = LEVELS) -> Tensor:
    """The bits of each vector's weights, stored in steps of ``1 / levels``.

    With s codes of a weight above 0: ``log2 min(k, levels)`` for s, ``log2 binomial(k, s)`` for which they
    are, and ``log2 binomial(levels - 1, s - 1)`` for how they share the steps, each with at least one.
    Source: Cover, "Enumerative source encoding", IEEE Transactions on Information Theory, 1973.

    Args:
        weights: ``[n, k]``, rows on the simplex.
        levels: As in `quantized_weights`.

    Returns:
        ``[n]``.

    Raises:
        ModelError: ``levels`` is below 1.
    """
    support = (_steps(weights, levels) > 0).sum(1).to(torch.float64)
    codes = weights.shape[1]
    bits = math.log2(min(codes, levels)) + _log2_binomial(codes, support) + _log2_binomial(levels - 1, support - 1)
    return bits.to(weights.dtype)


def bits_per_pixel(bits_per_vector: float, stride: int) -> float:
    """The bit rate of an image of which each square of ``stride`` pixels a side is one vector."""
    return bits_per_vector / stride**2


def psnr(found: Tensor, expected: Tensor) -> Tensor:
    """The peak signal-to-noise ratio in dB of each image, for values from 0 to 1.

    Args:
        found: ``[b, c, h, w]``; values outside are cut off.
        expected: The same shape.

    Returns:
        ``[b]``.
    """
    error = (found.clamp(0, 1) - expected).square().flatten(1).mean(1)
    return -10 * error.clamp(min=torch.finfo(error.dtype).tiny).log10()


def ssim(found: Tensor, expected: Tensor) -> Tensor:
    """The mean structural similarity of images with values from 0 to 1.

    Args:
        found: ``[b, c, h, w]``, at least 11 pixels a side; values outside are cut off.
        expected: The same shape.

    Raises:
        MissingDependencyError: torchmetrics is not installed.
    """
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError as error:
        raise MissingDependencyError(
            f"SSIM needs torchmetrics, which cannot be imported ({error}): pip install 'edge-sdk[train]'."
        ) from error
    return structural_similarity_index_measure(found.clamp(0, 1), expected, data_range=1.0)  # type: ignore[return-value]


def _steps(weights: Tensor, levels: int) -> Tensor:
    """Whole numbers ``[n, k]`` whose rows sum to ``levels``."""
    if levels < 1:
        raise ModelError(f"weights cannot be stored in {levels} levels: give 1 or more, such as {LEVELS}.")
    exact = weights.detach() * levels
    whole = exact.floor()
    missing = levels - whole.sum(1, keepdim=True)
    place = (exact - whole).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return whole + (place < missing)


def _log2_binomial(n: int, k: Tensor) -> Tensor:
    all_ways = math.lgamma(n + 1)
    return (all_ways - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)) / math.log(2)
