"""A run's folder: best weights, last checkpoint, settings, metrics and TensorBoard's files.

```
DIR/config.yaml    the settings
DIR/metrics.json   each epoch and the best one
DIR/last.ckpt      all that --resume needs, after each epoch
DIR/best.pt        the weights of the best epoch
DIR/pictures/      what that epoch's network does, where its system draws
DIR/tensorboard/
DIR/wandb/         files of Weights & Biases, where trainer.wandb asks for them
```
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import yaml

from edge_sdk._files import write_atomic
from edge_sdk.errors import ModelError
from edge_sdk.training._lightning import Checkpoint, pl
from edge_sdk.training.config import RunConfig
from edge_sdk.training.task import Task

CONFIG, METRICS, LAST, TENSORBOARD, PICTURES = "config.yaml", "metrics.json", "last.ckpt", "tensorboard", "pictures"


def start(folder: Path, config: RunConfig) -> None:
    """Makes a new run's folder with its settings.

    Raises:
        ModelError: There is a run in it.
        StorageError: It cannot be written.
    """
    if (folder / CONFIG).exists():
        raise ModelError(f"{folder} holds a run already: give --resume to go on with it, or another folder.")
    write_atomic(folder / CONFIG, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def read_metrics(folder: Path) -> dict[str, Any]:
    """What ``metrics.json`` holds; an empty mapping where the first epoch has not ended.

    Raises:
        ModelError: It is damaged.
    """
    path = folder / METRICS
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}.") from error


class RunFolder(Checkpoint):
    """Writes the folder after each epoch. Lightning calls it last, after early stopping has decided.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.epochs: list[dict[str, float]] = []
        self.best: dict[str, float] | None = None
        self.stopped: BaseException | None = None
        self._begun = 0.0

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run knows of the epochs before."""
        return {"epochs": self.epochs, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        self.epochs, self.best = list(state_dict["epochs"]), state_dict["best"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Starts the epoch's clock."""
        del trainer, pl_module
        self._begun = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Task) -> None:
        """Writes the weights where they are the best so far, then the checkpoint, then the metrics.

        Raises:
            StorageError: The disk is full; what was written before is still there.
        """
        facts = {
            "epoch": trainer.current_epoch + 1,
            "loss": pl_module.epoch_loss(),
            "lr": pl_module.learning_rate(),
            "seconds": round(time.monotonic() - self._begun, 3),
            **pl_module.metrics,
        }
        # Some figures there may not be, such as one of images with several objects where no image has them.
        facts = {name: value for name, value in facts.items() if not math.isnan(value)}
        self.epochs.append(facts)
        is_best = self.best is None or pl_module.is_better(facts, self.best)
        if is_best:
            self.best = facts
            if trainer.is_global_zero:
                noted = {key: facts[key] for key in ("epoch", pl_module.score)}
                pl_module.save_weights(self.folder / pl_module.weights_file, noted)
                pl_module.draw(self.folder / PICTURES)
        trainer.save_checkpoint(self.folder / LAST)
        if trainer.is_global_zero:
            is_finished = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
            write_atomic(
                self.folder / METRICS,
                json.dumps(self._document(pl_module, is_finished), indent=2, allow_nan=False) + "\n",
            )

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Keeps what ended the run, for Lightning turns an interruption into another error."""
        del trainer, pl_module
        self.stopped = exception

    def _document(self, task: Task, is_finished: bool) -> dict[str, Any]:
        return {
            "score": task.score,
            "weights": task.weights_file,
            "finished": is_finished,
            **task.about(),
            "best": self.best,
            "epochs": self.epochs,
        }
