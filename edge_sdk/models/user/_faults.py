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
    folder = str(file.resolve().parent)
    own = [frame for frame in frames if str(Path(frame.filename).resolve()).startswith(folder)] or list(frames)
    where = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}{where}"
