"""``edge-sdk evaluate``: how right a tagger is on a labelled data set, here or on a device."""

from __future__ import annotations

import argparse
from argparse import Namespace
from pathlib import Path

from edge_sdk.cli._options import add_out, add_run_options, add_settings, count
from edge_sdk.cli._output import Output
from edge_sdk.cli._parser import Parser, example


def configure(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "what",
        type=Path,
        metavar="WHAT",
        help="a bundle NAME.edge, a checkpoint (.pt, .pth), a .pte or a .onnx file",
    )
    parser.add_argument(
        "--data", required=True, metavar="PATH", help="a folder in COCO's layout, or 'embedded'; its val split judges"
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="OTHER",
        help="another of these to judge beside it, such as the FP32 checkpoint of an INT8 bundle: the difference of "
        "mAP gets its 95 %% interval",
    )
    parser.add_argument(
        "--model", default="photo_tagging", metavar="NAME", help="how photos are prepared (default: photo_tagging)"
    )
    add_settings(parser, "a setting of the model, such as variant=resnet50")
    parser.add_argument(
        "--limit", type=count, metavar="N", help="so many images, evenly taken from the split (default: all)"
    )
    parser.add_argument(
        "--threshold",
        type=_threshold,
        default=0.5,
        metavar="P",
        help="the probability from which on a tag is given (default: 0.5)",
    )
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="DIR",
        help="the folder for tags.png, photos with their tags, and precision_recall.png",
    )
    add_out(parser, "evaluation.json", "it is not written")
    add_run_options(parser)
    example(
        parser,
        "edge-sdk evaluate best.pt --data embedded --set variant=resnet18",
        "edge-sdk evaluate build/NAME.edge --data coco --against best.pt --device ssh://pi@raspberrypi.local",
        "edge-sdk evaluate resnet18_multilabel_int8_xnnpack.pte --data coco --against best.pt --pictures pictures",
    )


def run(args: Namespace, output: Output) -> int:
    """Judges and shows the metrics."""
    from edge_sdk.evaluation.evaluate import evaluate

    with output.progress() as progress:
        result = evaluate(
            args.what,
            args.data,
            against=args.against,
            model=args.model,
            settings=args.settings,
            device=args.device,
            runner=args.runner,
            threads=args.threads,
            limit=args.limit,
            threshold=args.threshold,
            pictures=args.pictures,
            out=args.out,
            progress=progress,
        )

    def view():
        from edge_sdk.reporting.tables import evaluation_view

        return evaluation_view(result)

    output.result(result.model_dump(mode="json"), view)
    return 0


def _threshold(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"found '{text}', expected a number from 0 to 1")
    return value
