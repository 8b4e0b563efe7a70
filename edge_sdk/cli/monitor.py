"""``edge-sdk monitor``: what a device is doing, live."""

from __future__ import annotations

import argparse
from argparse import Namespace
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.cli._main import INTERRUPTED
from edge_sdk.cli._options import count
from edge_sdk.cli._output import Output
from edge_sdk.cli._parser import Parser, example

if TYPE_CHECKING:
    from edge_sdk.profiling.live import View

_LEAST_S, _MOST_S = 0.05, 3600.0


def configure(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "bundle",
        nargs="?",
        type=Path,
        metavar="BUNDLE",
        help="a folder NAME.edge, or a zip of it, to run on and on meanwhile (default: only the device is watched)",
    )
    parser.add_argument(
        "--device",
        default="local",
        metavar="URI",
        help="local, ssh://[user@]host[:port] or adb://[serial] (default: local)",
    )
    parser.add_argument(
        "--every", type=_period, default=1.0, metavar="SECONDS", help="seconds between two readings (default: 1)"
    )
    parser.add_argument("--count", type=count, metavar="N", help="end after so many readings (default: at Ctrl-C)")
    parser.add_argument("--threads", type=count, metavar="N", help="processor threads (default: what the target says)")
    example(
        parser,
        "edge-sdk monitor",
        "edge-sdk monitor build/efficientnet_lite0-desktop-cpu-fp32-onnxruntime.edge",
        "edge-sdk monitor --device ssh://pi@raspberrypi.local --json --count 60",
    )


def run(args: Namespace, output: Output) -> int:
    """Shows readings until there are enough, or Ctrl-C; with --json each is a line."""
    from edge_sdk import api

    views = api.monitor(
        args.bundle, device=args.device, period_s=args.every, count=args.count or 0, threads=args.threads
    )
    with closing(views), output.live(_screen, _line) as show:
        try:
            for view in views:
                show(view.document(), view)
        except KeyboardInterrupt as error:
            # Ctrl-C is how one leaves a monitor; a signal that ends the program is not.
            if getattr(error, "exit_code", INTERRUPTED) != INTERRUPTED:
                raise
    return 0


def _screen(view: View):
    from edge_sdk.reporting.live import monitor_view

    return monitor_view(view)


def _line(view: View) -> str:
    from edge_sdk.reporting.live import monitor_line

    return monitor_line(view)


def _period(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not _LEAST_S <= value <= _MOST_S:
        raise argparse.ArgumentTypeError(f"found '{text}', expected seconds from {_LEAST_S:g} to {_MOST_S:g}")
    return value
