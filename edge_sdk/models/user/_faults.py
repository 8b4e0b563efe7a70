"""Where in the user's own code a fault arose."""

from __future__ import annotations

import traceback
from pathlib import Path


def describe(error: BaseException, file: Path) -> str:
    """``Type: message (file.py:12)``, with the deepest line in the user's folder, else the deepest of all."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({Path(error.filename or file).name}:{error.lineno})"
    lines = str(error).strip().splitlines()
    frames = traceback.extract_tb(error.__traceback__)
    folder = file.resolve().parent
    own = [frame for frame in frames if _is_own(Path(frame.filename), folder)] or list(frames)
    where = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}{where}"


def _is_own(source: Path, folder: Path) -> bool:
    """Whether a source file is the user's: in their folder, and not in an environment that lies within it."""
    return source.resolve().is_relative_to(folder) and "site-packages" not in source.parts
