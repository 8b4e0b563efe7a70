"""Statistics of weights: they sum up, cost what an enumerative code costs, and say how codes are used."""

from __future__ import annotations

import itertools
import math
import sys

import pytest

from edge_sdk.errors import MissingDependencyError, ModelError

torch = pytest.importorskip("torch")

from edge_sdk.models.scq import statistics  # noqa: E402


def weights_of(rows: int, codes: int, seed: int = 0):
    draw = torch.Generator().manual_seed(seed)
    raw = torch.rand(rows, codes, generator=draw) ** 8
    return raw / raw.sum(1, keepdim=True)


@pytest.mark.parametrize("levels", [1, 7, 255])
def test_quantized_weights_are_whole_steps_that_sum_to_1(levels: int):
    weights = weights_of(50, 40)
    found = statistics.quantized_weights(weights, levels)
    steps = (found * levels).round()
    assert torch.allclose(found * levels, steps, atol=1e-4)
    assert torch.equal(steps.sum(1), torch.full((50,), float(levels)))
    assert (found - weights).abs().max() <= 1 / levels


def test_quantized_weights_are_the_nearest_such_row():
    levels, codes = 4, 3
    rows = [row for row in itertools.product(range(levels + 1), repeat=codes) if sum(row) == levels]
    every = torch.tensor(rows) / levels
    for weights in weights_of(30, codes):
        found = statistics.quantized_weights(weights[None], levels)
        least = (every - weights).square().sum(1).min()
        assert (found - weights).square().sum() == pytest.approx(float(least), abs=1e-6)


@pytest.mark.parametrize(("levels", "codes"), [(4, 3), (3, 5)])
def test_coded_bits_are_the_lengths_of_a_code_without_waste(levels: int, codes: int):
    rows = [row for row in itertools.product(range(levels + 1), repeat=codes) if sum(row) == levels]
    bits = statistics.coded_bits(torch.tensor(rows, dtype=torch.float64) / levels, levels)
    assert float((-bits).exp2().sum()) == pytest.approx(1)  # Kraft's inequality, met with equality


def test_a_single_code_costs_its_index_and_the_count():
    (bits,) = statistics.coded_bits(torch.eye(256)[:1])
    assert float(bits) == pytest.approx(math.log2(255) + 8)


def test_statistics_of_even_and_of_single_weights():
    even = statistics.weight_statistics(torch.full((5, 8), 1 / 8))
    one = statistics.weight_statistics(torch.eye(8)[[3, 3, 3, 3]])
    assert {name: float(even[name]) for name in ("entropy", "perplexity", "support_size", "usage")} == pytest.approx(
        {"entropy": 3, "perplexity": 8, "support_size": 8, "usage": 1}
    )
    assert float(even["weight_entropy"]) == pytest.approx(3)
    assert float(one["perplexity"]) == pytest.approx(1)
    assert float(one["utilisation"]) == float(one["usage"]) == pytest.approx(1 / 8)
    assert (float(one["support_size"]), float(one["weight_entropy"])) == pytest.approx((1, 0), abs=1e-6)
    # Codes that take turns are all used, though each vector has one.
    turns = statistics.weight_statistics(torch.eye(8))
    assert (float(turns["perplexity"]), float(turns["support_size"])) == pytest.approx((8, 1))


def test_the_entropy_of_weights_has_a_finite_gradient_where_weights_are_0():
    weights = torch.tensor([[1.0, 0.0, 0.0]], requires_grad=True)
    statistics.weight_statistics(weights)["weight_entropy"].backward()
    assert weights.grad.isfinite().all()


def test_a_rate_of_pixels():
    assert statistics.bits_per_pixel(64.0, 8) == 1


def test_psnr_and_ssim_agree_with_torchmetrics_and_cut_values_off():
    functional = pytest.importorskip("torchmetrics.functional.image")
    draw = torch.Generator().manual_seed(0)
    expected = torch.rand(3, 3, 32, 32, generator=draw)
    found = expected + 0.1 * torch.randn(3, 3, 32, 32, generator=draw)
    cut = found.clamp(0, 1)
    for one, other, ours in zip(cut, expected, statistics.psnr(found, expected), strict=True):
        assert float(ours) == pytest.approx(float(functional.peak_signal_noise_ratio(one, other, data_range=1.0)), 1e-4)
    theirs = functional.structural_similarity_index_measure(cut, expected, data_range=1.0)
    assert float(statistics.ssim(found, expected)) == pytest.approx(float(theirs))
    assert statistics.psnr(expected, expected).isfinite().all()


def test_ssim_without_torchmetrics_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    with pytest.raises(MissingDependencyError, match=r"SSIM needs torchmetrics.*edge-sdk\[train\]"):
        statistics.ssim(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))


def test_no_levels_are_refused():
    with pytest.raises(ModelError, match=r"weights cannot be stored in 0 levels: give 1 or more, such as 255\."):
        statistics.quantized_weights(torch.eye(2), 0)
