"""From logits to tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from edge_sdk.schema.report import Tag


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities ``[classes]`` that sum to 1, of logits ``[classes]``."""
    import numpy as np

    powers = np.exp(logits.astype(np.float64) - logits.max())
    return powers / powers.sum()


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """A probability for each class by itself: ``[classes]`` of logits ``[classes]``."""
    import numpy as np

    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))  # does not overflow


def best_tags(scores: np.ndarray, labels: Sequence[str], most: int, threshold: float = 0.0) -> list[Tag]:
    """The classes with a score of at least ``threshold``, best first, at most ``most`` of them."""
    import numpy as np

    from edge_sdk.schema.report import Tag

    order = [int(index) for index in np.argsort(-scores, kind="stable")[:most]]
    return [Tag(label=labels[index], score=float(scores[index])) for index in order if scores[index] >= threshold]
