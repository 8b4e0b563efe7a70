"""Photo tagging in training: the network, its data, loss and metrics.

Shapes: b batch, c classes, n images of the validation split, s pixels of a side.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from edge_sdk._files import write_atomic
from edge_sdk.errors import ModelError
from edge_sdk.models._checkpoint import fill, read_state_dict
from edge_sdk.models.photo_tagging import losses
from edge_sdk.models.photo_tagging._advice import advice
from edge_sdk.models.photo_tagging._augment import augment, normalise
from edge_sdk.models.photo_tagging._config import Config, LossSettings
from edge_sdk.models.photo_tagging._data import Skips, TaggingData, evenly
from edge_sdk.models.photo_tagging._loader import Batch, Photos, default_workers, keep_if_small, loader
from edge_sdk.models.photo_tagging.embedded import data_root
from edge_sdk.models.photo_tagging.resnet import ResNet, randomly_initialised
from edge_sdk.profiling.multilabel import metrics
from edge_sdk.training.base import Say
from edge_sdk.training.task import Task

_FIRST_STEPS_BATCH = 128
"""How many photos decide LSQ's first step sizes."""


class TaggingTask(Task):
    """A tagger in training, in FP32 or with LSQ's quantizers.

    Args:
        config: The run's settings.
        say: Is called with a line as each stage starts.

    Raises:
        EdgeSdkError: Weights or data are missing or do not fit.
    """

    score = "map"

    def __init__(self, config: Config, say: Say) -> None:
        super().__init__(config)
        self.settings = config
        self.weights_file = "best.lsq.pt" if config.method == "lsq" else "best.pt"
        data = TaggingData(data_root(config.data.root), calibration_images=0, eval_images=0)
        self.photos = {
            split: Photos(index, config.data.size, config.seed)
            for split, index in (("train", data.train), ("val", data.val))
        }
        self.skips = {split: Skips(f"{split} images", len(photos)) for split, photos in self.photos.items()}
        keep_if_small({self.photos[split]: self.skips[split] for split in self.photos}, config.data.cache_mib)
        for split, photos in self.photos.items():
            if not photos.index.labels.any():
                raise ModelError(f"{data.root}: no image to {split} has any category: there is nothing to learn from.")
        self.categories = data.categories
        # What LSQ distils from. In a tuple it is no part of this module: it is neither trained nor saved.
        self._teacher: tuple[nn.Module] | None = None
        self.network = self._network(say).train()  # Lightning leaves modules in the mode that they come in
        if config.trainer.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._criterion = _criterion(config.loss)
        self._found: list[tuple[Tensor, Tensor]] = []

    def loss(self, batch: Batch, draw: torch.Generator) -> Tensor | None:
        """The loss of a batch of augmented photos."""
        self._note("train", batch)
        if not len(batch["indices"]):
            return None
        with torch.autocast(self.device.type, enabled=False):
            images = augment(batch["images"], self.settings.data.size, self.settings.augment, draw)
        logits = self.network(images).float()
        loss = self._criterion(logits, batch["labels"])
        if self._teacher is None:
            return loss
        share = self.settings.lsq.distillation
        return (1 - share) * loss + share * losses.binary_cross_entropy(logits, self._taught(images))

    def names(self, batch: Batch) -> list[str]:
        """The batch's files."""
        files = self.photos["train"].index.files
        return [files[int(number)].name for number in batch["indices"]]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keeps the probabilities of a batch."""
        del batch_idx
        self._note("val", batch)
        probabilities = torch.sigmoid(self.network(normalise(batch["images"])).float())
        self._found.append((batch["indices"], probabilities))

    def on_validation_epoch_end(self) -> None:
        """The metrics over all photos that could be read, on all devices."""
        numbers, probabilities = (torch.cat(found) for found in zip(*self._found, strict=True))
        self._found = []
        labels = self.photos["val"].index.labels
        # Several devices repeat some photos, so that each has as many.
        scattered = torch.full(labels.shape, -1.0, device=probabilities.device)
        scattered[numbers] = probabilities
        if self.trainer.world_size > 1:
            scattered = self.all_gather(scattered).amax(0)  # type: ignore[union-attr]
        values = scattered.cpu().numpy()
        read = values[:, 0] >= 0
        self.metrics = metrics(values[read], labels[read])
        self.log_dict({f"val/{name}": value for name, value in self.metrics.items()})

    def save_weights(self, path: Path, facts: Mapping[str, str | int | float | bool]) -> None:
        """Writes a state dict in FP32, or an LSQ checkpoint.

        Raises:
            StorageError: The disk is full or not ours.
        """
        if isinstance(self.network, ResNet):
            state = {name: value.detach().cpu().contiguous() for name, value in self.network.state_dict().items()}
            buffer = io.BytesIO()
            torch.save(state, buffer)
            write_atomic(path, buffer.getvalue())
            return
        chosen = self.settings
        about = {"variant": chosen.model, "num_classes": len(self.categories), "input_size": chosen.data.size}
        self.network.save(path, **about, **facts)  # type: ignore[operator]

    def about(self) -> dict[str, Any]:
        """The network, its tags, and the images that could not be read."""
        skipped = {split: [path.name for path in skips.reasons] for split, skips in self.skips.items()}
        return {"variant": self.settings.model, "categories": list(self.categories), "skipped": skipped}

    def undecayed(self) -> Iterable[nn.Parameter]:
        """LSQ's steps."""
        return () if isinstance(self.network, ResNet) else self.network.steps()  # type: ignore[operator]

    def train_dataloader(self) -> DataLoader:
        """Photos in the order of the epoch."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader:
        """Photos in the order of their numbers."""
        return self._loader("val")

    def _loader(self, split: str) -> DataLoader:
        devices, workers = self.trainer.world_size, self.settings.data.workers
        if workers < 0:
            workers = default_workers(self.device.type == "cuda", self.trainer.num_devices)
        batch = max(1, self.settings.data.batch_size // devices)
        return loader(self.photos[split], batch, workers, devices, self.trainer.global_rank)

    def _note(self, split: str, batch: Batch) -> None:
        for path, reason in batch["faults"]:
            self.skips[split].add(path, reason)

    def _taught(self, images: Tensor) -> Tensor:
        """What the FP32 network says of images: probabilities ``[b, c]``."""
        (teacher,) = self._teacher  # type: ignore[misc]
        with torch.no_grad():
            return torch.sigmoid(teacher.to(images.device)(images).float())

    def _network(self, say: Say) -> nn.Module:
        config = self.settings
        if config.method == "lsq":
            return self._quantized(say)
        if not config.checkpoint:
            return randomly_initialised(config.model, len(self.categories), config.seed)
        return _filled(config.model, len(self.categories), config.checkpoint)

    def _quantized(self, say: Say) -> nn.Module:
        """The network with LSQ's quantizers, whose first steps a batch of photos without augmentation decides."""
        from edge_sdk.quantization.lsq import LsqNetwork, Recipe

        config, chosen = self.settings, self.settings.lsq
        recipe = Recipe(
            chosen.weight_bits,
            chosen.activation_bits,
            chosen.edges,
            chosen.per_channel,
            chosen.start,
            chosen.outputs,
        )
        filled = _filled(config.model, len(self.categories), chosen.checkpoint)
        size = config.data.size
        if chosen.distillation:
            self._teacher = (filled.eval(),)
        network = LsqNetwork(filled, torch.zeros(1, 3, size, size), recipe)
        say("setting the first step sizes")
        photos = Photos(self.photos["train"].index, size, config.seed)
        photos.is_training = False
        batch = photos.collate([photos[0, number] for number in evenly(len(photos), _FIRST_STEPS_BATCH)])
        network.initialise(normalise(batch["images"]))
        return network


def _filled(variant: str, num_classes: int, checkpoint: str) -> ResNet:
    path = Path(checkpoint).expanduser()
    state = read_state_dict(path)
    network = ResNet(variant, num_classes)
    fill(network, state, f"checkpoint {path}", _hint(state, variant, num_classes))
    return network


def _hint(state: Mapping[str, Tensor], variant: str, num_classes: int) -> str:
    """What to do where weights do not fit."""
    told = advice(state, variant, num_classes)
    if "--set" not in told:
        return told
    holds = told.partition(": give ")[0]
    if state["fc.weight"].shape[0] != num_classes:
        return f"{holds}, and the data has {num_classes}: give weights that were trained on these categories."
    return f"{holds}: give model={holds.split()[3]}."


def _criterion(chosen: LossSettings) -> losses.Loss:
    if chosen.name == "focal":
        return functools.partial(losses.focal, gamma=chosen.gamma, alpha=chosen.alpha)
    if chosen.name == "asymmetric":
        return functools.partial(
            losses.asymmetric, gamma_neg=chosen.gamma_neg, gamma_pos=chosen.gamma_pos, clip=chosen.clip
        )
    return losses.binary_cross_entropy
