"""Trains a system: settings in, a run's folder out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_sdk.errors import ModelError
from edge_sdk.training import SYSTEMS, _ranks, _tracking
from edge_sdk.training._checkpoint_io import AtomicCheckpointIO
from edge_sdk.training._lightning import EarlyStopping, Logger, MisconfigurationException, pl
from edge_sdk.training._progress import Progress
from edge_sdk.training._run_folder import CONFIG, LAST, RunFolder, read_metrics, start
from edge_sdk.training.base import Say, Sweeping, System
from edge_sdk.training.config import RunConfig, TrainerSettings, compose, read_config
from edge_sdk.training.faults import mapped
from edge_sdk.training.memory import kept_memory
from edge_sdk.training.task import Task

_MAY_CHANGE = ("data.root", "data.workers", "data.cache_mib", "trainer.")
"""Settings that a resumed run may change: they do not decide its result."""


@dataclass(frozen=True)
class Result:
    """What a run gave.

    Attributes:
        folder: The run's folder.
        weights: The best epoch's weights; of a sweep, those of its first run.
        metrics: What ``metrics.json`` holds; of a sweep, a row for each run as ``sweep``.
        is_first: Whether this process speaks for all of the run.
    """

    folder: Path
    weights: Path
    metrics: dict[str, Any]
    is_first: bool


def train(
    name: str,
    overrides: Sequence[str],
    out: Path,
    *,
    file: Path | None = None,
    resume: bool = False,
    say: Say = lambda _: None,
) -> Result:
    """Trains a system.

    Args:
        name: Its name in `SYSTEMS`.
        overrides: Settings as ``KEY=VALUE``.
        out: The run's folder.
        file: A YAML file of settings, which ``overrides`` go before; not together with ``resume``.
        resume: Go on with the run in that folder.
        say: Is called with a line as each stage starts.

    Raises:
        EdgeSdkError: The system, a setting, the data or the disk does not allow it.
    """
    system: System = SYSTEMS.load(name)()
    config = _resumed(system, overrides, out) if resume else system.config(compose(system.conf, overrides, file))
    if isinstance(system, Sweeping) and (variants := system.variants(config)):
        return _sweep(system, variants, config, out, resume, say)
    return _run(system, config, out, resume, say)


def _run(system: System, config: RunConfig, out: Path, resume: bool, say: Say) -> Result:
    """One run, unless it has ended already."""
    _tracking.check(config)
    if _ranks.is_first() and not (resume and (out / CONFIG).exists()):
        start(out, config)
    if not (resume and read_metrics(out).get("finished")):
        with mapped(out), _quiet(), kept_memory():
            _fit(system, config, out, resume, say)
    metrics = read_metrics(out)
    return Result(out, out / metrics["weights"], metrics, _ranks.is_first())


def _sweep(
    system: Any, variants: Mapping[str, RunConfig], config: RunConfig, out: Path, resume: bool, say: Say
) -> Result:
    """A run for each variant in a folder of its own; with ``resume`` those that have ended are left as they are."""
    if _ranks.is_first() and not resume:
        start(out, config)
    results: dict[str, Result] = {}
    rows: list[dict[str, Any]] = []
    for place, (name, chosen) in enumerate(variants.items(), 1):
        before = f"{name} ({place} of {len(variants)}): "
        results[name] = _run(system, chosen, out / name, resume, lambda line, before=before: say(before + line))
        if _ranks.is_first():
            rows = system.summarise(out, {one: result.metrics for one, result in results.items()})
    return Result(out, next(iter(results.values())).weights, {"sweep": rows}, _ranks.is_first())


def _resumed(system: System, overrides: Sequence[str], out: Path) -> RunConfig:
    """The settings of the run in a folder."""
    if not (out / CONFIG).exists():
        raise ModelError(f"{out} holds no run to resume: it has no {CONFIG}. Start one without --resume.")
    values = read_config(out / CONFIG)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.startswith(_MAY_CHANGE):
            raise ModelError(
                f"--resume goes on with the settings of {out / CONFIG}: leave out '{override}'. Only "
                f"{', '.join(one.rstrip('.') for one in _MAY_CHANGE)} may change."
            )
        _set(values, key, text)
    return system.config(values)


def _set(values: dict[str, Any], key: str, text: str) -> None:
    import yaml

    group, _, name = key.partition(".")
    values[group] = {**values.get(group, {}), name: yaml.safe_load(text)}


def _fit(system: System, config: RunConfig, out: Path, resume: bool, say: Say) -> None:
    pl.seed_everything(config.seed, workers=True, verbose=False)
    with _tracking.tracked(config, out) as loggers:
        say("reading the data")
        task = system.task(config, say)
        folder = RunFolder(out)
        trainer = _trainer(config, task, folder, out, loggers, say)
        last = out / LAST if resume and (out / LAST).exists() else None
        say(f"training for {config.total_epochs} epochs" if last is None else f"going on from {last}")
        try:
            trainer.fit(task, ckpt_path=last, weights_only=True)
        except SystemExit:
            if isinstance(folder.stopped, KeyboardInterrupt):
                if (out / LAST).exists():
                    say("stopped; the run goes on after its last whole epoch with --resume")
                raise folder.stopped from None
            raise


def _trainer(
    config: RunConfig, task: Task, folder: RunFolder, out: Path, loggers: list[Logger], say: Say
) -> pl.Trainer:
    chosen = config.trainer
    callbacks: list[pl.Callback] = [Progress(say), folder] if _ranks.is_first() else [folder]
    if config.early_stop.patience:
        stop = EarlyStopping(
            f"val/{task.score}",
            min_delta=config.early_stop.min_delta,
            patience=config.early_stop.patience,
            mode="max",
            check_on_train_epoch_end=True,
        )
        callbacks.insert(0, stop)
    try:
        return pl.Trainer(
            accelerator=chosen.accelerator,
            devices=chosen.devices,
            strategy=chosen.strategy,
            precision=precision(chosen),
            max_epochs=config.total_epochs,
            logger=loggers,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            default_root_dir=out,
            deterministic=chosen.deterministic or None,
            benchmark=not chosen.deterministic,
            use_distributed_sampler=False,
            enable_checkpointing=True,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=10,
        )
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        raise ModelError(f"the trainer's settings do not fit this machine: {error}") from error


def precision(chosen: TrainerSettings) -> Any:
    """The numbers to train in: 16 bits on a GPU, with bfloat16 where it has that, 32 on a processor."""
    import torch

    if chosen.precision != "auto":
        return chosen.precision
    if chosen.accelerator == "cpu" or not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"


@contextmanager
def _quiet() -> Iterator[None]:
    """Lets the root logger decide which of Lightning's lines are shown."""
    loggers = [logging.getLogger(name) for name in ("lightning", "lightning.pytorch", "lightning.fabric")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.NOTSET)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
