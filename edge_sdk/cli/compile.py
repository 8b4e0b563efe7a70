"""``edge-sdk compile``: a model and a target become a bundle."""

from __future__ import annotations

from argparse import Namespace

from edge_sdk.cli._options import add_compile_options, add_out, add_run_options, compile_arguments
from edge_sdk.cli._output import Output
from edge_sdk.cli._parser import Parser, example


def configure(parser: Parser) -> None:
    """Adds the verb's arguments."""
    add_out(parser, "NAME.edge", "the bundle stays in the cache")
    add_compile_options(parser)
    add_run_options(parser)
    example(
        parser,
        "edge-sdk compile efficientnet_lite0 --target desktop-cpu --quantize int8-static",
        "edge-sdk compile photo_tagging --set variant=resnet18 --target xnnpack-cpu --out build",
    )


def run(args: Namespace, output: Output) -> int:
    """Compiles and shows what became of the model."""
    from edge_sdk import api

    with output.progress() as progress:
        bundle = api.compile(args.model, args.target, progress=progress, **compile_arguments(args))
    about = {"path": str(bundle.path), "sha256": bundle.manifest_sha256, "size_bytes": bundle.manifest.size_bytes}
    selection = None if bundle.selection is None else bundle.selection.model_dump(mode="json")
    document = {
        "bundle": about,
        "selection": selection,
        "beside": [str(one.path) for one in bundle.beside],
        "manifest": bundle.manifest.model_dump(mode="json"),
    }
    output.result(document, lambda: _view(bundle))
    return 0


def _view(bundle):
    from edge_sdk.reporting.tables import bundle_view

    return bundle_view(bundle)
