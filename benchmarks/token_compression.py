"""``python -m benchmarks.token_compression RUNS``: sets compressed tokens beside average pooling.

For each number of tokens compressors are trained from several seeds, and judged on photos that none was
trained on, beside what needs no training: averages, as many and as wide, which are the same bytes; at the same
bytes more averages of fewer numbers, their principal components, over whichever grid is best; and the
linear map that training starts from. ``RUNS`` keeps everything: what is done there already is not done
again, and what was broken off goes on. With ``--docs`` the table and a picture are written for the
documentation.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from benchmarks._runs import trained

if TYPE_CHECKING:
    from torch import Tensor

    from edge_sdk.models.token_compression._task import TokenCompressionTask

GRIDS = (12, 8, 6, 4)
SEEDS = 3
JUDGED_GRID, BETTER_BY = 6, 0.10
"""At so many tokens of a side the cosine similarity is to be so much above that of averages."""
AVERAGES, SAME_BYTES, LINEAR, COMPRESSED = "averages", "averages, same bytes", "linear", "compressed"
BYTES = 2
"""Of a number: all tokens are kept in 16 bits."""
CRITIC_STEPS, CRITIC_BATCH, CRITIC_RATE, CRITIC_WIDTH, CRITIC_LAYERS = 300, 32, 1e-3, 64, 2

Figures = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What to train.

    Attributes:
        runs: The folder of all runs.
        grids: Compressed tokens of a side.
        seeds: How many.
        more: Other settings, as ``KEY=VALUE``, for all runs alike.
    """

    runs: Path
    grids: tuple[int, ...]
    seeds: int
    more: tuple[str, ...]

    def folder(self, grid: int, seed: int) -> Path:
        """Where a run lies."""
        return self.runs / f"{grid * grid}-tokens-seed-{seed}"

    def overrides(self, grid: int, seed: int) -> list[str]:
        """What is trained."""
        return [f"model.compressor.output_grid_size={grid}", f"seed={seed}", *self.more]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is not done yet and prints the table.

    Args:
        argv: The command line without the program's name, None for the process's own.

    Returns:
        0 where 36 compressed tokens are as much better than averages as they are to be, else 4.
    """
    args = _arguments(argv)
    settings = Settings(args.runs.absolute(), tuple(args.grids), args.seeds, tuple(args.set))
    settings.runs.mkdir(parents=True, exist_ok=True)
    os.environ["EDGE_SDK_CACHE"] = str(settings.runs / "cache")  # the first run encodes, as on a new machine
    for grid in settings.grids:
        for seed in range(settings.seeds):
            trained(settings.folder(grid, seed), "token_compression", settings.overrides(grid, seed), _say)
    rows = {grid: _judged(settings, grid) for grid in settings.grids}
    text = table(rows, _about(settings))
    print(text)
    if args.docs is not None:
        args.docs.mkdir(parents=True, exist_ok=True)
        (args.docs / "token_compression_results.md").write_text(text + "\n")
        picture = settings.folder(_shown(settings), 0) / "pictures"
        (args.docs / "token_compression.png").write_bytes((picture / "tokens.png").read_bytes())
    return 0 if is_enough(rows) else 4


def is_enough(rows: dict[int, dict[str, Figures]]) -> bool:
    """Whether 36 compressed tokens are as much better than averages as they are to be."""
    found = rows.get(JUDGED_GRID)
    if found is None:
        return False
    averages, compressed = found[AVERAGES], found[COMPRESSED]
    return (
        mean(compressed["cosine"]) >= averages["cosine"] + BETTER_BY
        and mean(compressed["retrieval_agreement"]) > averages["retrieval_agreement"]
    )


def more_averages(known: Tensor, tokens: Tensor, grid: int, output_grid: int, numbers: int) -> Tensor:
    """Tokens as known from averages over a grid, of which only so many numbers are kept in all.

    Args:
        known: Tokens whose averages the principal components are those of, ``[i, n, d]``.
        tokens: ``[i, n, d]``.
        grid: Tokens of a side.
        output_grid: Averages of a side.
        numbers: How many; each average keeps its share of them.

    Returns:
        ``[i, n, d]``, each average repeated at the places that it stands for.
    """
    import torch

    from edge_sdk.models.token_compression import metrics

    kept = numbers // output_grid**2
    rows = metrics.pooled(known, grid, output_grid).flatten(0, 1)
    centre = rows.mean(0)
    directions = torch.linalg.eigh((rows - centre).T @ (rows - centre))[1][:, -kept:]
    found = metrics.pooled(tokens, grid, output_grid) - centre
    return found @ directions @ directions.T + centre


def _judged(settings: Settings, grid: int) -> dict[str, Figures]:
    """Each method's figures; those of compressed tokens are lists over the seeds."""
    kept = settings.runs / f"{grid * grid}-tokens-{settings.seeds}-seeds.json"
    if kept.exists():
        return json.loads(kept.read_text())
    import torch

    from edge_sdk.models import _images
    from edge_sdk.models.token_compression import metrics
    from edge_sdk.models.token_compression.grids import to_grid, to_tokens

    _say(f"judging {grid * grid} tokens")
    task = _task(settings.folder(grid, 0))
    known, tokens = (torch.from_numpy(task.tokens[name].astype("float32")) / task.scale for name in ("train", "val"))

    def average(given: Tensor) -> Tensor:
        return to_tokens(torch.nn.functional.avg_pool2d(to_grid(given, task.grid), task.grid // grid))

    def with_distance(found: Figures, compress: Callable[[Tensor], Tensor]) -> Figures:
        return {**found, "critic_distance": _distance(known, tokens, compress, task.grid, grid)}

    def through(decode: torch.nn.Module, compress: torch.nn.Module) -> Figures:
        with torch.no_grad():
            rebuilt = torch.cat([decode(compress(one)) for one in tokens.split(CRITIC_BATCH)])
        return with_distance(task.judged(rebuilt, tokens), compress)

    rows = {AVERAGES: with_distance(task.judged(metrics.pooled(tokens, task.grid, grid), tokens), average)}
    numbers, width = grid * grid * tokens.shape[2], tokens.shape[2]
    some = known[_images.spread(len(known), 256)]
    finer = [one for one in range(grid + 1, task.grid + 1) if task.grid % one == 0 and one * one <= numbers]
    tried = {one: task.judged(more_averages(some, tokens, task.grid, one, numbers), tokens) for one in finer}
    best = max(tried, key=lambda one: tried[one]["cosine"])
    rows[SAME_BYTES] = {**tried[best], "averages": best * best, "width": numbers // best**2}
    rows[LINEAR] = through(task.network["decoder"], task.compressor)
    found = []
    for seed in range(settings.seeds):
        state = torch.load(settings.folder(grid, seed) / "last.ckpt", weights_only=True)["state_dict"]
        task.load_state_dict(state)
        found.append(through(task.network["decoder"], task.compressor))
    rows[COMPRESSED] = {name: [one[name] for one in found] for name in found[0]}
    for row in rows.values():
        row["bytes"] = numbers * BYTES
    rows[AVERAGES]["width"] = rows[LINEAR]["width"] = rows[COMPRESSED]["width"] = width
    kept.write_text(json.dumps(rows, indent=2) + "\n")
    return rows


def _distance(
    known: Tensor, tokens: Tensor, compress: Callable[[Tensor], Tensor], grid: int, output_grid: int
) -> float:
    """By how much a critic that learned to tell a method's tokens from the encoder's scores the latter higher.

    Every method gets a critic of its own, of the same size and as many steps, on the same photos; the
    photos that it is asked about are others.
    """
    import torch

    from edge_sdk.models.token_compression import losses
    from edge_sdk.models.token_compression.critic import TokenCritic

    with torch.no_grad():
        compressed, asked = (
            torch.cat([compress(one) for one in given.split(CRITIC_BATCH)]) for given in (known, tokens)
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        critic = TokenCritic(tokens.shape[2], output_grid, CRITIC_WIDTH, CRITIC_LAYERS)
    optimizer = torch.optim.Adam(critic.parameters(), CRITIC_RATE, (0.0, 0.9))
    draw = torch.Generator().manual_seed(0)
    for _ in range(CRITIC_STEPS):
        numbers = torch.randint(len(known), (CRITIC_BATCH,), generator=draw)
        real, fake = losses.sampled(known[numbers], grid, output_grid, draw), compressed[numbers]
        loss = losses.critic_loss(critic(real), critic(fake)) + 10 * losses.gradient_penalty(critic, real, fake, draw)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        real = losses.sampled(tokens, grid, output_grid, draw)
        return float(critic(real).mean() - critic(asked).mean())


def _task(folder: Path) -> TokenCompressionTask:
    """What was trained, where its training began."""
    from edge_sdk.models.token_compression._config import Config
    from edge_sdk.models.token_compression._system import TokenCompressionSystem
    from edge_sdk.models.token_compression._task import TokenCompressionTask
    from edge_sdk.training.config import read_config

    config = TokenCompressionSystem().config(read_config(folder / "config.yaml"))
    assert isinstance(config, Config)
    return TokenCompressionTask(config, lambda _: None)


def table(rows: dict[int, dict[str, Figures]], about: str) -> str:
    """The figures as Markdown.

    Args:
        rows: Tokens of a side to each method's figures.
        about: What was trained on what.
    """
    lines = [
        about,
        "",
        "| Tokens | Method | Bytes | Cosine | Relative MSE | Critic distance | Retrieval agreement | Probe agreement |",
        "|---|---|---|---|---|---|---|---|",
    ]
    names = ("cosine", "relative_mse", "critic_distance", "retrieval_agreement", "probe_agreement")
    for grid, methods in rows.items():
        for method, figures in methods.items():
            label = {
                AVERAGES: "averages, repeated",
                SAME_BYTES: f"{figures.get('averages')} averages of {figures['width']} components",
                LINEAR: "components, where training starts",
                COMPRESSED: "**compressed tokens**",
            }[method]
            cells = [_cell(figures.get(name), 1 if name == "critic_distance" else 3) for name in names]
            lines.append(f"| {grid * grid} | {label} | {figures['bytes']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: float | list[float] | None, digits: int) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        spread = f" ± {stdev(value):.{digits}f}" if len(value) > 1 else ""
        return f"{mean(value):.{digits}f}{spread}"
    return f"{value:.{digits}f}"


def _about(settings: Settings) -> str:
    folder = settings.folder(settings.grids[0], 0)
    told = json.loads((folder / "metrics.json").read_text())
    epochs, encoder, squares = len(told["epochs"]), told["encoder"], told["squares"]
    return (
        f"Tokens of {encoder['name']}: {told['tokens']['encoder']} of {encoder['dim']} numbers. {squares['train']} "
        f"squares of photos to train on, {squares['val']} of other scenes to judge with; {epochs} epochs, the last "
        f"one's weights. Mean and standard deviation of {settings.seeds} seeds. Bytes are those of all tokens of an "
        "image, in 16 bits."
    )


def _shown(settings: Settings) -> int:
    return JUDGED_GRID if JUDGED_GRID in settings.grids else settings.grids[0]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.token_compression", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("runs", type=Path, metavar="RUNS", help="the folder of all runs; what is done there is kept")
    parser.add_argument(
        "--grids", type=int, nargs="+", default=GRIDS, metavar="G", help="compressed tokens of a side (12 8 6 4)"
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help=f"runs of each ({SEEDS})")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="another setting, for all runs alike"
    )
    parser.add_argument("--docs", type=Path, metavar="DIR", help="write the table and a picture there, too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
