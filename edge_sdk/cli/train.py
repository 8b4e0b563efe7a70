"""``edge-sdk train``: trains a system into a folder with its weights, metrics and settings."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from edge_sdk.cli._output import Output
from edge_sdk.cli._parser import Parser, UsageError, example


def configure(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "system", metavar="SYSTEM", help="what to train: photo_tagging, scq, svq, token_compression or captioning"
    )
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="KEY=VALUE",
        help="settings, such as model=resnet50, data=coco, data.root=PATH, optimizer.lr=0.05, method=lsq; an unknown "
        "one is answered with those that there are",
    )
    group = parser.add_argument_group("training")
    group.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="the run's folder: best weights, last checkpoint, settings, metrics, TensorBoard's files",
    )
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings from a YAML file, such as a run's config.yaml; KEY=VALUE goes before it",
    )
    group.add_argument("--resume", action="store_true", help="go on with the run in --out after its last whole epoch")
    group = parser.add_argument_group("data")
    group.add_argument("--download", type=Path, metavar="DIR", help="fetch the data into a folder instead of training")
    group.add_argument("--val-only", action="store_true", help="with --download: only what evaluation needs")
    # Settings may stand before and after the options.
    parser.parse_args = parser.parse_intermixed_args  # type: ignore[method-assign]
    example(
        parser,
        "edge-sdk train photo_tagging data=embedded --out runs/fp32",
        "edge-sdk train photo_tagging --resume --out runs/fp32",
        "edge-sdk train photo_tagging data=embedded method=lsq lsq.checkpoint=runs/fp32/best.pt --out runs/lsq",
        "edge-sdk train photo_tagging --download coco --val-only",
        "edge-sdk train photo_tagging model=resnet50 data.root=coco trainer.devices=4 --out runs/coco",
        "edge-sdk train svq data=shapes model.num_slots=6 training.learning_rate=0.0002 device=cuda --out runs/svq",
        "edge-sdk train svq --config runs/svq/config.yaml seed=1 --out runs/svq1",
        "edge-sdk train svq data=shapes ablation.enabled=true --out runs/ablation",
    )


def run(args: Namespace, output: Output) -> int:
    """Trains, or fetches the data."""
    _check(args)
    if args.download is not None:
        return _download(args, output)
    with output.progress() as say:
        from edge_sdk.training import SYSTEMS

        SYSTEMS.load(args.system)  # an unknown name is told before the libraries are loaded
        say("loading the libraries")
        from edge_sdk.training.run import train

        result = train(args.system, args.settings, args.out, file=args.config, resume=args.resume, say=say)
    if result.is_first:
        document = {**result.metrics, "folder": str(result.folder), "weights": str(result.weights)}
        output.result(document, lambda: _view(document))
    return 0


def _check(args: Namespace) -> None:
    """Refuses options that do not go together.

    Raises:
        UsageError: They do not.
    """
    if (args.download is None) == (args.out is None):
        found = "neither" if args.out is None else "both"
        raise UsageError(f"expected either --out DIR or --download DIR, found {found}. Try 'edge-sdk train --help'.")
    if args.download is not None and (args.settings or args.config or args.resume):
        raise UsageError("--download takes no settings and no --resume. Try 'edge-sdk train --help'.")
    if args.config is not None and args.resume:
        raise UsageError("--resume goes on with the settings of the run: leave out --config.")
    if args.val_only and args.download is None:
        raise UsageError("--val-only goes with --download. Try 'edge-sdk train --help'.")


def _download(args: Namespace, output: Output) -> int:
    from edge_sdk.training import SYSTEMS

    system = SYSTEMS.load(args.system)()
    with output.progress() as say:
        system.download(args.download, args.val_only, say)
    folder = str(args.download)
    output.result({"folder": folder}, lambda: _text(f"The data is in {folder}."))
    return 0


def _view(document):
    from rich.console import Group

    from edge_sdk.reporting.tables import listing

    if "sweep" in document:
        rows = document["sweep"]
        cells = [["" if value is None else _figure(value) for value in row.values()] for row in rows]
        return Group(listing([name.replace("_", " ") for name in rows[0]], cells), _text(f"In {document['folder']}."))
    best = document["best"]
    names = [name for name in best if name not in ("epoch", "seconds", "lr")]
    rows = [(name, f"{best[name]:.4f}") for name in names]
    skipped = {split: names for split, names in document.get("skipped", {}).items() if names}
    lines = [f"Best epoch: {best['epoch']} of {len(document['epochs'])}. Weights: {document['weights']}"]
    lines += [f"Skipped as unreadable in {split}: {', '.join(names)}" for split, names in skipped.items()]
    return Group(listing(["Metric", "Best epoch"], rows), _text("\n".join(lines)))


def _figure(value: str | int | float) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _text(words: str):
    from rich.text import Text

    return Text(words)
