"""How well tags fit: mean average precision, precision, recall and F1 of multi-label scores.

Shapes: n images, c classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_THRESHOLDS = 19  # 0.05, 0.10, ... 0.95


@dataclass(frozen=True)
class Curve:
    """Precision over recall of one class, from the strictest threshold to the loosest.

    Attributes:
        recall: ``[points]``, rising, from 0.
        precision: ``[points]``.
        average_precision: The area under it as steps.
    """

    recall: np.ndarray
    precision: np.ndarray
    average_precision: float


def curve(scores: np.ndarray, labels: np.ndarray) -> Curve | None:
    """The precision-recall curve of one class, None where no image has it.

    Args:
        scores: Any monotone score, ``[n]``.
        labels: 0 or 1, ``[n]``.

    Source: the area is that of scikit-learn's ``average_precision_score``: the sum of precisions, each
    weighted with the recall gained; images of equal score count together.
    """
    import numpy as np

    positives = int(labels.sum())
    if not positives:
        return None
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(labels[order])
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    precision, recall = hits[ends] / (ends + 1), hits[ends] / positives
    area = float(np.sum(np.diff(recall, prepend=0.0) * precision))
    return Curve(np.append(0.0, recall), np.append(1.0, precision), area)


def average_precisions(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The average precision of each class, NaN where no image has it.

    Args:
        scores: ``[n, c]``.
        labels: ``[n, c]``.

    Returns:
        ``[c]``, shares of 1.
    """
    import numpy as np

    found = [curve(scores[:, index], labels[:, index]) for index in range(labels.shape[1])]
    return np.array([np.nan if one is None else one.average_precision for one in found])


def metrics(probabilities: np.ndarray, labels: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
    """The metrics of a tagger, means over the classes that occur.

    Args:
        probabilities: From 0 to 1, ``[n, c]``.
        labels: 0 or 1, ``[n, c]``.
        threshold: From which probability on a tag is given.

    Returns:
        ``map`` (mean average precision), ``precision``, ``recall`` and ``f1`` at the threshold,
        ``best_threshold`` of 0.05, 0.10 and so on to 0.95 by F1, and ``best_f1`` there; shares of 1.
        A class that is never given has precision 0.

    Raises:
        ValueError: The shapes differ, or no image has any class.
    """
    import numpy as np

    if probabilities.shape != labels.shape or labels.ndim != 2:
        raise ValueError(f"probabilities {list(probabilities.shape)} and labels {list(labels.shape)}; expected [n, c]")
    if not labels.any():
        raise ValueError("no image has any class: there is nothing to measure")
    precision, recall, f1 = _at(probabilities, labels, threshold)
    grid = [round(0.05 * (place + 1), 2) for place in range(_THRESHOLDS)]
    scores = [_at(probabilities, labels, one)[2] for one in grid]
    best = int(np.argmax(scores))
    return {
        "map": float(np.nanmean(average_precisions(probabilities, labels))),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "best_threshold": grid[best],
        "best_f1": scores[best],
    }


def _at(probabilities: np.ndarray, labels: np.ndarray, threshold: float) -> tuple[float, float, float]:
    """Precision, recall and F1, each the mean over the classes that occur."""
    import numpy as np

    truth = labels.astype(bool)
    given = probabilities >= threshold
    occurs = truth.any(0)
    right = (given & truth).sum(0)[occurs]
    precision = right / np.maximum(given.sum(0)[occurs], 1)
    recall = right / truth.sum(0)[occurs]
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(precision.mean()), float(recall.mean()), float(f1.mean())
