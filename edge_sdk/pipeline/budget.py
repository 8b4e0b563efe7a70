"""How an accuracy budget is judged for a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge_sdk.quantization.base import Budget

if TYPE_CHECKING:
    from edge_sdk.models.base import Model, Sample


def make_budget(model: Model, max_drop: float, reference: Sequence[Sample]) -> Budget:
    """Judges by the model's own score on its evaluation inputs; without one by the cosine to FP32.

    Args:
        model: The model.
        max_drop: Largest allowed drop of the score's first metric, or of the cosine from 1.
        reference: Inputs to judge with where the model has no evaluation inputs.
    """
    evaluation = model.samples("evaluation")

    def drop(found: Sequence[Sample], exact: Sequence[Sample]) -> float:
        best = model.score(exact, exact) if evaluation else None
        if not best:
            return 1.0 - min(_cosine(f, e) for f, e in zip(found, exact, strict=True))
        metric = next(iter(best))
        return best[metric] - (model.score(found, exact) or {})[metric]

    return Budget(max_drop, "the accuracy" if evaluation else "the cosine to FP32", evaluation or reference, drop)


def _cosine(found: Sample, exact: Sample) -> float:
    """Over all outputs of all parts of one sample."""
    f, e = (
        np.concatenate([array.astype(np.float64).ravel() for part in sample.values() for array in part.values()])
        for sample in (found, exact)
    )
    norm = float(np.linalg.norm(f) * np.linalg.norm(e))
    return float(f @ e) / norm if norm else float(np.array_equal(f, e))
