"""Which of several training processes this one is."""

from __future__ import annotations

import os

_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Set by Lightning, torchrun and Slurm for each process that they start."""


def is_first() -> bool:
    """Whether this is the only process of a run, or the one that writes and speaks for all."""
    return next((os.environ[name] for name in _VARIABLES if name in os.environ), "0") == "0"
