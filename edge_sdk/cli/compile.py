"""``edge-sdk compile``: a model and a target become a bundle."""

from __future__ import annotations

from argparse import Namespace

from edge_sdk.cli._options import add_compile_options, compile_arguments
from edge_sdk.cli._output import Output
from edge_sdk.cli._parser import Parser, example


def configure(parser: Parser) -> None:
    """Adds the verb's arguments."""
    add_compile_options(parser)
    parser.add_argument(
        "--device",
        default="local",
        metavar="URI",
        help="where '--runtime auto' measures the candidates (default: local)",
    )
    example(
        parser,
        "edge-sdk compile efficientnet_lite0 --target desktop-cpu --quantize int8-static",
        "edge-sdk compile photo_tagging --set variant=resnet18 --target xnnpack-cpu --out build",
    )


def run(args: Namespace, output: Output) -> int:
    """Compiles and shows what became of the model."""
    from edge_sdk import api

    with output.progress() as progress:
        bundle = api.compile(
            args.model, args.target, device=args.device, progress=progress, **compile_arguments(args)
        )
    output.result(
        {
            "bundle": {
                "path": str(bundle.path),
                "sha256": bundle.manifest_sha256,
                "size_bytes": bundle.manifest.size_bytes,
            },
            "manifest": bundle.manifest.model_dump(mode="json"),
        },
        lambda: _view(bundle),
    )
    return 0


def _view(bundle):
    from edge_sdk.reporting.tables import bundle_view

    return bundle_view(bundle.manifest, str(bundle.path))
