"""How sure a difference of mean average precision is: the paired bootstrap over images.

Shapes: n images, c classes, p images that have a class, r resamples.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile intervals).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

RESAMPLES = 1000
SEED = 0
_BLOCK_BYTES = 16 << 20
"""Of the counts of one block of resamples: with their running sums they stay in a processor's cache, or near it."""


def map_difference(
    one: np.ndarray, other: np.ndarray, labels: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, tuple[float, float]]:
    """The mean average precision of one tagger less that of another, and its 95 % interval.

    Both are judged on the same resamples, so that what makes an image hard for both cancels out. A
    resample counts the classes that occur in it.

    Args:
        one: Scores, ``[n, c]``.
        other: Scores of the same images, ``[n, c]``.
        labels: 0 or 1, ``[n, c]``.
        resamples: How many.
        seed: Of the resamples.
    """
    whole = np.ones((len(labels), 1), np.int32)
    value = _mean_ap(one, labels, whole)[0] - _mean_ap(other, labels, whole)[0]
    found = [
        _mean_ap(one, labels, counts) - _mean_ap(other, labels, counts)
        for counts in _resampled(len(labels), resamples, seed)
    ]
    low, high = np.nanpercentile(np.concatenate(found), (2.5, 97.5))
    return float(value), (float(low), float(high))


def _resampled(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image was drawn, ``[n, block]``, block after block."""
    draw = np.random.default_rng(seed)
    block = max(1, _BLOCK_BYTES // (4 * images))
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        columns = [np.bincount(draw.integers(images, size=images), minlength=images) for _ in range(count)]
        yield np.ascontiguousarray(np.stack(columns, 1).astype(np.int32))


def _mean_ap(scores: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean average precision of each resample, ``[r]``; NaN where no class occurs."""
    total, classes = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
    for place in range(labels.shape[1]):
        area, occurs = _average_precision(scores[:, place], labels[:, place], counts)
        total += area
        classes += occurs
    return np.where(classes > 0, total / np.maximum(classes, 1), np.nan)


def _average_precision(scores: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The average precision of one class in each resample, ``[r]``, and whether it occurs there.

    It is the mean precision at the images that have the class, where images of equal score count together.
    """
    positives = np.flatnonzero(labels)
    if not len(positives):
        return np.zeros(counts.shape[1]), np.zeros(counts.shape[1], bool)
    order = np.argsort(-scores, kind="stable")
    rising = -scores[order]
    positives = positives[np.argsort(-scores[positives], kind="stable")]
    # Of each image with the class: how many images, and how many with the class, score at least as much.
    ends = np.searchsorted(rising, -scores[positives], side="right")
    hit_ends = np.searchsorted(-scores[positives], -scores[positives], side="right")
    weights = counts[positives]
    hits = np.cumsum(weights, 0)[hit_ends - 1]
    # Sums between one end and the next, then summed up: the running sum over all images is not needed.
    edges, edge = np.unique(ends, return_inverse=True)
    between = np.add.reduceat(counts[order[: edges[-1]]], np.append(0, edges[:-1]), axis=0)
    seen = np.cumsum(between, 0)[edge]
    occurring = weights.sum(0)
    area = (weights * (hits / np.maximum(seen, 1))).sum(0) / np.maximum(occurring, 1)
    return area, occurring > 0
