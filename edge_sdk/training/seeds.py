"""Random numbers that only depend on where in a run they are drawn, so that a resumed run draws the same."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derived(*numbers: int) -> int:
    """A seed of 63 bits from several numbers, such as a run's seed, an epoch and a step."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*numbers: int) -> torch.Generator:
    """A generator of random numbers, on the processor, from several numbers."""
    import torch

    return torch.Generator().manual_seed(derived(*numbers))
