"""How well a mean is known where successive values resemble each other: the moving-block bootstrap, prewhitened.

Resampling blocks of a series gives a mean whose variance is known without drawing: that of the
block means, times block length over series length (H. R. Künsch, Annals of Statistics 17, 1989).
Blocks alone make it too small where neighbours resemble each other much; so a first-order
autoregression is taken out before and put back after (D. W. K. Andrews and J. C. Monahan,
Econometrica 60, 1992), its coefficient freed of the bias that the estimated mean brings
(M. G. Kendall, Biometrika 41, 1954).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

# Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom; beyond them 1.96 + 2.4 / df is near.
_T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_MOST_RHO = 0.97


@dataclass(frozen=True)
class Mean:
    """A mean, the variance of it, and how many degrees of freedom that variance has."""

    value: float
    variance: float
    degrees: float


def mean(values: Sequence[float]) -> Mean:
    """The mean of a series in the order of measurement; at least two values."""
    import numpy as np

    series = np.asarray(values, dtype=float)
    count = len(series)
    centre = series.mean()
    centred = series - centre
    rho = _autocorrelation(centred)
    whitened = centred[1:] - rho * centred[:-1] if rho else centred
    whitened = whitened - whitened.mean()
    length = max(1, round(len(whitened) ** (1 / 3)))
    sums = np.concatenate([[0.0], np.cumsum(whitened)])
    block_means = (sums[length:] - sums[:-length]) / length
    # A block's own mean follows the series, which hides length / count of the variance.
    variance = float(np.mean(block_means**2)) * length / len(whitened) / (1 - length / len(whitened))
    independent = count * (1 - rho) / (1 + rho)
    return Mean(float(centre), variance / (1 - rho) ** 2, max(1.0, min(1.5 * count / length, independent) - 1))


def half_width(*means: Mean) -> float:
    """Half the 95 % interval of a sum or difference of independent means, by Welch and Satterthwaite."""
    variance = sum(one.variance for one in means)
    if variance == 0:
        return 0.0
    degrees = variance**2 / sum(one.variance**2 / one.degrees for one in means if one.variance)
    return t95(degrees) * sqrt(variance)


def t95(degrees: float) -> float:
    """The two-sided 95 % quantile of Student's t."""
    below = int(degrees)
    if below >= len(_T95):
        return 1.96 + 2.4 / degrees
    below = max(1, below)
    share = min(1.0, max(0.0, degrees - below))
    upper = _T95[below] if below < len(_T95) else 1.96 + 2.4 / (below + 1)
    return _T95[below - 1] + share * (upper - _T95[below - 1])


def _autocorrelation(centred) -> float:
    """The first autocorrelation, between 0 and 0.97."""
    count = len(centred)
    power = float(centred @ centred)
    if power == 0 or count < 8:
        return 0.0
    rho = float(centred[1:] @ centred[:-1]) / power
    # The estimate is too small by about (1 + 3 rho) / n.
    return min(_MOST_RHO, max(0.0, (rho * count + 1) / (count - 3)))
