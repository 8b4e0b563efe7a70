"""How far a weighted mean of a series may be from the truth, where neighbours resemble each other.

A moving-block bootstrap of what an autoregression of order 1 leaves over: the autoregression carries
the long memory, for which blocks of a short series are too short, and the blocks carry the rest.

Source: moving blocks, Künsch, Ann. Statist. 17 (1989); blocks of n^(1/3), Hall, Horowitz and Jing,
Biometrika 82 (1995); bootstrapping the residuals of a fitted autoregression in blocks
("post-blackening"), Davison and Hinkley, Bootstrap Methods and their Application (1997), 8.2; the
bias of the coefficient, -(1 + 3 phi) / n, Marriott and Pope, Biometrika 41 (1954).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

DRAWS = 2000
SEED = 20240601
Z95 = 1.959964
_MOST_VALUES = 2000
_LEAST_PHI, _MOST_PHI = -0.9, 0.95
_FEWEST_DEGREES = 2.0
_FEWEST_FITTED = 8


@dataclass(frozen=True)
class Deviations:
    """Bootstrapped deviations of a weighted sum from its expectation.

    Attributes:
        draws: One for each resample, in the unit of weight times value.
        degrees: Degrees of freedom of their spread: independent values less one.
        block: Values in a block.
    """

    draws: np.ndarray
    degrees: float
    block: int


def deviations(values: Sequence[float], weights: Sequence[float], stream: int = 0) -> Deviations:
    """Resamples ``sum(weights * values)``.

    Args:
        values: In the order of measurement, at least 2.
        weights: As many, their sum above zero.
        stream: Different numbers give independent draws.
    """
    import numpy as np

    x, w = _grouped(np.asarray(values, float), np.asarray(weights, float))
    count = len(x)
    residuals = x - (w @ x) / w.sum()
    power = float(residuals @ residuals)
    if power == 0:
        return Deviations(np.zeros(DRAWS), count - 1.0, 1)
    phi = float(residuals[1:] @ residuals[:-1]) / power
    # Of very few values nothing can be said about how they follow each other; Student's factor is wide then.
    phi = min(max((count * phi + 1) / (count - 3), _LEAST_PHI), _MOST_PHI) if count >= _FEWEST_FITTED else 0.0
    block = max(1, int(count ** (1 / 3)))
    shocks = np.concatenate(([residuals[0] * sqrt(1 - phi**2)], residuals[1:] - phi * residuals[:-1]))
    # Two factors undo what the fit and the mean of each block take off the variance.
    shocks = (shocks - shocks.mean()) * sqrt(count / max(1, count - 1 - block))

    # The sum is linear in the shocks: each has the weight of all values that it still moves.
    blocks = -(-count // block)
    reach = np.zeros(blocks * block)
    carried = 0.0
    for place in range(count - 1, -1, -1):
        carried = w[place] + phi * carried
        reach[place] = carried
    reach[0] /= sqrt(1 - phi**2)
    table = reach.reshape(blocks, block) @ np.lib.stride_tricks.sliding_window_view(shocks, block).T
    table -= table.mean(axis=1, keepdims=True)
    picks = np.random.default_rng((SEED, stream)).integers(0, table.shape[1], (DRAWS, blocks))
    draws = table[np.arange(blocks), picks].sum(axis=1)
    independent = min(float(count), count * (1 - phi) / (1 + phi))
    return Deviations(draws, max(_FEWEST_DEGREES, independent - 1), block)


def interval95(estimate: float, parts: Sequence[Deviations]) -> tuple[float, float]:
    """The 95 % interval of an estimate from the deviations of its independent parts.

    The bootstrap's quantiles are those of many values; Student's factor widens them for few, with
    the degrees of freedom that Welch and Satterthwaite give the sum.
    """
    import numpy as np

    total = np.sum([part.draws for part in parts], axis=0)
    spreads = [float(part.draws.var()) for part in parts]
    scale = 1.0
    if sum(spreads) > 0:
        pooled = sum(spread**2 / part.degrees for spread, part in zip(spreads, parts, strict=True))
        scale = t95(sum(spreads) ** 2 / pooled) / Z95
    low, high = (float(tail) * scale for tail in np.quantile(total, (0.025, 0.975)))
    return estimate + low, estimate + high


def t95(degrees: float) -> float:
    """The two-sided 95 % quantile of Student's t, within 1 %.

    Source: Abramowitz and Stegun, 26.7.5.
    """
    if degrees < 2:  # exact at 1 and 2
        return 4.303 + 2 * (1 / max(1.0, degrees) - 0.5) * (12.706 - 4.303)
    z, v = Z95, degrees
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / v**power for power, term in enumerate(terms, start=1))


def _grouped(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of neighbours, where there are more values than are of use."""
    import numpy as np

    if len(x) <= _MOST_VALUES:
        return x, w
    starts = np.linspace(0, len(x), _MOST_VALUES, endpoint=False).astype(int)
    total = np.add.reduceat(w, starts)
    sums = np.add.reduceat(w * x, starts)
    return np.divide(sums, total, out=np.full_like(sums, (w @ x) / w.sum()), where=total > 0), total
