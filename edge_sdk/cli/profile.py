"""``edge-sdk profile``: runs a bundle and measures it."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from edge_sdk.cli._options import add_run_options
from edge_sdk.cli._output import Output
from edge_sdk.cli._parser import Parser, example


def configure(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a folder NAME.edge, or a zip of it")
    add_run_options(parser.add_argument_group("run"), "local")
    example(parser, "edge-sdk profile edge-out/efficientnet_lite0.edge --threads 1")


def run(args: Namespace, output: Output) -> int:
    """Measures and shows the report."""
    from edge_sdk import api

    with output.progress() as progress:
        report = api.profile(args.bundle, device=args.device or "local", threads=args.threads, progress=progress)
    output.result(report.model_dump(mode="json"), lambda: _view(report))
    return 0


def _view(report):
    from edge_sdk.reporting.tables import report_view

    return report_view(report)
