"""The command that compresses one photo, and says what a language model saves by it."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.cli._main import program
from edge_sdk.cli._parser import Parser, example

if TYPE_CHECKING:
    from rich.console import RenderableType

    from edge_sdk.cli._output import Output
    from edge_sdk.models.token_compression._inference import Inference
    from edge_sdk.schema.report import Unavailable

NAME = "python -m edge_sdk.models.token_compression"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: The arguments after its name; None takes those of the process.

    Returns:
        The exit code, as of ``edge-sdk``.
    """
    import sys

    parser = Parser(
        prog=NAME,
        description="Compress the tokens of a photo, and say how much of them is left.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return program(sys.modules[__name__], parser, argv)  # type: ignore[arg-type]


def configure(parser: Parser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "--checkpoint",
        type=Path,
        nargs="+",
        required=True,
        metavar="PATH",
        help="what 'edge-sdk train token_compression' wrote; of several, with different numbers of tokens, the photo "
        "decides which is taken",
    )
    parser.add_argument("--image", type=Path, required=True, metavar="PATH", help="a photo; its middle square is taken")
    parser.add_argument(
        "--tolerance",
        type=_share,
        default=0.5,
        metavar="X",
        help="with several checkpoints: the share of the tokens' variance that averages over the grid may lose (0.5)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the folder for the compressed tokens (.npz) and a picture"
    )
    group = parser.add_argument_group("a language model that reads the tokens")
    group.add_argument(
        "--target",
        metavar="NAME",
        help="bounds of the time that language models need on this target to read the photo's tokens, by its peaks",
    )
    group.add_argument(
        "--precision", default="fp16", metavar="P", help="in which they compute: fp32, fp16 or int8 (fp16)"
    )
    group.add_argument("--text", type=_count, default=64, metavar="N", help="tokens of text beside the photo's (64)")
    example(
        parser,
        f"{NAME} --checkpoint runs/tokens/best.pt --image photo.jpg --out compressed",
        f"{NAME} --checkpoint runs/tokens*/best.pt --image photo.jpg --target jetson-agx-orin",
    )


def run(args: Namespace, output: Output) -> int:
    """Compresses the photo and shows what was found."""
    from edge_sdk.models.token_compression._inference import compress_photo

    consumers = _consumers(args)
    with output.progress() as say:
        found = compress_photo(args.checkpoint, args.image, args.out, args.tolerance, say)
    document = _document(found)
    if consumers is not None:
        document["language_model"] = consumers(found)
    output.result(document, lambda: _view(document))
    return 0


def _consumers(args: Namespace):
    """What tells the bounds of language models; None where no target is named. Refuses before work is done."""
    if args.target is None:
        return None
    from edge_sdk.errors import UnsupportedError, unknown_name
    from edge_sdk.profiling.language_model import WEIGHT_BYTES
    from edge_sdk.schema import load_target

    target = load_target(args.target)
    if args.precision not in WEIGHT_BYTES:
        raise UnsupportedError(unknown_name("precision", args.precision, WEIGHT_BYTES))
    unit = target.unit(target.runtimes[0].unit)

    def told(found: Inference) -> dict[str, Any]:
        from edge_sdk.profiling.language_model import readings
        from edge_sdk.profiling.roofline import bound

        own = bound(_cost(found, args.precision), target, unit, args.precision)
        rows = readings(target, unit, args.precision, found.tokens, found.compressed, args.text)
        return {
            "target": target.name,
            "unit": unit.name,
            "precision": args.precision,
            "text_tokens": args.text,
            "compressor_bound_ms": _told(own),
            "models": [
                {"name": one.model, "without_bound_ms": _told(one.without_ms), "with_bound_ms": _told(one.with_ms)}
                for one in rows
            ],
        }

    return told


def _cost(found: Inference, precision: Any) -> Any:
    """The work of the compressor for one photo."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from edge_sdk.profiling.language_model import WEIGHT_BYTES, state_bytes
    from edge_sdk.schema.manifest import Cost

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        found.compressor(torch.zeros(1, found.tokens, found.width))
    weights = sum(parameter.numel() for parameter in found.compressor.parameters())
    return Cost(
        macs=counter.get_total_flops() // 2,
        weight_bytes=round(weights * WEIGHT_BYTES[precision]),
        activation_bytes=(found.tokens + found.compressed) * found.width * state_bytes(precision),
    )


def _told(value: float | Unavailable) -> Any:
    return value if isinstance(value, (int, float)) else value.model_dump()


def _document(found: Inference) -> dict[str, Any]:
    return {
        "encoder": found.encoder,
        "checkpoint": str(found.checkpoint),
        "tokens": found.tokens,
        "compressed_tokens": found.compressed,
        "token_width": found.width,
        "ratio": found.ratio,
        "bytes": found.size_bytes(found.tokens),
        "compressed_bytes": found.size_bytes(found.compressed),
        "complexity": found.complexity,
        "cosine": found.cosine,
        "relative_mse": found.relative_mse,
        "pooled_cosine": found.pooled_cosine,
        "files": [str(path) for path in found.files],
    }


def _view(document: dict[str, Any]) -> RenderableType:
    from rich.console import Group

    from edge_sdk.reporting.tables import facts, listing

    rows = [
        ("Encoder", document["encoder"]),
        ("Checkpoint", document["checkpoint"]),
        ("Tokens", f"{document['tokens']} as {document['compressed_tokens']}, {document['ratio']:g} times fewer"),
        ("Bytes, 16 bits", f"{document['bytes']:,} as {document['compressed_bytes']:,}"),
        ("Complexity", f"{document['complexity']:.3f} of the variance is lost by as many averages"),
        ("Cosine", f"{document['cosine']:.3f}; {document['pooled_cosine']:.3f} of as many averages"),
        ("Relative MSE", f"{document['relative_mse']:.3f}"),
        *(("Written", path) for path in document["files"]),
    ]
    views: list[RenderableType] = [facts("Compressed tokens", rows)]
    if "language_model" in document:
        views += ["", *_consumer_views(document["language_model"], document, facts, listing)]
    return Group(*views)


def _consumer_views(told: dict[str, Any], document: dict[str, Any], facts: Any, listing: Any) -> list[RenderableType]:
    before, after = (document[key] + told["text_tokens"] for key in ("tokens", "compressed_tokens"))
    title = f"Reading the photo and {told['text_tokens']} tokens of text on {told['target']} ({told['unit']}), at least"
    rows = []
    for model in told["models"]:
        slow, fast = model["without_bound_ms"], model["with_bound_ms"]
        ratio = f"{slow / fast:.1f}" if isinstance(slow, float) and isinstance(fast, float) else ""
        rows.append([model["name"], _ms(slow), _ms(fast), ratio])
    columns = [f"Language model, {told['precision']}", f"{before} tokens", f"{after} tokens", "times faster"]
    return [
        facts(title, [("The compressor itself", _ms(told["compressor_bound_ms"]))]),
        listing(columns, rows),
        "By the target's peaks: bounds, not measurements.",
    ]


def _ms(value: float | dict[str, str]) -> str:
    return value["unavailable"] if isinstance(value, dict) else f"{value:.3g} ms"


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"found '{text}', expected a number from 0 to 1")
    return value


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"found '{text}', expected a whole number from 0 up")
    return int(text)
