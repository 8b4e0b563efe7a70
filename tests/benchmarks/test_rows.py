"""Limits, and what is shown of a row."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from benchmarks._rows import Limit, Row
from benchmarks._show import document, table
from benchmarks.int8 import wilson


@pytest.mark.parametrize(
    ("limit", "value", "ci95", "met"),
    [
        (Limit(at_most=1.15), 1.15, (1.0, 1.3), True),
        (Limit(at_most=1.15), 1.16, (1.0, 1.3), False),
        (Limit(at_least=0.95), 0.95, None, True),
        (Limit(at_least=0.95), 0.94, (0.9, 0.97), False),
        (Limit(at_least=0.99, at_most=1.01), 1.0, None, True),
        (Limit(at_least=0.99, at_most=1.01), 0.98, None, False),
        (Limit(at_least=0.99, at_most=1.01), 1.02, None, False),
    ],
)
def test_a_value_against_its_limit(limit, value, ci95, met):
    assert limit.met(value, ci95) is met


@pytest.mark.parametrize(
    ("value", "ci95", "met"),
    [
        (0.9, (0.5, 1.5), True),
        (1.01, (0.99, 1.03), True),
        (1.02, (1.01, 1.03), False),
        (1.1, (0.9, 1.3), None),
        (1.01, None, False),
    ],
)
def test_a_limit_that_is_judged_by_the_interval(value, ci95, met):
    assert Limit(at_most=1.0, by_interval=True).met(value, ci95) is met


ROWS = [
    Row("ours / theirs", 1.0634, "ratio", "in turns [3 rounds]", (1.02, 1.11), Limit(at_most=1.15)),
    Row("agreement", 0.9, "ratio", "photos", (0.8, 0.95), Limit(at_least=0.95)),
    Row("slower?", 1.1, "ratio", "few rounds", (0.9, 1.3), Limit(at_most=1.0, by_interval=True)),
    Row("seconds", 12.345, "s", "explains the others"),
]


def test_the_table():
    console = Console(file=io.StringIO(), width=120)
    console.print(table("A suite", ROWS))
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines == [
        "A suite",
        "Figure Value 95 % interval Limit Met",
        "ours / theirs 1.063 1.020 to 1.110 at most 1.15 yes",
        "in turns [3 rounds]",
        "agreement 0.9000 0.8000 to 0.9500 at least 0.95 no",
        "photos",
        "slower? 1.100 0.9000 to 1.300 at most 1 cannot tell",
        "few rounds",
        "seconds 12.3 s",
        "explains the others",
        "",
    ]


def test_the_document():
    found = document({"cores": 2}, False, "2026-01-01T00:00:00+00:00", {"one": ROWS}, {"two": "why"}, ["busy"])
    assert set(found) == {"schema_version", "created", "quick", "machine", "warnings", "suites", "failures"}
    assert found["failures"] == {"two": "why"} and found["warnings"] == ["busy"]
    assert found["suites"]["one"][0] == {
        "name": "ours / theirs",
        "value": 1.0634,
        "unit": "ratio",
        "ci95": [1.02, 1.11],
        "limit": {"at_least": None, "at_most": 1.15},
        "met": True,
        "conditions": "in turns [3 rounds]",
    }
    assert [row["met"] for row in found["suites"]["one"]] == [True, False, None, None]
    assert found["suites"]["one"][3]["limit"] is None


def test_wilsons_interval():
    # Source: Brown, Cai, DasGupta, Statistical Science 16, 2001: the interval of 0 of n ends at z^2 / (n + z^2).
    low, high = wilson(0.0, 20)
    assert low == 0 and high == pytest.approx(1.959964**2 / (20 + 1.959964**2))
    low, high = wilson(0.96, 100)
    assert low < 0.96 < high and (low, high) == pytest.approx((0.9016, 0.9843), abs=1e-3)
