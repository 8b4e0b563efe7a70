"""Each loss against values worked out by hand."""

from __future__ import annotations

from math import log

import pytest

torch = pytest.importorskip("torch")

from edge_sdk.models.photo_tagging import losses  # noqa: E402

QUARTER, HALF, MOST = -log(3), 0.0, log(3)
"""Logits of the probabilities 1/4, 1/2 and 3/4."""


def value(loss, logit: float, label: int, **constants: float) -> float:
    return float(loss(torch.tensor([[logit]], dtype=torch.float64), torch.tensor([[float(label)]]), **constants))


@pytest.mark.parametrize(
    ("logit", "label", "expected"), [(HALF, 1, log(2)), (HALF, 0, log(2)), (MOST, 1, log(4 / 3)), (MOST, 0, log(4))]
)
def test_binary_cross_entropy(logit: float, label: int, expected: float):
    assert value(losses.binary_cross_entropy, logit, label) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("logit", "label", "gamma", "alpha", "expected"),
    [
        (HALF, 1, 2, 0.25, 0.25 * 0.5**2 * log(2)),
        (HALF, 0, 2, 0.25, 0.75 * 0.5**2 * log(2)),
        (MOST, 1, 2, 0.25, 0.25 * 0.25**2 * log(4 / 3)),
        (MOST, 0, 2, 0.25, 0.75 * 0.75**2 * log(4)),
        (QUARTER, 1, 3, 0.5, 0.5 * 0.75**3 * log(4)),
        (QUARTER, 0, 0, 0.5, 0.5 * log(4 / 3)),
    ],
)
def test_focal(logit: float, label: int, gamma: float, alpha: float, expected: float):
    assert value(losses.focal, logit, label, gamma=gamma, alpha=alpha) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("logit", "label", "constants", "expected"),
    [
        (HALF, 1, {}, 0.5 * log(2)),
        (HALF, 0, {}, 0.45**4 * -log(1 - 0.45)),
        (MOST, 1, {}, 0.25 * log(4 / 3)),
        (MOST, 0, {}, 0.70**4 * -log(1 - 0.70)),
        (MOST, 0, {"gamma_neg": 2, "clip": 0}, 0.75**2 * log(4)),
        (QUARTER, 1, {"gamma_pos": 0}, log(4)),
        (log(0.04 / 0.96), 0, {}, 0),
    ],
)
def test_asymmetric(logit: float, label: int, constants: dict[str, float], expected: float):
    assert value(losses.asymmetric, logit, label, **constants) == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_the_mean_is_over_images_and_classes():
    logits, labels = torch.tensor([[HALF, MOST], [MOST, HALF]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    for loss in (losses.binary_cross_entropy, losses.focal, losses.asymmetric):
        single = [loss(logits[i : i + 1, j : j + 1], labels[i : i + 1, j : j + 1]) for i in (0, 1) for j in (0, 1)]
        assert torch.allclose(loss(logits, labels), torch.stack(single).mean())


@pytest.mark.parametrize("loss", [losses.binary_cross_entropy, losses.focal, losses.asymmetric])
def test_gradients_agree_with_numerical_ones(loss):
    logits = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.tensor([[1.0, 0, 0, 1]] * 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), (logits,))


@pytest.mark.parametrize("constants", [{}, {"gamma_neg": 0.5, "gamma_pos": 0.5}, {"clip": 0.0}])
def test_extreme_logits_have_finite_values_and_slopes(constants: dict[str, float]):
    logits = torch.tensor([[-200.0, 200.0, -200.0, 200.0]], requires_grad=True)
    labels = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    losses.asymmetric(logits, labels, **constants).backward()
    assert torch.isfinite(logits.grad).all()
    focal = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    losses.focal(focal, labels[:, :2], gamma=0.5).backward()
    assert torch.isfinite(focal.grad).all()


def test_the_scale_of_the_gradient_is_that_of_the_paper():
    """Asymmetric loss pushes an easy negative less than cross-entropy, and a missed positive as much or less."""
    easy = torch.tensor([[-3.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(losses.asymmetric(easy, torch.zeros(1, 1)), easy)
    assert slope == 0, "p = 0.047 is below the clip of 0.05"
    missed = torch.tensor([[-3.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(losses.asymmetric(missed, torch.ones(1, 1), gamma_pos=0), missed)
    assert slope == pytest.approx(-0.9526, abs=1e-4)
