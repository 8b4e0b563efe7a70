"""``python -m benchmarks.tagging RUNS``: trains taggers and shows what INT8 and 4 bits cost in mAP, size and latency.

For each seed a ResNet-18 is trained in FP32 on the embedded set, then quantized after training
(``int8-static``) and by LSQ training in 8 and in 4 bits; each is judged on all images of the val split,
the programs by their runtime. ``RUNS`` keeps everything: what is done there already is not done again, and
what was broken off goes on. With ``--docs`` the table and the pictures are written for the documentation.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_sdk.bundle import Bundle
    from edge_sdk.evaluation.result import Evaluation

DATA = "embedded"
TARGET, RUNTIME = "xnnpack-cpu", "executorch"
METHODS = ("FP32", "PTQ INT8", "LSQ INT8", "LSQ 4-bit")
ALLOWED_POINTS = {"PTQ INT8": 0.6, "LSQ INT8": 0.3, "LSQ 4-bit": 2.0}


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        runs: The folder of all runs.
        size: Side of an image in pixels.
        epochs: In FP32.
        lsq_epochs: With LSQ.
        seeds: How many seeds, from 0.
        precision: What FP32 weights are trained in, as Lightning names it.
    """

    runs: Path
    size: int
    epochs: int
    lsq_epochs: int
    seeds: int
    precision: str

    def model(self, checkpoint: Path) -> dict[str, str]:
        """The plugin's settings for one FP32 checkpoint."""
        return {"variant": "resnet18", "input_size": str(self.size), "data": DATA, "checkpoint": str(checkpoint)}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is not done yet and prints the table.

    Args:
        argv: The command line without the program's name, None for the process's own.

    Returns:
        0 where every method keeps within its allowed loss, 4 where one does not.
    """
    args = _arguments(argv)
    settings = Settings(args.runs.absolute(), args.size, args.epochs, args.lsq_epochs, args.seeds, args.precision)
    settings.runs.mkdir(parents=True, exist_ok=True)
    rows = [row for seed in range(settings.seeds) for row in _seed(settings, seed)]
    losses = {method: _loss(rows, method) for method in METHODS[1:]}
    text = _table(settings, rows, losses)
    print(text)
    (settings.runs / "table.json").write_text(json.dumps({"rows": rows, "losses": losses}, indent=2) + "\n")
    if args.docs is not None:
        args.docs.mkdir(parents=True, exist_ok=True)
        (args.docs / "photo_tagging_results.md").write_text(text + "\n")
    return 0 if all(losses[method]["mean"] <= allowed for method, allowed in ALLOWED_POINTS.items()) else 4


def _seed(settings: Settings, seed: int) -> list[dict[str, Any]]:
    """Everything of one seed: a row for each method."""
    from edge_sdk.devices import open_device
    from edge_sdk.profiling.interleave import interleave
    from edge_sdk.schema import load_target

    runs, shared = settings.runs, [f"data={DATA}", f"data.size={settings.size}", f"seed={seed}"]
    quick = [f"epochs={settings.epochs}", f"trainer.precision={settings.precision}"]
    fp32 = _train(runs / f"fp32-{seed}", "best.pt", [*shared, *quick])
    lsq = [
        _train(
            runs / f"lsq{bits}-{seed}",
            "best.lsq.pt",
            [
                *shared,
                "method=lsq",
                f"epochs={settings.lsq_epochs}",
                f"lsq.checkpoint={fp32}",
                "lsq.distillation=1",
                f"lsq.weight_bits={bits}",
                f"lsq.activation_bits={bits}",
            ],
        )
        for bits in (8, 4)
    ]
    model = settings.model(fp32)
    ptq = {"quantize.outputs": "float"}
    bundles = {
        "FP32": _bundle(runs / f"bundles-{seed}", "fp32", model),
        "PTQ INT8": _bundle(runs / f"bundles-{seed}", "int8-static", model | ptq),
        "LSQ INT8": _bundle(runs / f"bundles-{seed}", "int8-lsq", model | {"quantize.checkpoint": str(lsq[0])}),
    }
    with open_device("local") as here:
        times = interleave(list(bundles.values()), here, load_target(TARGET), progress=_say)
    medians = dict(zip(bundles, times.medians_ms, strict=True))
    rows = []
    for method in METHODS:
        what = bundles[method].path if method in bundles else lsq[1]
        found = _judge(runs / f"judged-{seed}", method, what, fp32, model)
        rows.append(
            {
                "seed": seed,
                "method": method,
                "map": found.judged.metrics.map,
                "f1": found.judged.metrics.f1,
                "best_threshold": found.judged.metrics.best_threshold,
                "images": found.images,
                "size_bytes": bundles[method].manifest.size_bytes if method in bundles else None,
                "latency_ms": medians.get(method),
            }
        )
    return rows


def _train(folder: Path, weights: str, settings: Sequence[str]) -> Path:
    """The best weights of a run: trained now, gone on with, or there already."""
    if (folder / "done").exists():
        return folder / weights
    _say(f"training into {folder}: {' '.join(settings)}")
    command = [sys.executable, "-m", "edge_sdk", "train", "photo_tagging"]
    command += ["--resume"] if (folder / "last.ckpt").exists() else list(settings)
    subprocess.run([*command, "--out", str(folder)], check=True, stdout=subprocess.DEVNULL)
    (folder / "done").touch()
    return folder / weights


def _bundle(folder: Path, quantize: str, settings: dict[str, str]) -> Bundle:
    import edge_sdk

    return edge_sdk.compile(
        "photo_tagging", TARGET, runtime=RUNTIME, quantize=quantize, settings=settings, out=folder, progress=_say
    )


def _judge(folder: Path, method: str, what: Path, fp32: Path, settings: dict[str, str]) -> Evaluation:
    """A method on all images of the val split; INT8 beside FP32 with pictures."""
    import edge_sdk

    own = {key: value for key, value in settings.items() if key not in ("data", "checkpoint")}
    return edge_sdk.evaluate(
        what,
        DATA,
        against=None if method == "FP32" else fp32,
        settings=own,
        pictures=folder / method.replace(" ", "-") if method.endswith("INT8") else None,
        progress=_say,
    )


def _loss(rows: Sequence[dict[str, Any]], method: str) -> dict[str, float]:
    """How many points of mAP a method loses to FP32: the mean over seeds and its 95 % interval."""
    from edge_sdk.profiling._blocks import t95

    by_seed = {(row["seed"], row["method"]): row["map"] for row in rows}
    points = [100 * (by_seed[seed, "FP32"] - by_seed[seed, method]) for seed in sorted({row["seed"] for row in rows})]
    mean, count = fmean(points), len(points)
    if count < 2:
        return {"mean": mean}
    half = t95(count - 1) * stdev(points) / count**0.5
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _table(settings: Settings, rows: Sequence[dict[str, Any]], losses: dict[str, dict[str, float]]) -> str:
    """The figures as Markdown."""
    lines = ["| Seed | Method | mAP | F1 at 0.5 | Size | Latency |", "|---|---|---|---|---|---|"]
    for row in rows:
        size = f"{row['size_bytes'] / 1e6:.2f} MB" if row["size_bytes"] else "no program: see below"
        latency = f"{row['latency_ms']:.3f} ms" if row["latency_ms"] else ""
        lines.append(f"| {row['seed']} | {row['method']} | {row['map']:.4f} | {row['f1']:.4f} | {size} | {latency} |")
    lines += [
        "",
        "| Method | Points of mAP lost to FP32, mean of the seeds | 95 % interval | Allowed |",
        "|---|---|---|---|",
    ]
    for method, loss in losses.items():
        interval = f"{loss['low']:+.2f} to {loss['high']:+.2f}" if "low" in loss else "too few seeds"
        lines.append(f"| {method} | {loss['mean']:+.2f} | {interval} | {ALLOWED_POINTS[method]} |")
    return "\n".join(lines)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tagging", description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=Path, metavar="RUNS", help="the folder of all runs; what is done there is kept")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="how many seeds (3)")
    parser.add_argument("--size", type=int, default=64, metavar="PIXELS", help="side of an image (64)")
    parser.add_argument("--epochs", type=int, default=12, metavar="N", help="epochs in FP32 (12)")
    parser.add_argument("--lsq-epochs", type=int, default=2, metavar="N", help="epochs with LSQ (2)")
    parser.add_argument(
        "--precision", default="bf16-mixed", metavar="NAME", help="what FP32 weights are trained in (bf16-mixed)"
    )
    parser.add_argument("--docs", type=Path, metavar="DIR", help="write the table there, too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
