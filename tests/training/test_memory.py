"""Memory that training keeps between steps; each in a process of its own, whose heap holds nothing yet."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

PRELUDE = """
import resource
from edge_sdk.training.memory import kept_memory

def faults(steps=20):
    "Pages that steps had to ask the kernel for, each of which fills 16 MiB and frees them."
    b"x" * (16 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        b"x" * (16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()
"""

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="only the GNU C library is told to keep memory"
)


def numbers(program: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", PRELUDE + program], capture_output=True, text=True, check=True, env={})
    return [int(one) for one in done.stdout.split()]


def test_a_step_reuses_the_memory_of_the_step_before():
    given_back, kept, afterwards = numbers(
        "before = faults()\nwith kept_memory():\n    kept = faults()\nprint(before, kept, faults())"
    )
    assert kept < given_back / 10
    assert afterwards > given_back / 2


def test_the_memory_goes_back_when_training_ends():
    held, left = numbers("with kept_memory():\n    faults()\n    held = resident()\nprint(held, resident())")
    assert left < held - (12 << 20)
