"""The programs that the scripts by hand make, each made once."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks._context import Case, Context
from benchmarks._turns import program, seconds_of

ENDINGS = {"by_hand_executorch": "pte", "by_hand_pt2e_onnx": "onnx", "by_hand_onnxruntime": "onnx"}
"""Script to the ending of what it writes."""


def command(context: Context, case: Case, script: str) -> list[str]:
    """The command that makes a program, anew each time it is run."""
    return program(script, _path(context, case, script), *case.arguments)


def made(context: Context, case: Case, script: str) -> Path:
    """The program that a script makes; not made again where another suite has had it made.

    Raises:
        BenchmarkError: The script failed.
    """
    path = _path(context, case, script)
    if not path.is_file():
        context.say(f"{case.title}: {script}")
        seconds_of(command(context, case, script))
    return path


def _path(context: Context, case: Case, script: str) -> Path:
    name = re.sub(r"\W+", "-", case.title.lower())
    return context.folder / f"{name}-{script}.{ENDINGS[script]}"
