"""The statistics against numpy, and the interval against what it promises."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def stats(harness_module):
    return harness_module("_stats")


def autoregressive(generator: np.random.Generator, count: int, rho: float) -> np.ndarray:
    """A stationary AR(1) series of mean 0 and variance 1."""
    noise = generator.normal(size=count)
    series = np.empty(count)
    series[0] = noise[0]
    for index in range(1, count):
        series[index] = rho * series[index - 1] + np.sqrt(1 - rho**2) * noise[index]
    return series


@pytest.mark.parametrize("count", [1, 2, 3, 10, 101])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.9, 0.99, 1.0])
def test_percentile_is_numpys(stats, count, fraction):
    values = np.sort(np.random.default_rng(count).gamma(2, size=count))
    assert stats.percentile(list(values), fraction) == pytest.approx(np.percentile(values, 100 * fraction))


@pytest.mark.parametrize("count", [51, 500, 4001])
def test_interval_is_the_naive_bootstraps_on_independent_samples(stats, count):
    generator = np.random.default_rng(7)
    samples = generator.gamma(3, 1e6, size=count)
    medians = np.median(generator.choice(samples, size=(4000, count)), axis=1)
    low, high = stats.median_interval(list(samples), sorted(samples))
    naive_low, naive_high = np.percentile(medians, [2.5, 97.5])
    width = naive_high - naive_low
    assert low == pytest.approx(naive_low, abs=0.2 * width)
    assert high == pytest.approx(naive_high, abs=0.2 * width)


@pytest.mark.parametrize(("rho", "least"), [(0.0, 0.92), (0.5, 0.9), (0.8, 0.9)])
def test_interval_covers_the_true_median_of_autocorrelated_samples(stats, rho, least):
    generator = np.random.default_rng(3)
    hits = 0
    for _ in range(150):
        samples = list(autoregressive(generator, 500, rho) + 10)
        low, high = stats.median_interval(samples, sorted(samples))
        hits += low <= 10 <= high
    assert hits / 150 >= least


def test_effective_size_falls_with_autocorrelation(stats):
    generator = np.random.default_rng(5)
    sizes = []
    for rho in (0.0, 0.5, 0.9):
        samples = list(autoregressive(generator, 5000, rho))
        sizes.append(stats.effective_size(samples, sorted(samples)))
    assert 5000 >= sizes[0] > 4000 > sizes[1] > 1000 > sizes[2] > 50


def test_samples_that_are_all_equal_have_an_interval_of_no_width(stats):
    assert stats.median_interval([5] * 100, [5] * 100) == (5, 5)


def test_summary_is_in_milliseconds(stats):
    samples = [1_000_000, 3_000_000, 2_000_000, 4_000_000]
    summary = stats.summary(samples)
    assert summary["p50"] == 2.5 and summary["mean"] == 2.5
    assert (summary["min"], summary["max"]) == (1.0, 4.0)
    assert summary["std"] == pytest.approx(np.std([1, 2, 3, 4], ddof=1))
    assert summary["ci95"] == [1.0, 4.0]


def test_summary_of_one_sample(stats):
    assert stats.summary([2_000_000])["ci95"] == [2.0, 2.0]
    assert stats.summary([2_000_000])["std"] == 0
