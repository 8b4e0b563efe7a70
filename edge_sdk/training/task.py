"""What is trained: a Lightning module that knows its data, its score and how its weights are written."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from edge_sdk.training._lightning import pl
from edge_sdk.training.config import RunConfig
from edge_sdk.training.faults import no_number
from edge_sdk.training.seeds import generator


@dataclass(frozen=True)
class Phase:
    """Epochs in which some parameters learn, with a rise and a fall of the learning rate of their own.

    Attributes:
        parameters: What learns.
        lr: The highest learning rate.
        epochs: How long.
    """

    parameters: list[nn.Parameter]
    lr: float
    epochs: int


class Task(pl.LightningModule):
    """One network in training.

    Args:
        config: The run's settings.

    Attributes:
        metrics: What the last validation found, by name.
    """

    score: ClassVar[str]
    """Which of the metrics decides which epoch is the best; larger is better."""
    weights_file: str = "best.pt"
    """Name of the best weights in the run's folder."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.config = config
        self.metrics: dict[str, float] = {}
        self._losses: list[Tensor] = []

    @abstractmethod
    def loss(self, batch: Any, draw: torch.Generator) -> Tensor | None:
        """The loss of a batch, None where nothing of it could be read.

        Args:
            batch: What the loader gave.
            draw: Random numbers for the augmentation, the same for a resumed run.
        """

    @abstractmethod
    def names(self, batch: Any) -> list[str]:
        """The inputs of a batch, for messages."""

    @abstractmethod
    def save_weights(self, path: Path, facts: Mapping[str, str | int | float | bool]) -> None:
        """Writes the weights, whole or not at all.

        Args:
            path: The file.
            facts: What is to be known of them.

        Raises:
            StorageError: The disk is full or not ours.
        """

    def draw(self, folder: Path) -> None:
        """Draws what the network has learned, after each epoch that is the best so far.

        Args:
            folder: Where pictures go; to be made where there is one to write.

        Raises:
            StorageError: The disk is full or not ours.
        """

    def about(self) -> dict[str, Any]:
        """What else ``metrics.json`` holds of a run."""
        return {}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """The loss of a step.

        Raises:
            ModelError: The loss is infinite or not a number.
        """
        draw = generator(self.config.seed, self.current_epoch, batch_idx, self.global_rank)
        loss = self.loss(batch, draw)
        if loss is None:
            return None
        if not torch.isfinite(loss):
            raise no_number(float(loss.detach()), self.current_epoch, self.global_step, self.names(batch))
        self._losses.append(loss.detach())
        self.log("train/loss", loss.detach())
        return loss

    def on_train_epoch_start(self) -> None:
        """Forgets the losses of the last epoch."""
        self._losses = []

    def epoch_loss(self) -> float:
        """The mean loss of the epoch's steps so far, on this device; NaN before the first."""
        return float(torch.stack(self._losses).mean()) if self._losses else math.nan

    def learning_rate(self) -> float:
        """That of the next step."""
        return max(float(group["lr"]) for group in self.trainer.optimizers[0].param_groups)

    def is_better(self, found: Mapping[str, float], best: Mapping[str, float]) -> bool:
        """Whether an epoch is better than the best one before it, given the figures of both."""
        return found[self.score] > best[self.score]

    def phases(self) -> list[Phase]:
        """What learns when, one after the other."""
        return [Phase(list(self.parameters()), self.config.optimizer.lr, self.config.total_epochs)]

    def undecayed(self) -> Iterable[nn.Parameter]:
        """Parameters that get no weight decay, beside biases and scales, which have a single dimension."""
        return ()

    def configure_optimizers(self) -> Any:
        """The optimizer that the settings name, whose learning rate changes with every step."""
        chosen = self.config.optimizer
        phases = self.phases()
        steps_per_epoch = int(self.trainer.estimated_stepping_batches) / sum(phase.epochs for phase in phases)
        groups, rates, begin = [], [], 0
        for phase in phases:
            groups += [{**group, "lr": phase.lr} for group in self._groups(chosen.weight_decay, phase.parameters)]
            steps = round(steps_per_epoch * phase.epochs)
            warmup = round(steps * min(1.0, chosen.warmup_epochs / phase.epochs))
            rates += 2 * [partial(_rate_in_phase, begin=begin, steps=steps, warmup=warmup)]
            begin += steps
        if chosen.name == "sgd":
            optimizer = torch.optim.SGD(groups, chosen.lr, chosen.momentum, nesterov=chosen.nesterov)
        else:
            optimizer = torch.optim.AdamW(groups, chosen.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rates)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _groups(self, weight_decay: float, parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
        without = {id(parameter) for parameter in self.undecayed()}
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for parameter in parameters:
            groups[parameter.ndim > 1 and id(parameter) not in without].append(parameter)
        return [
            {"params": groups[True], "weight_decay": weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ]


def _rate_in_phase(step: int, begin: int, steps: int, warmup: int) -> float:
    return rate(step - begin, steps, warmup) if begin <= step else 0.0


def rate(step: int, steps: int, warmup: int) -> float:
    """The share of the learning rate at a step: a linear rise, then half a cosine down to 0.

    Args:
        step: From 0.
        steps: Steps of the whole run.
        warmup: Steps of the rise.

    Source: Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5, without restarts; Goyal et al.,
    "Accurate, Large Minibatch SGD", 2017, for the rise.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))
