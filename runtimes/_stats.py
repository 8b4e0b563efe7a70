"""Statistics of latency samples, in plain Python.

Source: the bootstrap distribution of the median is known exactly. The median of a resample of n
values is the order statistic of rank n * U, with U distributed as Beta((n + 1) / 2, (n + 1) / 2)
(Maritz and Jarrett, JASA 73, 1978). Drawing U replaces resampling, so 2,000 draws take
milliseconds for any n.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from operator import mul

DRAWS = 2000
SEED = 20240601
BINS = 2000
WINDOW = 5.0


def percentile(ordered, fraction):
    """The value at ``fraction`` (0 to 1) of ascending values, linear between neighbours."""
    place = fraction * (len(ordered) - 1)
    below = int(place)
    if below + 1 >= len(ordered):
        return float(ordered[-1])
    return ordered[below] + (place - below) * (ordered[below + 1] - ordered[below])


def effective_size(samples, ordered):
    """How many independent samples fix the median as well as these do.

    Successive latencies resemble each other (clock frequency, neighbours on the machine). For the
    median what counts is the integrated autocorrelation of "is at most the median". Long series
    are binned first; the sum is cut by Sokal's window, at the first lag of at least 5 times the
    correlation time, and at a quarter of the series.

    Args:
        samples: In the order of measurement.
        ordered: The same, ascending.

    Returns:
        Between 1 and ``len(samples)``.
    """
    count = len(samples)
    median = percentile(ordered, 0.5)
    share = bisect_right(ordered, median) / count
    spread = share * (1 - share)
    width = max(1, count // BINS)
    bins = count // width
    if spread == 0 or bins < 4:
        return float(count)
    series = [
        sum(value <= median for value in samples[start : start + width]) / width - share
        for start in range(0, bins * width, width)
    ]
    time = correlation_time(series) * sum(map(mul, series, series)) / bins * width / spread
    return min(float(count), max(1.0, count / time)) if time > 0 else float(count)


def correlation_time(series):
    """The integrated autocorrelation time of a series of mean zero, in steps; 1 for independent values.

    Source: the last factor undoes the bias that the estimated mean brings (U. Wolff,
    Comput. Phys. Commun. 156, 2004).
    """
    count = len(series)
    power = sum(map(mul, series, series))
    if power == 0:
        return 1.0
    time, lag = 1.0, 0
    for lag in range(1, max(2, count // 4)):
        time += 2 * sum(map(mul, series, series[lag:])) / power
        if lag >= WINDOW * time:
            break
    return time * (1 + (2 * lag + 1) / count) if time > 1 else 1.0


def median_interval(samples, ordered):
    """The bootstrap 95 % interval of the median, with autocorrelation taken into account.

    Args:
        samples: In the order of measurement.
        ordered: The same, ascending.

    Returns:
        ``(low, high)`` in the unit of the samples.
    """
    count = len(ordered)
    shape = (effective_size(samples, ordered) + 1) / 2
    draw = random.Random(SEED).betavariate
    ranks = sorted(draw(shape, shape) for _ in range(DRAWS))
    low, high = (ordered[min(count - 1, int(count * percentile(ranks, tail)))] for tail in (0.025, 0.975))
    return low, high


def summary(samples):
    """Percentiles, mean, standard deviation, extremes and the interval of the median.

    Args:
        samples: Nanoseconds, in the order of measurement; at least one.

    Returns:
        Milliseconds under the keys of the report's ``latency``.
    """
    ordered = sorted(samples)
    count = len(ordered)
    mean = sum(ordered) / count
    variance = sum((value - mean) ** 2 for value in ordered) / (count - 1) if count > 1 else 0.0
    low, high = median_interval(samples, ordered)
    figures = {
        "p50": percentile(ordered, 0.5),
        "p90": percentile(ordered, 0.9),
        "p99": percentile(ordered, 0.99),
        "mean": mean,
        "std": variance**0.5,
        "min": ordered[0],
        "max": ordered[-1],
    }
    milliseconds = {name: value / 1e6 for name, value in figures.items()}
    milliseconds["ci95"] = [low / 1e6, high / 1e6]
    return milliseconds
