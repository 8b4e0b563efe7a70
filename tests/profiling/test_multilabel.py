"""Multi-label metrics agree with scikit-learn's on the same predictions."""

from __future__ import annotations

import numpy as np
import pytest

from edge_sdk.profiling.multilabel import average_precisions, curve, metrics

sklearn = pytest.importorskip("sklearn.metrics")


@pytest.fixture(params=[0, 1, 2])
def predictions(request) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(request.param)
    labels = (random.random((300, 12)) < random.uniform(0.02, 0.5, 12)).astype(np.uint8)
    labels[0] = 1
    scores = np.clip(labels * 0.3 + random.random(labels.shape) * 0.8, 0, 1)
    return np.round(scores, 2), labels  # rounded, so that scores tie


def test_average_precision(predictions) -> None:
    probabilities, labels = predictions
    theirs = [sklearn.average_precision_score(labels[:, c], probabilities[:, c]) for c in range(12)]
    assert average_precisions(probabilities, labels) == pytest.approx(theirs, abs=1e-12)
    assert metrics(probabilities, labels)["map"] == pytest.approx(np.mean(theirs), abs=1e-12)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_precision_recall_and_f1(predictions, threshold: float) -> None:
    probabilities, labels = predictions
    given = (probabilities >= threshold).astype(int)
    theirs = sklearn.precision_recall_fscore_support(labels, given, average="macro", zero_division=0)[:3]
    found = metrics(probabilities, labels, threshold)
    assert [found["precision"], found["recall"], found["f1"]] == pytest.approx(theirs, abs=1e-9)


def test_the_best_threshold_is_the_best_of_all_tried(predictions) -> None:
    probabilities, labels = predictions
    found = metrics(probabilities, labels)
    tried = [metrics(probabilities, labels, round(0.05 * step, 2))["f1"] for step in range(1, 20)]
    assert found["best_f1"] == max(tried)
    assert metrics(probabilities, labels, found["best_threshold"])["f1"] == found["best_f1"]


def test_a_class_that_no_image_has_does_not_count() -> None:
    labels = np.array([[1, 0], [0, 0]], np.uint8)
    probabilities = np.array([[0.9, 0.2], [0.1, 0.7]])
    assert curve(probabilities[:, 1], labels[:, 1]) is None
    assert metrics(probabilities, labels)["map"] == 1.0


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="no image has any class"):
        metrics(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"expected \[n, c\]"):
        metrics(np.zeros((2, 3)), np.zeros((2, 4)))
