"""Memory that training keeps between steps."""

from __future__ import annotations

import ctypes
import resource

import pytest
import torch

from edge_sdk.training.memory import kept_memory

MIB = 1 << 20

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="only the GNU C library is told to keep memory"
)


def page_faults(steps: int = 20) -> int:
    """Pages that steps had to ask the kernel for, each of which takes 32 MiB and frees them."""
    torch.ones(8 * MIB)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        torch.ones(8 * MIB)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def test_a_step_reuses_the_memory_of_the_step_before():
    given_back = page_faults()
    with kept_memory():
        kept = page_faults()

    assert kept < given_back / 10


def test_the_memory_goes_back_when_training_ends():
    with kept_memory():
        page_faults()
        held = resident()

    assert resident() < held - 24 * MIB


def test_it_goes_back_as_usual_afterwards():
    with kept_memory():
        pass

    assert page_faults() > 20
