"""``python -m benchmarks [NAME ...] [--json FILE] [--quick]``: runs suites, prints their tables, writes JSON.

Ends with 0 where every limit is met, 4 where one is missed or cannot be told, 1 where a suite broke
off, 2 where the command line is not understood. A quick run, whose figures mean nothing, misses no
limit.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from benchmarks import _machine, _show
from benchmarks._context import EFFICIENTNET, RESNET, SMALL, BenchmarkError, Context
from benchmarks._rows import Row

SUITES = (
    "startup",
    "compile",
    "overhead",
    "int8",
    "latency",
    "devices",
    "monitor",
    "training",
    "generation",
    "solvers",
    "pruning",
)
ON_REQUEST = ("cuda",)
"""Suites that need what most machines do not have."""
WELL, BROKEN, MISSED, INTERRUPTED = 0, 1, 4, 130
PLAIN_WIDTH = 140
QUICK = "a quick run: its rounds are too short for the figures to mean anything"


@dataclass(frozen=True)
class Found:
    """What the suites gave: rows and failures by suite, and what makes the figures less believable."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the suites that the command line names, or all.

    Args:
        argv: The command line without the program's name, None for the process's own.

    Returns:
        The exit code.
    """
    from edge_sdk._files import write_atomic
    from edge_sdk.cli._chatter import apart

    args = _arguments(argv)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    found = Found(warnings=[QUICK] if args.quick else [])
    with tempfile.TemporaryDirectory(prefix="edge-sdk-bench-") as folder, apart(verbose=False) as (stdout, stderr):
        logging.getLogger("edge_sdk").setLevel(logging.ERROR)
        os.environ["EDGE_SDK_CACHE"] = str(Path(folder) / "cache")  # cold is cold, and nothing of this stays
        machine = _machine.describe()
        context = Context(
            folder=Path(folder),
            quick=args.quick,
            say=lambda line: print(line, file=stderr, flush=True),
            warn=found.warnings.append,
            models=(SMALL,) if args.quick else (EFFICIENTNET, RESNET),
        )
        _run(args.suites or SUITES, context, found, stdout)
    if args.json:
        document = _show.document(machine, args.quick, created, found.rows, found.failures, found.warnings)
        write_atomic(args.json, json.dumps(document, indent=2) + "\n")
    return _exit_code(found, args.quick)


def _run(suites: Sequence[str], context: Context, found: Found, stdout: TextIO) -> None:
    """Fills ``found`` and prints each suite's table as it ends. One that breaks off leaves the others to run."""
    from rich.console import Console

    from edge_sdk.errors import EdgeSdkError

    console = Console(file=stdout)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    for name in suites:
        if busy := _machine.busy():
            context.warn(f"before {name}: {busy}")
            context.say(f"warning: {busy}")
        suite = importlib.import_module(f"benchmarks.{name}")
        rows = found.rows[name] = []
        try:
            for row in suite.run(context):
                rows.append(row)
        except (EdgeSdkError, BenchmarkError) as error:
            found.failures[name] = str(error)
            context.say(f"{name} broke off: {error}")
        console.print(_show.table(suite.TITLE, rows))
    for warning in found.warnings:
        console.print(f"Warning: {warning}", markup=False, highlight=False)


def _exit_code(found: Found, quick: bool) -> int:
    if found.failures:
        return BROKEN
    missed = any(row.limit is not None and row.met is not True for rows in found.rows.values() for row in rows)
    return MISSED if missed and not quick else WELL


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    from edge_sdk.errors import unknown_name

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Sets Edge SDK beside what a user would do without it."
    )
    parser.add_argument(
        "suites",
        nargs="*",
        metavar="NAME",
        help=f"which suites to run: {', '.join(SUITES)} (default: all of these); with an NVIDIA GPU also "
        f"{', '.join(ON_REQUEST)}",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to FILE as JSON, too")
    parser.add_argument("--quick", action="store_true", help="few, short rounds on a small model, to try the suites")
    args = parser.parse_args(argv)
    for name in args.suites:
        if name not in SUITES + ON_REQUEST:
            parser.error(unknown_name("suite", name, SUITES + ON_REQUEST))
    return args


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
