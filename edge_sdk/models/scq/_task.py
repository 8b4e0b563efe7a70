"""Soft Convex Quantization in training: the autoencoder, its patches, loss and metrics.

Shapes: b batch, c channels, s pixels of a side, d width of a latent, k codes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from edge_sdk._files import write_atomic
from edge_sdk.models import _images
from edge_sdk.models.scq import _data
from edge_sdk.models.scq._config import Config
from edge_sdk.models.scq._loader import Batch, FixedPatches, TrainPatches, floats, loader
from edge_sdk.models.scq._metrics import Totals
from edge_sdk.models.scq._pictures import draw_reconstructions, sheet
from edge_sdk.models.scq._reference_vq import ReferenceVQ, as_plain
from edge_sdk.models.scq.autoencoder import SCQAutoencoder, compute_loss, randomly_initialised
from edge_sdk.models.scq.layer import SCQLayer
from edge_sdk.models.scq.statistics import quantized_weights
from edge_sdk.training._lightning import TensorBoardLogger
from edge_sdk.training.base import Say
from edge_sdk.training.task import Task

PICTURE = "reconstructions.png"
VAL_SEED = 0
"""Of the places of the patches to judge with, the same whatever the run's seed."""

_SHOWN = 8


class ScqTask(Task):
    """An autoencoder in training.

    Args:
        config: The run's settings.
        say: Is called with a line as each stage starts.

    Raises:
        EdgeSdkError: The photos are missing or do not fit, or a package is not installed.
    """

    score = "psnr"

    def __init__(self, config: Config, say: Say) -> None:
        super().__init__(config)
        self.settings = config
        say("reading the photos")
        self.photos = {split: _read(config, split) for split in ("train", "val")}
        chosen = config.data
        self.train_patches = TrainPatches(self.photos["train"], chosen.patches, chosen.flip, config.seed)
        self.val_patches = FixedPatches(self.photos["val"].fixed(chosen.val_patches, VAL_SEED))
        self.network = build(config).train()  # Lightning leaves modules in the mode that they come in
        if config.trainer.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parts: dict[str, Tensor] = {}
        self._totals = self._none()
        self._shown: dict[int, tuple[Tensor, Tensor]] = {}
        self._to_show = set(_images.spread(chosen.val_patches, _SHOWN))

    def loss(self, batch: Batch, draw: torch.Generator) -> Tensor:
        """The loss of a batch of patches."""
        images = floats(batch["images"])
        # What the codebook draws (its first codes, vectors for dead ones) is the same for a resumed run.
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(draw.initial_seed())
            found, z, z_q, stats = self.network(images)
        weights = self.settings.loss
        loss, self.parts = compute_loss(
            found,
            images,
            z,
            z_q,
            stats,
            commitment_weight=weights.commitment,
            entropy_weight=weights.entropy,
        )
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """The loss of a step, whose parts are logged.

        Raises:
            ModelError: The loss is infinite or not a number.
        """
        loss = super().training_step(batch, batch_idx)
        self.log_dict({f"train/{name}": part for name, part in self.parts.items() if name != "loss"})
        return loss

    def names(self, batch: Batch) -> list[str]:
        """The batch's patches, by number."""
        return [f"patch {int(number)}" for number in batch["numbers"]]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Counts a batch."""
        del batch_idx
        images = floats(batch["images"])
        z = self.network.encode(images)
        z_q, weights, stats = self.network.weigh(z)
        found = self.network.decode(z_q).float()
        self._totals.add(images, found, self._coded(z_q, weights, found), z.float(), z_q.float(), weights, stats)
        for number, image, one in zip(batch["numbers"].tolist(), images, found, strict=True):
            if number in self._to_show:
                self._shown[number] = (image.cpu(), one.cpu())

    def on_validation_epoch_end(self) -> None:
        """The metrics over all patches, on all devices."""
        self.metrics = self._totals.metrics(self._gathered)
        self.log_dict({f"val/{name}": value for name, value in self.metrics.items()})
        if isinstance(self.logger, TensorBoardLogger):
            writer, step = self.logger.experiment, self.current_epoch + 1
            writer.add_image("val/reconstructions", sheet(*self._pictured()), step)
            if len(shares := self._totals.shares()):
                writer.add_histogram("val/code_use", shares, step)
        self._totals = self._none()

    def draw(self, folder: Path) -> None:
        """Draws patches to judge with, their reconstructions and the errors, as ``reconstructions.png``."""
        originals, found = self._pictured()
        chosen = self.settings
        kind = f"scq, {chosen.solver}" if chosen.quantizer == "scq" else chosen.quantizer
        figures = self.metrics
        title = (
            f"{chosen.task}, {kind}: PSNR {figures['psnr']:.2f} dB, SSIM {figures['ssim']:.3f}, "
            f"MSE {figures['mse']:.5f}, {figures['bits_per_pixel']:.2f} bits a pixel"
        )
        draw_reconstructions(folder / PICTURE, originals, {"reconstruction": found}, title)

    def save_weights(self, path: Path, facts: Mapping[str, str | int | float | bool]) -> None:
        """Writes a state dict, and which photos it was trained on.

        Raises:
            StorageError: The disk is full or not ours.
        """
        del facts
        state = as_plain(self.network) if self._is_reference else self.network.state_dict()
        weights = {name: value.detach().cpu().contiguous() for name, value in state.items()}
        data = {"data": self.settings.data.root, "task": self.settings.task}
        buffer = io.BytesIO()
        torch.save({"state_dict": weights, "trained_on": data}, buffer)
        write_atomic(path, buffer.getvalue())

    def about(self) -> dict[str, Any]:
        """What was trained on what, and the photos that could not be used."""
        chosen = self.settings
        return {
            "task": chosen.task,
            "quantizer": chosen.quantizer,
            "photos": {split: len(photos.levels) for split, photos in self.photos.items()},
            "skipped": {split: photos.unusable for split, photos in self.photos.items()},
        }

    def undecayed(self) -> Iterable[nn.Parameter]:
        """Codes that are learned by gradient."""
        return [parameter for name, parameter in self.network.named_parameters() if name.endswith("codebook.codes")]

    def train_dataloader(self) -> DataLoader:
        """Patches of the epoch."""
        return self._loader(self.train_patches)

    def val_dataloader(self) -> DataLoader:
        """Patches in the order of their numbers."""
        return self._loader(self.val_patches)

    @property
    def _is_reference(self) -> bool:
        return isinstance(self.network.quantizer, ReferenceVQ)

    def _loader(self, patches: TrainPatches | FixedPatches) -> DataLoader:
        devices = self.trainer.world_size
        return loader(patches, max(1, self.settings.data.batch_size // devices), devices, self.trainer.global_rank)

    def _none(self) -> Totals:
        return Totals(isinstance(self.network.quantizer, SCQLayer), self.settings.network.stride)

    def _coded(self, z_q: Tensor, weights: Tensor, found: Tensor) -> Tensor:
        """The reconstruction from weights as a file would hold them; an index is held as it is."""
        quantizer = self.network.quantizer
        if not isinstance(quantizer, SCQLayer):
            return found
        rows = quantized_weights(weights) @ quantizer.codebook.codes
        batch, width, height, across = z_q.shape
        z_coded = rows.reshape(batch, height, across, width).permute(0, 3, 1, 2)
        return self.network.decode(z_coded.to(z_q.dtype)).float()

    def _gathered(self, value: Tensor) -> Tensor:
        return self.all_gather(value) if self.trainer.world_size > 1 else value[None]  # type: ignore[return-value]

    def _pictured(self) -> tuple[Tensor, Tensor]:
        """A few patches to judge with and their reconstructions, ``[n, 3, s, s]`` each."""
        originals, found = zip(*(self._shown[number] for number in sorted(self._shown)), strict=True)
        return torch.stack(originals), torch.stack(found)


def build(config: Config) -> SCQAutoencoder:
    """The autoencoder of a run before its first step.

    Raises:
        MissingDependencyError: The package of the reference quantizer is not installed.
    """
    is_reference = config.quantizer == "vq_reference"
    network = randomly_initialised(
        config.seed,
        latent_dim=config.network.latent_dim,
        num_codes=config.codebook.num_codes,
        scq_lambda=config.scq_lambda,
        hidden=config.network.hidden,
        stride=config.network.stride,
        quantizer="vq" if is_reference else config.quantizer,
        solver=config.solver,
        anchor=config.anchor,
        ema_decay=config.codebook.ema_decay,
    )
    if is_reference:
        network.quantizer = ReferenceVQ(network.quantizer.codebook)  # type: ignore[assignment,union-attr]
    return network


def _read(config: Config, split: _data.Split) -> _data.Photos:
    chosen = config.data
    paths = _data.files(chosen.root, config.task, split)
    return _data.read(
        [paths[place] for place in _images.spread(len(paths), chosen.photos or len(paths))],
        chosen.size,
        chosen.cache_mib,
    )
