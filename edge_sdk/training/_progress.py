"""Says how far training is: a line for each epoch, and one now and then within long ones."""

from __future__ import annotations

import time
from typing import Any

from edge_sdk.training._lightning import pl
from edge_sdk.training.base import Say
from edge_sdk.training.task import Task

_EVERY_S = 30.0


class Progress(pl.Callback):
    """Tells a function what happens.

    Args:
        say: Is called with one line at a time.
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._told = 0.0
        self._begun = 0.0
        self._steps = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Starts the epoch's clock."""
        del trainer, pl_module
        self._told = self._begun = time.monotonic()
        self._steps = 0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Tells the step, where the last line is old."""
        self._steps += 1
        now = time.monotonic()
        if now - self._told >= _EVERY_S:
            self._told = now
            of = trainer.num_training_batches
            left = (now - self._begun) / self._steps * (of - self._steps)
            self._say(
                f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}: step {self._steps} of {of}, "
                f"loss {pl_module.epoch_loss():.4f}, {_duration(left)} left of the epoch"
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Task) -> None:
        """Tells the epoch's loss and score."""
        took = time.monotonic() - self._begun
        left = took * ((trainer.max_epochs or 0) - trainer.current_epoch - 1)
        score = pl_module.metrics.get(pl_module.score, float("nan"))
        self._say(
            f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}: loss {pl_module.epoch_loss():.4f}, "
            f"{pl_module.score} {score:.4f}, {_duration(took)}" + (f", about {_duration(left)} left" if left else "")
        )


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
