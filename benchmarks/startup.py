"""How long starting takes, as whole processes beside Python's own start."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks._context import Context
from benchmarks._rows import Limit, Row
from benchmarks._turns import in_turns, median_s, seconds_of

TITLE = "Start-up"
ROUNDS, QUICK_ROUNDS = 30, 3
BARE, IMPORT, HELP = "python -c pass", "import edge_sdk", "edge-sdk --help"
LIMITS = {BARE: None, IMPORT: Limit(at_most=0.1), HELP: Limit(at_most=0.25)}


def run(context: Context) -> Iterator[Row]:
    """Seconds of each process, and how much of them Python's own start is not to blame for."""
    script = Path(sys.executable).with_name("edge-sdk")
    installed = script.is_file()
    commands = {
        BARE: [sys.executable, "-c", "pass"],
        IMPORT: [sys.executable, "-c", "import edge_sdk"],
        HELP: [str(script), "--help"] if installed else [sys.executable, "-m", "edge_sdk", "--help"],
    }
    sides = {name: partial(seconds_of, command) for name, command in commands.items()}
    for side in sides.values():  # the files are read into memory, and compiled, once
        side()
    rounds = QUICK_ROUNDS if context.quick else ROUNDS
    times = in_turns(sides, rounds, context.say)
    how = f"whole processes, {rounds} rounds in turns"
    for name, limit in LIMITS.items():
        value, ci95 = median_s(times[name])
        run_as = "" if name != HELP or installed else ", as python -m edge_sdk"
        yield Row(name, value, "s", how + run_as, ci95, limit)
    for name in (IMPORT, HELP):
        value, ci95 = median_s([own - bare for own, bare in zip(times[name], times[BARE], strict=True)])
        yield Row(f"{name} less {BARE}", value, "s", "median difference of a round", ci95)
