"""Reads a plugin's settings, which come from the command line as text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edge_sdk.errors import ModelError, unknown_name


def checkpoint(model: str, text: str) -> Path | None:
    """The path of a checkpoint that is there, None where none is named.

    Raises:
        ModelError: There is no such file.
    """
    path = Path(text).expanduser() if text else None
    if path is not None and not path.is_file():
        raise ModelError(f"model '{model}': there is no checkpoint at {path}.")
    return path


def choice(model: str, key: str, text: str, known: Iterable[str]) -> str:
    """One of several words.

    Raises:
        ModelError: It is none of them; the message names the nearest.
    """
    known = list(known)
    if text not in known:
        raise ModelError(f"model '{model}': " + unknown_name(key, text, known))
    return text


def integer(model: str, key: str, text: str, smallest: int, largest: int) -> int:
    """A whole number within limits.

    Raises:
        ModelError: It is no whole number, or outside.
    """
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or not smallest <= value <= largest:
        raise ModelError(f"model '{model}': {key} is '{text}'; expected a whole number from {smallest} to {largest}.")
    return value


def fraction(model: str, key: str, text: str) -> float:
    """A number from 0 to 1.

    Raises:
        ModelError: It is no number, or outside.
    """
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise ModelError(f"model '{model}': {key} is '{text}'; expected a number from 0 to 1.")
    return value
