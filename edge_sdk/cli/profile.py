"""``edge-sdk profile``: runs a bundle and measures it."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from edge_sdk.cli._options import add_measure_options, add_out, add_run_options, measure_arguments
from edge_sdk.cli._output import Output
from edge_sdk.cli._parser import Parser, example


def configure(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a folder NAME.edge, or a zip of it")
    parser.add_argument(
        "--target", metavar="NAME", help="the profile to judge by (default: what the bundle was compiled for)"
    )
    add_out(parser, "report.json and samples.json", "neither is written")
    add_run_options(parser)
    add_measure_options(parser)
    example(parser, "edge-sdk profile build/efficientnet_lite0-xnnpack-cpu-int8-static-executorch.edge --threads 1")


def run(args: Namespace, output: Output) -> int:
    """Measures and shows the report."""
    from edge_sdk import api

    with output.progress() as progress:
        report = api.profile(
            args.bundle,
            target=args.target,
            device=args.device or "local",
            runner=args.runner,
            threads=args.threads,
            **measure_arguments(args),
            out=args.out,
            progress=progress,
        )
    output.report(report)
    return 0
