"""Why a compiler of somebody else's failed, in one line."""

from __future__ import annotations

import re

_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def first_cause(error: BaseException) -> str:
    """The exception that led to all others (exporters wrap it in some that say little), on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = _ESCAPES.sub("", str(error)).strip()
    first = (text.splitlines() or ["no message"])[0][:300]
    return f"{type(error).__name__}: {first.rstrip('. ')}"
