"""Whole processes that take turns, and what their times say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from benchmarks._context import BenchmarkError
from benchmarks._device_modules import device_module

PROGRAMS = Path(__file__).parent / "programs"
_TAIL = 2000

T = TypeVar("T")


def program(name: str, *arguments: object) -> list[str]:
    """The command that runs a program of ``benchmarks/programs``."""
    return [sys.executable, str(PROGRAMS / f"{name}.py"), *map(str, arguments)]


def seconds_of(command: Sequence[str]) -> float:
    """Runs a command to its end; how long that took.

    Raises:
        BenchmarkError: It failed.
    """
    begin = perf_counter()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    seconds = perf_counter() - begin
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-_TAIL:]}")
    return seconds


def in_turns(sides: Mapping[str, Callable[[], T]], rounds: int, say: Callable[[str], None]) -> dict[str, list[T]]:
    """Calls each side once a round: A B, B A, A B and so on.

    Args:
        sides: What to call, by name.
        rounds: How often.
        say: Called with a line before each call.
    """
    found: dict[str, list[T]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name in sides if turn % 2 == 0 else reversed(sides):
            say(f"{name}, round {turn + 1} of {rounds}")
            found[name].append(sides[name]())
    return found


def median_s(seconds: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """The median of some times or differences in seconds, and its 95 % interval."""
    summary = device_module("_stats").summary([value * 1e9 for value in seconds])
    low, high = summary["ci95"]
    return summary["p50"] / 1e3, (low / 1e3, high / 1e3)
