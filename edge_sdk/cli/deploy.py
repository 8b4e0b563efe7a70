"""``edge-sdk deploy``: compiles, runs, checks against FP32 and measures, in one go."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from edge_sdk.cli._options import (
    add_compile_options,
    add_measure_options,
    add_out,
    add_run_options,
    compile_arguments,
    measure_arguments,
)
from edge_sdk.cli._output import Output
from edge_sdk.cli._parser import Parser, example


def configure(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "--input",
        type=Path,
        metavar="PATH",
        help="a photo or a folder of photos: each is tagged in FP32 here and by the bundle on the device",
    )
    add_out(parser, "NAME.edge, report.json and samples.json", "the bundle stays in the cache, no file is written")
    add_compile_options(parser)
    add_run_options(parser)
    add_measure_options(parser)
    example(
        parser,
        "edge-sdk deploy efficientnet_lite0 --target desktop-cpu --quantize int8-static --input photos",
        "edge-sdk deploy net.py:build --target xnnpack-cpu --threads 1 --json",
        "edge-sdk deploy efficientnet_lite0 --target raspberry-pi-5 --device ssh://pi@raspberrypi.local",
    )


def run(args: Namespace, output: Output) -> int:
    """Deploys and shows the report, before it the tags of each input."""
    from edge_sdk import api

    with output.progress() as progress:
        report = api.deploy(
            args.model,
            args.target,
            inputs=args.input,
            progress=progress,
            **compile_arguments(args),
            **measure_arguments(args),
        )
    output.report(report)
    return 0
