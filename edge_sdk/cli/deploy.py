"""``edge-sdk deploy``: compiles, runs, checks against FP32 and measures, in one go."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from edge_sdk.cli._options import add_compile_options, add_run_options, compile_arguments
from edge_sdk.cli._output import Output
from edge_sdk.cli._parser import Parser, example


def configure(parser: Parser) -> None:
    """Adds the verb's arguments."""
    add_compile_options(parser)
    group = parser.add_argument_group("run")
    add_run_options(group, "the target's usual one")
    group.add_argument(
        "--input",
        type=Path,
        metavar="PATH",
        help="a photo or a folder of photos: each is tagged in FP32 here and by the bundle on the device",
    )
    example(
        parser,
        "edge-sdk deploy efficientnet_lite0 --target desktop-cpu --quantize int8-static --input photos",
        "edge-sdk deploy net.py:build --target xnnpack-cpu --threads 1 --json",
    )


def run(args: Namespace, output: Output) -> int:
    """Deploys and shows the report, before it the tags of each input."""
    from edge_sdk import api

    with output.progress() as progress:
        report = api.deploy(
            args.model,
            args.target,
            inputs=args.input,
            device=args.device,
            threads=args.threads,
            progress=progress,
            **compile_arguments(args),
        )
    output.result(report.model_dump(mode="json"), lambda: _view(report))
    return 0


def _view(report):
    from edge_sdk.reporting.tables import report_view

    return report_view(report)
