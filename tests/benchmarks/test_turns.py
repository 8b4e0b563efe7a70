"""Turns, and programs that fail."""

from __future__ import annotations

import sys

import pytest

from benchmarks._context import BenchmarkError
from benchmarks._turns import in_turns, median_s, seconds_of


def test_sides_take_turns():
    order, said = [], []
    sides = {name: lambda name=name: order.append(name) or len(order) for name in "AB"}
    assert in_turns(sides, 3, said.append) == {"A": [1, 4, 5], "B": [2, 3, 6]}
    assert order == list("ABBAAB") and said[0] == "A, round 1 of 3"


def test_a_program_that_fails_says_why():
    with pytest.raises(BenchmarkError, match=r"ended with 1: (?s:.*)ZeroDivisionError: division by zero"):
        seconds_of([sys.executable, "-c", "1 / 0"])


def test_the_median_of_differences_that_may_be_negative():
    value, (low, high) = median_s([-0.2, 0.1, 0.4])
    assert value == pytest.approx(0.1) and low <= value <= high
