"""From scores to captions: the best word each time, or the best of several captions that are followed at once.

A step is any function from words and state to scores and state, so that the same search drives a module and a
program on a device.

Shapes: b images, k beams, v words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from edge_sdk.errors import ModelError

S = TypeVar("S")
Step = Callable[[Tensor, S], tuple[Tensor, S]]
"""Words before, int64 ``[b]``, and state to scores ``[b, v]`` and state."""


def greedy(step: Step[S], state: S, batch: int, start: int, end: int, most: int) -> list[list[int]]:
    """Takes the word with the highest score each time.

    Args:
        step: See `Step`.
        state: Before the first word.
        batch: Images.
        start: The word that captions begin after.
        end: The word that ends one.
        most: Words of a caption at most.

    Returns:
        The words of each caption, without start and end.
    """
    _check(batch, most)
    words = torch.full((batch,), start, dtype=torch.long)
    done = torch.zeros(batch, dtype=torch.bool)
    said: list[Tensor] = []
    while len(said) < most and not done.all():
        scores, state = step(words, state)
        words = torch.where(done, end, scores.argmax(1).cpu())
        done |= words == end
        said.append(words)
    columns = torch.stack(said, dim=1).tolist()
    return [row[: row.index(end)] if end in row else row for row in columns]


def beam(
    step: Step[S],
    state: S,
    reorder: Callable[[S, Tensor], S],
    start: int,
    end: int,
    most: int,
    width: int = 3,
    length_power: float = 0.7,
) -> list[int]:
    """Follows the best captions of one image at once, and gives the one with the highest score for its length.

    Args:
        step: See `Step`; it is called with as many words as there are beams.
        state: Before the first word, of one image.
        reorder: Takes the state apart: the rows ``[k]`` of the state that go on, a row perhaps several times.
        start: The word that captions begin after.
        end: The word that ends one.
        most: Words of a caption at most.
        width: Captions that are followed.
        length_power: A caption's log-probability is divided by its length to the power of it; 0 favours short ones.
            Source: Wu et al., arXiv 1609.08144, equation 14, in its simplest form.

    Returns:
        The words of the caption, without start and end.

    Raises:
        ModelError: A count is below 1.
    """
    _check(width, most)
    begun: list[list[int]] = [[]]
    totals = torch.zeros(1)
    words = torch.tensor([start])
    ended: list[tuple[float, list[int]]] = []
    for _ in range(most):
        scores, state = step(words, state)
        logs = torch.log_softmax(scores.float(), dim=1).cpu() + totals[:, None]
        best = logs.flatten().topk(min(width, logs.numel()))
        rows, choices = best.indices // logs.shape[1], best.indices % logs.shape[1]
        going = choices != end
        for total, row in zip(best.values[~going].tolist(), rows[~going].tolist(), strict=True):
            ended.append((total / _length(begun[row]) ** length_power, begun[row]))
        if not going.any() or len(ended) >= width:
            begun = []
            break
        begun = [[*begun[row], word] for row, word in zip(rows[going].tolist(), choices[going].tolist(), strict=True)]
        totals, words = best.values[going], choices[going]
        state = reorder(state, rows[going])
    # What had no time to end competes, too.
    going_on = zip(totals.tolist(), begun, strict=False)
    ended += [(total / len(said) ** length_power, said) for total, said in going_on if said]
    return max(ended, key=lambda one: one[0])[1]


def _length(said: list[int]) -> int:
    return len(said) + 1  # the end counts, so that an empty caption has a length


def _check(count: int, most: int) -> None:
    if count < 1 or most < 1:
        raise ModelError(
            f"a search was asked for {count} captions of at most {most} words; expected 1 or more of both."
        )
