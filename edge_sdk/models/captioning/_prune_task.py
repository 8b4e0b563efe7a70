"""A captioner that is pruned, and trained on: words by captions, places by what the whole encoder gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edge_sdk._files import write_atomic
from edge_sdk.errors import ModelError
from edge_sdk.models._checkpoint import load_plain
from edge_sdk.models._features import pixels
from edge_sdk.models.captioning._config import Config
from edge_sdk.models.captioning._data import Split
from edge_sdk.models.captioning._prune import prune_captioner
from edge_sdk.models.captioning._task import CaptioningTask
from edge_sdk.models.captioning.decoder import AttentionDecoder
from edge_sdk.models.captioning.encoders import PlacesEncoder
from edge_sdk.models.captioning.network import Captioner
from edge_sdk.models.captioning.vocabulary import Vocabulary
from edge_sdk.pruning import Masks, Recipe
from edge_sdk.training.base import Say
from edge_sdk.training.seeds import generator
from edge_sdk.training.task import Phase

_MOST_BYTES = 1 << 30
_ROUND = 32


class PruningTask(CaptioningTask):
    """A captioner that starts as a pruned one of a checkpoint; its zero weights stay zero.

    Args:
        config: The run's settings.
        say: Is called with a line as each stage starts.

    Raises:
        EdgeSdkError: The checkpoint or photos are missing or do not fit, or so much cannot be pruned.
    """

    encoded_splits = ("train",)

    def __init__(self, config: Config, say: Say) -> None:
        super().__init__(config, say)
        whole = self.captioner()
        self.sensitivity = None
        if config.prune.sensitivity:
            from edge_sdk.models.captioning._sensitivity import captioner_sensitivity

            self.sensitivity = captioner_sensitivity(whole, self.photos["val"], say)
        say(f"pruning by {config.prune.recipe}")
        pruned = prune_captioner(whole, Recipe.parse(config.prune.recipe))
        self.parameters_before = pruned.parameters_before
        self.student, self.decoder = pruned.captioner.encoder, pruned.captioner.decoder.train()
        if config.trainer.channels_last:
            self.student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._masks = Masks(pruned.captioner)
        self._pixels: dict[tuple[Split, int], np.ndarray] = {}
        # How much places differ from each other: what a distance from them is measured by.
        self._spread = float(np.asarray(self.places["train"][:_ROUND], np.float32).var())
        say("measuring batch normalisation anew")
        self._calibrate(config.prune.calibration_squares)
        self.student.requires_grad_(True)
        self.decoder.requires_grad_(True)

    def networks(self) -> tuple[PlacesEncoder, AttentionDecoder, Vocabulary]:
        """Those of the checkpoint.

        Raises:
            ModelError: It is missing or does not fit.
        """
        path = Path(self.settings.prune.checkpoint).expanduser()
        content = load_plain(path)
        if not isinstance(content, Mapping):
            raise ModelError(f"{path} is no checkpoint of 'edge-sdk train captioning'.")
        whole = Captioner.from_state(content, f"checkpoint {path}")
        whole.decoder.dropout.p = self.settings.decoder.dropout
        return whole.encoder, whole.decoder, whole.vocabulary

    def captioner(self) -> Captioner:
        """The pruned one, once it is there."""
        encoder = getattr(self, "student", self.encoder[0])
        return Captioner(encoder, self.decoder, self.vocabulary)

    def loss(self, batch: int, draw: torch.Generator) -> Tensor:
        """That of the captions, and how far the places are from the whole encoder's, as a share of their variance."""
        torch.manual_seed(draw.initial_seed())  # dropout: the same for a resumed run
        numbers = self.numbers(batch)
        places = self.places_of("train", numbers)
        wanted = torch.from_numpy(self.places["train"][numbers].astype(np.float32)).to(self.device)
        distance = (places - wanted).square().mean() / self._spread
        self.log("train/places", distance.detach())
        return self.caption_loss(places, numbers, draw) + self.settings.prune.distillation * distance

    def on_train_batch_end(self, outputs: Any, batch: int, batch_idx: int) -> None:
        """Keeps the weights at zero that pruning set to zero."""
        del outputs, batch, batch_idx
        self._masks.apply(self.captioner())

    def places_of(self, split: Split, numbers: list[int]) -> Tensor:
        """Places ``[b, p, c]`` by the pruned encoder, as it is."""
        return self.student(self._images(split, numbers).to(self.device))

    def phases(self) -> list[Phase]:
        """Encoder and decoder together."""
        both = [*self.student.parameters(), *self.decoder.parameters()]
        return [Phase(both, self.settings.optimizer.lr, self.settings.epochs)]

    def draw(self, folder: Path) -> None:
        """Photos with what is said of them, and how much each layer bears where that was asked for."""
        super().draw(folder)
        if self.sensitivity is not None and not (folder / "sensitivity.png").exists():
            from edge_sdk.pruning import sensitivity_picture

            sensitivity_picture(self.sensitivity, folder / "sensitivity.png", "Captioner: how much each layer bears")
            write_atomic(folder / "sensitivity.json", json.dumps(self.sensitivity.document(), indent=2) + "\n")

    def save_weights(self, path: Path, facts: Mapping[str, str | int | float | bool]) -> None:
        """Writes the pruned captioner, and the recipe among the facts.

        Raises:
            StorageError: The disk is full or not ours.
        """
        super().save_weights(path, {**facts, "pruned": self.settings.prune.recipe})

    def about(self) -> dict[str, Any]:
        """Also how much was pruned."""
        return {**super().about(), "pruning": self.pruning()}

    def pruning(self) -> dict[str, str | int]:
        """The recipe, and what it made of the captioner."""
        weights = self.captioner().state_dict().values()
        return {
            "recipe": self.settings.prune.recipe,
            "parameters_before": self.parameters_before,
            "parameters": sum(value.numel() for value in self.captioner().parameters()),
            "zeros": sum(int((value == 0).sum()) for value in weights if value.ndim > 1),
        }

    def _images(self, split: Split, numbers: list[int]) -> Tensor:
        """Squares of photos ``[b, 3, s, s]``, normalised; kept in memory as long as there are few."""
        encoder = self.encoder[0]
        found = []
        for number in numbers:
            key = split, number
            if (image := self._pixels.get(key)) is None:
                image = pixels(encoder, self.photos[split][number].view)[0]
                if (len(self._pixels) + 1) * image.nbytes <= _MOST_BYTES:
                    self._pixels[key] = image
            found.append(image)
        images = torch.from_numpy(np.stack(found))
        channels_last = self.settings.trainer.channels_last
        return images.contiguous(memory_format=torch.channels_last) if channels_last else images

    @torch.no_grad()
    def _calibrate(self, squares: int) -> None:
        """Measures the means and variances of batch normalisation with squares of photos."""
        count = min(squares, len(self.photos["train"]))
        chosen = torch.randperm(len(self.photos["train"]), generator=generator(self.settings.seed))[:count].tolist()
        layers = [one for one in self.student.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
        rates = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # the mean of all batches
            layer.training = True
        for begin in range(0, count, _ROUND):
            self.student(self._images("train", chosen[begin : begin + _ROUND]))
        for layer, rate in zip(layers, rates, strict=True):
            layer.momentum, layer.training = rate, False
