"""Finds the data folders, in an installed wheel or in a checkout, and the cache."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def data_dir(name: str) -> Path:
    """The folder ``targets``, ``runtimes`` or ``jetson``.

    Args:
        name: The folder's name.

    Raises:
        FileNotFoundError: It is neither in the installed package nor in the checkout.
    """
    for folder in (_PACKAGE / "_data" / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"the data folder '{name}' is not in this installation; install edge-sdk again")


def cache_dir() -> Path:
    """``$EDGE_SDK_CACHE``, else ``$XDG_CACHE_HOME/edge-sdk``, else ``~/.cache/edge-sdk``. Not created."""
    if chosen := os.environ.get("EDGE_SDK_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edge-sdk"
