"""Greedy and beam search on tables of scores whose best caption is known."""

from __future__ import annotations

import itertools
import math

import pytest

torch = pytest.importorskip("torch")

from edge_sdk.errors import ModelError  # noqa: E402
from edge_sdk.models.captioning.search import beam, greedy  # noqa: E402

START, END = 0, 1


def chain(table):
    """A step whose scores depend on the word before; the state counts the steps of each beam."""

    def step(words, state):
        return table[words], state + 1

    return step


def take(state, rows):
    return state[rows]


def test_greedy_ends_each_caption_by_itself():
    table = torch.full((5, 5), -9.0)
    table[START, 2] = table[2, 3] = table[3, END] = 0.0

    def step(words, state):
        scores = table[words].clone()
        if len(words) > 1 and int(state) == 0:
            scores[1, END] = 5.0  # the second image has nothing to say
        return scores, state + 1

    assert greedy(step, torch.tensor(0), 2, START, END, 10) == [[2, 3], []]
    assert greedy(step, torch.tensor(0), 1, START, END, 1) == [[2]]


def test_a_beam_finds_what_greedy_misses():
    logs = torch.full((6, 6), math.log(1e-6))
    logs[START, 2], logs[START, 3] = math.log(0.6), math.log(0.4)
    logs[2, 4] = logs[2, 5] = math.log(0.5)  # the tempting first word leads nowhere sure
    logs[3, 4], logs[4, END], logs[5, END] = math.log(1.0), math.log(1.0), math.log(1.0)
    assert greedy(chain(logs), torch.zeros(1), 1, START, END, 5) == [[2, 4]]
    assert beam(chain(logs), torch.zeros(1), take, START, END, 5, width=3) == [3, 4]


@pytest.mark.parametrize("seed", range(6))
def test_a_wide_beam_is_the_best_of_all_captions(seed):
    logs = torch.randn(5, 5, generator=torch.Generator().manual_seed(seed)).log_softmax(1)
    logs[:, START] = -50.0
    most, words = 3, (2, 3, 4)
    best, found = -math.inf, []
    for length in range(most + 1):
        for said in itertools.product(words, repeat=length):
            path = [START, *said, *([END] if length < most else [])]
            total = sum(float(logs.log_softmax(1)[a, b]) for a, b in itertools.pairwise(path))
            if total / (len(path) - 1) ** 0.7 > best:
                best, found = total / (len(path) - 1) ** 0.7, list(said)
    assert beam(chain(logs), torch.zeros(1), take, START, END, most, width=500) == found


def test_a_beam_of_one_is_greedy():
    for seed in range(8):
        table = 3 * torch.randn(6, 6, generator=torch.Generator().manual_seed(seed))
        table[:, START] = -50.0
        one = beam(chain(table), torch.zeros(1), take, START, END, 6, width=1)
        assert one == greedy(chain(table), torch.zeros(1), 1, START, END, 6)[0]


def test_counts_below_one_are_refused():
    table = torch.zeros(3, 3)
    with pytest.raises(ModelError, match="1 or more"):
        greedy(chain(table), torch.zeros(1), 0, START, END, 5)
    with pytest.raises(ModelError, match="1 or more"):
        beam(chain(table), torch.zeros(1), take, START, END, 5, width=0)
