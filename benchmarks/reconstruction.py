"""``python -m benchmarks.reconstruction RUNS``: sets Soft Convex Quantization beside what it stands against.

An autoencoder is trained without a quantizer, with the vector quantization of vector-quantize-pytorch, and
with SCQ, relaxed and exact: the same networks, patches, steps, seed and codebook size. Then the methods take
turns in training steps, and their programs on XNNPACK. ``RUNS`` keeps everything: what is done there already
is not done again, and what was broken off goes on. With ``--docs`` the table and a picture of
reconstructions are written for the documentation.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks import _machine
from benchmarks._runs import trained
from benchmarks._turns import in_turns

if TYPE_CHECKING:
    from edge_sdk.bundle import Bundle
    from edge_sdk.models.scq._task import ScqTask
    from edge_sdk.profiling.interleave import Comparison

TARGET, RUNTIME = "xnnpack-cpu", "executorch"
METHODS = {
    "no quantizer": ("quantizer=none",),
    "VQ (vector-quantize-pytorch)": ("quantizer=vq_reference",),
    "SCQ relaxed": ("quantizer=scq", "solver=relaxed"),
    "SCQ exact": ("quantizer=scq", "solver=exact"),
}
VQ, EXACT = "VQ (vector-quantize-pytorch)", "SCQ exact"
ROUNDS = 15
SLOWEST = 2.0
"""A training step of SCQ takes so many times VQ's at most."""


@dataclass(frozen=True)
class Settings:
    """What to train.

    Attributes:
        runs: The folder of all runs.
        task: food_ar or nav_ar.
        epochs: Of each run, None for the system's own number.
        more: Other settings, as ``KEY=VALUE``, for all methods alike.
    """

    runs: Path
    task: str
    epochs: int | None
    more: tuple[str, ...]

    def folder(self, method: str) -> Path:
        """Where a method's run lies."""
        name = method.partition(" (")[0].replace(" ", "-").lower()
        return self.runs / f"{self.task}-{name}"

    def overrides(self, method: str) -> list[str]:
        """What a method is trained with."""
        epochs = [] if self.epochs is None else [f"epochs={self.epochs}"]
        return [f"task={self.task}", *METHODS[method], *epochs, *self.more]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is not done yet and prints the table.

    Args:
        argv: The command line without the program's name, None for the process's own.

    Returns:
        0 where SCQ exact has a smaller error than VQ in a training step of at most twice VQ's, else 4.
    """
    args = _arguments(argv)
    settings = Settings(args.runs.absolute(), args.task, args.epochs, tuple(args.set))
    settings.runs.mkdir(parents=True, exist_ok=True)
    best = {
        method: trained(settings.folder(method), "scq", settings.overrides(method), _say)["best"] for method in METHODS
    }
    if busy := _machine.busy():
        _say(f"warning: {busy}")
    tasks = {method: _task(settings, method) for method in METHODS}
    steps = _steps(tasks)
    rows = _rows(best, steps, _latencies(settings))
    text = _table(settings, tasks[EXACT], rows)
    print(text)
    (settings.runs / f"{settings.task}.json").write_text(json.dumps(rows, indent=2) + "\n")
    picture = settings.runs / f"{settings.task}_reconstructions.png"
    _draw(picture, tasks, best)
    if args.docs is not None:
        args.docs.mkdir(parents=True, exist_ok=True)
        (args.docs / f"scq_results_{settings.task}.md").write_text(text + "\n")
        (args.docs / f"scq_{settings.task}.png").write_bytes(picture.read_bytes())
    is_better = best[EXACT]["mse"] < best[VQ]["mse"]
    return 0 if is_better and rows[EXACT]["step_ratio"] <= SLOWEST else 4


def _task(settings: Settings, method: str) -> ScqTask:
    """What was trained, with the weights of its last epoch."""
    import torch

    from edge_sdk.models.scq._config import Config
    from edge_sdk.models.scq._system import ScqSystem
    from edge_sdk.models.scq._task import ScqTask
    from edge_sdk.training.config import read_config

    folder = settings.folder(method)
    config = ScqSystem().config(read_config(folder / "config.yaml"))
    assert isinstance(config, Config)
    task = ScqTask(config, lambda _: None)
    task.load_state_dict(torch.load(folder / "last.ckpt", weights_only=True)["state_dict"])
    return task


def _steps(tasks: dict[str, ScqTask]) -> Comparison:
    """Training steps of the methods, in turns."""
    import torch

    from edge_sdk.models.scq._loader import collate
    from edge_sdk.profiling.interleave import compare_rounds
    from edge_sdk.training.memory import kept_memory
    from edge_sdk.training.seeds import generator

    def step(task: ScqTask, optimizer: torch.optim.Optimizer) -> float:
        begin = perf_counter()
        task.loss(batch, generator(0)).backward()
        optimizer.step()
        optimizer.zero_grad()
        return perf_counter() - begin

    sides: dict[str, Callable[[], float]] = {}
    for name in sorted(tasks, key=lambda name: name != VQ):  # VQ first: ratios are to it
        task = tasks[name].train()
        batch = collate([task.train_patches[0, number] for number in range(task.settings.data.batch_size)])
        # So small a rate that the weights stay those of the trained network.
        sides[name] = partial(step, task, torch.optim.AdamW(task.parameters(), 1e-9))
    with kept_memory():
        in_turns(sides, 1, lambda _: None)
        times = in_turns(sides, ROUNDS, lambda line: _say(f"training steps: {line}"))
    return compare_rounds([[[one * 1e3] for one in times[side]] for side in sides])


def _latencies(settings: Settings) -> dict[str, float]:
    """Milliseconds of encoder, quantizer and decoder together, the programs taking turns."""
    import edge_sdk
    from edge_sdk.devices import open_device
    from edge_sdk.profiling.interleave import interleave
    from edge_sdk.schema import load_target

    def bundle(method: str) -> Bundle:
        model = {"checkpoint": str(settings.folder(method) / "best.pt"), "task": settings.task}
        out = settings.folder(method) / "bundle"
        return edge_sdk.compile("scq", TARGET, runtime=RUNTIME, settings=model, out=out, progress=_say)

    bundles = {method: bundle(method) for method in METHODS}
    with open_device("local") as here:
        found = interleave(list(bundles.values()), here, load_target(TARGET), progress=_say)
    return dict(zip(bundles, found.medians_ms, strict=True))


def _rows(best: dict[str, Any], steps: Comparison, latencies: dict[str, float]) -> dict[str, dict[str, float]]:
    """Each method's figures by name."""
    order = sorted(METHODS, key=lambda name: name != VQ)
    rows = {}
    for place, method in enumerate(order):
        ratio = steps.ratios[place]
        rows[method] = {
            **best[method],
            "step_ms": steps.medians_ms[place],
            "step_ratio": ratio.value,
            "step_ratio_low": ratio.ci95[0],
            "step_ratio_high": ratio.ci95[1],
            "latency_ms": latencies[method],
        }
    return {method: rows[method] for method in METHODS}


def _table(settings: Settings, task: ScqTask, rows: dict[str, dict[str, float]]) -> str:
    """The figures as Markdown."""
    chosen = task.settings
    size, photos = chosen.data.size, task.about()["photos"]
    lines = [
        f"`task={settings.task}`: {photos['train']} photos to train on, {photos['val']} others that the "
        f"{chosen.data.val_patches} patches of {size} x {size} to judge with are cut from. {chosen.epochs} epochs of "
        f"{chosen.data.patches} patches, {chosen.codebook.num_codes} codes that are {chosen.network.latent_dim} wide, "
        f"stride {chosen.network.stride}, `scq_lambda={chosen.scq_lambda:g}`, seed {chosen.seed}. "
        "On the device both SCQs are the same program but for their weights: a fixed number of iterations "
        "towards the optimum.",
        "",
        "| Method | MSE | PSNR, dB | SSIM | Quantization error | Perplexity | Codes of a latent | Bits a pixel "
        "| PSNR at these bits, dB | Training step, ms | of VQ's | On device, ms |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for method, row in rows.items():
        of_codes = ["", ""] if "perplexity" not in row else [f"{row['perplexity']:.1f}", f"{row['support_size']:.1f}"]
        coded = f"{row['psnr_coded']:.2f}" if "psnr_coded" in row else f"{row['psnr']:.2f}"
        interval = f"({row['step_ratio_low']:.2f} to {row['step_ratio_high']:.2f})"
        cells = [
            method,
            f"{row['mse']:.5f}",
            f"{row['psnr']:.2f}",
            f"{row['ssim']:.3f}",
            f"{row['quantization_error']:.4f}",
            *of_codes,
            f"{row['bits_per_pixel']:.3f}",
            coded,
            f"{row['step_ms']:.0f}",
            "1" if method == VQ else f"{row['step_ratio']:.2f} {interval}",
            f"{row['latency_ms']:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _draw(path: Path, tasks: dict[str, ScqTask], best: dict[str, Any]) -> None:
    """The same patches to judge with, reconstructed by each method."""
    import torch

    from edge_sdk.models._images import spread
    from edge_sdk.models.scq._loader import collate, floats
    from edge_sdk.models.scq._pictures import draw_reconstructions

    patches = tasks[EXACT].val_patches
    images = floats(collate([patches[0, number] for number in spread(len(patches), 8)])["images"])
    rows = {}
    with torch.no_grad():
        for method, task in tasks.items():
            name = f"{method.replace(' (', chr(10) + '(')}\n{best[method]['psnr']:.2f} dB"
            rows[name] = task.eval().network(images)[0]
    title = (
        f"{tasks[EXACT].settings.task}: patches of photos that no method was trained on, and what each makes of them"
    )
    draw_reconstructions(path, images, rows, title, maps=False)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reconstruction", description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=Path, metavar="RUNS", help="the folder of all runs; what is done there is kept")
    parser.add_argument("--task", choices=("food_ar", "nav_ar"), default="food_ar", help="which photos (food_ar)")
    parser.add_argument("--epochs", type=int, metavar="N", help="epochs of each run (the system's own number)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="another setting, for all methods alike"
    )
    parser.add_argument("--docs", type=Path, metavar="DIR", help="write the table and the picture there, too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
