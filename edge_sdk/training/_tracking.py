"""Where the figures of a run go: TensorBoard's files, and Weights & Biases where it is asked for."""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_sdk._files import write_atomic
from edge_sdk.errors import MissingDependencyError, ModelError, first_line
from edge_sdk.training import _ranks
from edge_sdk.training._lightning import Logger, TensorBoardLogger, WandbLogger
from edge_sdk.training._run_folder import TENSORBOARD
from edge_sdk.training.config import RunConfig

PROJECT = "edge-sdk"
WANDB = "wandb"
_DISABLED = "disabled"


def check(config: RunConfig) -> None:
    """Refuses what cannot be tracked here.

    Raises:
        MissingDependencyError: Weights & Biases is asked for and not installed.
    """
    if config.trainer.wandb != _DISABLED and importlib.util.find_spec("wandb") is None:
        raise MissingDependencyError(
            f"trainer.wandb is {config.trainer.wandb}, and Weights & Biases is not installed: "
            "pip install 'edge-sdk[wandb]', or leave trainer.wandb out."
        )


@contextmanager
def tracked(config: RunConfig, out: Path) -> Iterator[list[Logger]]:
    """The loggers of a run; TensorBoard's is the first.

    Args:
        config: The run's settings.
        out: Its folder.

    Raises:
        ModelError: Weights & Biases takes no run.
    """
    found: list[Logger] = [TensorBoardLogger(out, name="", version=TENSORBOARD)]
    if config.trainer.wandb == _DISABLED or not _ranks.is_first():
        yield found
        return
    run = _wandb_run(config, out)
    code = 1
    try:
        yield [*found, WandbLogger(experiment=run, save_dir=out, project=PROJECT)]
        code = 0
    finally:
        run.finish(exit_code=code)


def _wandb_run(config: RunConfig, out: Path) -> Any:
    """The run at Weights & Biases, the same one where it is resumed."""
    import wandb

    known = out / WANDB / "id"
    if not known.exists():
        write_atomic(known, secrets.token_hex(8))
    try:
        return wandb.init(
            project=PROJECT,
            name=out.name,
            id=known.read_text("utf-8"),
            resume="allow",
            dir=out,
            mode=config.trainer.wandb,  # type: ignore[arg-type]
            config=config.model_dump(mode="json"),
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )
    except wandb.Error as error:
        raise ModelError(
            f"Weights & Biases takes no run: {first_line(error)} Log in with 'wandb login', or give "
            "trainer.wandb=offline and send the files later with 'wandb sync'."
        ) from error
