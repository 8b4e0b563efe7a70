"""A classifier that compiles in seconds, as a user would write it down: ``tiny_classifier.py:build``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from edge_sdk.models.base import Model, Part, Purpose, Sample

COUNTS = {"calibration": 4, "reference": 2, "evaluation": 5}


class TinyClassifier(Model):
    """``[1, 3, 8, 8]`` to ``[1, 10]``, with random weights; ``scored`` says whether it can be judged."""

    name = "tiny_classifier"

    def __init__(self, scored: bool) -> None:
        self._scored = scored

    def fingerprint(self) -> Mapping[str, str]:
        return {"weights": "random, seed 0"}

    def parts(self) -> list[Part]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers = [nn.Conv2d(3, 24, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)]
            module = nn.Sequential(*layers).eval()
        return [Part("forward", module, (torch.ones(1, 3, 8, 8),), ("image",), ("logits",))]

    def samples(self, purpose: Purpose) -> list[Sample]:
        random = np.random.default_rng(len(purpose))
        images = random.standard_normal((COUNTS[purpose], 1, 3, 8, 8)).astype(np.float32)
        return [{"forward": {"image": image}} for image in images]

    def score(self, outputs: Sequence[Sample], fp32: Sequence[Sample]) -> dict[str, float] | None:
        if not self._scored:
            return None
        best = [[int(sample["forward"]["logits"].argmax()) for sample in side] for side in (outputs, fp32)]
        agreed = sum(own == exact for own, exact in zip(*best, strict=True))
        return {"top1_agreement_with_fp32": agreed / len(fp32), "photos": float(len(fp32))}


def build(scored: str = "true") -> TinyClassifier:
    return TinyClassifier(scored == "true")
