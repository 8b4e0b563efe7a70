"""Captions from what an encoder gave, with every step on the way.

Shapes: b images, t steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from edge_sdk.models.captioning.decoder import AttentionDecoder, Seen, State
from edge_sdk.models.captioning.vocabulary import Vocabulary


class Step(NamedTuple):
    """What went into a step, ``[b]`` and twice ``[b, d]``, and the scores that came out, ``[b, v]``."""

    word: Tensor
    hidden: Tensor
    cell: Tensor
    scores: Tensor


@torch.no_grad()
def walk(
    decoder: AttentionDecoder, beginning: Sequence[Tensor], start: int, most: int, given: Tensor | None = None
) -> list[Step]:
    """The steps of captions, the best word each time.

    Args:
        decoder: In evaluation mode.
        beginning: What the part ``encoder`` gives, of b images.
        start: The word that captions begin after.
        most: Steps.
        given: Words to go on with instead of the best ones, int64 ``[b, most]``.
    """
    places, keys, hidden, cell = beginning
    seen, state = Seen(places, keys), State(hidden, cell)
    word = torch.full((len(places),), start)
    steps = []
    for at in range(most):
        scores, after, _ = decoder.step(word, state, seen)
        steps.append(Step(word, *state, scores))
        word, state = scores.argmax(1) if given is None else given[:, at], after
    return steps


def captions(steps: Sequence[Step], vocabulary: Vocabulary) -> list[tuple[list[int], float]]:
    """The words of each image's caption, without start, with its end where it came to one, and their mean probability.

    Args:
        steps: What `walk` gave.
        vocabulary: The words.
    """
    found = []
    for scores in torch.stack([step.scores for step in steps], dim=1):
        words = scores.argmax(1).tolist()
        length = words.index(vocabulary.end) + 1 if vocabulary.end in words else len(words)
        found.append((words[:length], float(scores[:length].softmax(1).amax(1).mean())))
    return found
