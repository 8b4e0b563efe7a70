"""Captioning in training: the decoder learns words for places that a frozen encoder gave once.

Shapes: b batch, t words of a caption with start and end, p places of an image, c channels.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_sdk._files import write_atomic
from edge_sdk.errors import ModelError
from edge_sdk.models._features import features, weights_identity
from edge_sdk.models.captioning._config import Config
from edge_sdk.models.captioning._data import Captioned, Split, captioned
from edge_sdk.models.captioning.decoder import AttentionDecoder
from edge_sdk.models.captioning.encoders import PlacesEncoder
from edge_sdk.models.captioning.metrics import bleu, cider
from edge_sdk.models.captioning.network import Captioner, caption_places
from edge_sdk.models.captioning.vocabulary import Vocabulary
from edge_sdk.training.base import Say
from edge_sdk.training.seeds import generator
from edge_sdk.training.task import Phase, Task

_SHOWN = 12


class CaptioningTask(Task):
    """A captioner in training.

    Args:
        config: The run's settings.
        say: Is called with a line as each stage starts.

    Raises:
        EdgeSdkError: Weights or photos are missing or do not fit.
    """

    score = "cider"
    encoded_splits: ClassVar[tuple[Split, ...]] = ("train", "val")
    """Of which places are encoded once."""

    def __init__(self, config: Config, say: Say) -> None:
        super().__init__(config)
        self.settings = config
        data = config.data
        self.photos: dict[Split, list[Captioned]] = {
            "train": captioned(data.root, "train", data.views, config.seed, data.subset),
            "val": captioned(data.root, "val", 1, config.seed, data.subset),
        }
        if len(self.photos["train"]) < data.batch_size:
            raise ModelError(
                f"there are {len(self.photos['train'])} squares to train on, fewer than a batch: give "
                f"data.batch_size={len(self.photos['train'])} or less."
            )
        self.say = say
        encoder, self.decoder, self.vocabulary = self.networks()
        self.encoder = [encoder]  # not among the weights
        self.decoder.train()
        self.weights = weights_identity(encoder)
        self.places: dict[Split, np.ndarray] = {split: self.encoded(split) for split in self.encoded_splits}
        self._order = torch.empty(0)
        self._losses_found: list[Tensor] = []
        self._said: list[str] = []

    def networks(self) -> tuple[PlacesEncoder, AttentionDecoder, Vocabulary]:
        """What is trained, and the words of the captions.

        Raises:
            EdgeSdkError: Weights are missing or do not fit.
        """
        chosen, sizes = self.settings.encoder, self.settings.decoder
        said = dict.fromkeys(caption for photo in self.photos["train"] for caption in photo.captions)
        vocabulary = Vocabulary.of(said, self.settings.data.least_count)
        path = Path(chosen.checkpoint).expanduser() if chosen.checkpoint else None
        encoder = PlacesEncoder(chosen.name, chosen.image_size, path, self.settings.seed)
        decoder = AttentionDecoder(
            len(vocabulary), encoder.dim, sizes.embed_dim, sizes.attention_dim, sizes.decoder_dim, sizes.dropout
        )
        return encoder, decoder, vocabulary

    def encoded(self, split: Split) -> np.ndarray:
        """The places of all squares of a split, kept on disk."""
        photos = self.photos[split]
        self.say(f"encoding {len(photos)} squares of photos ({split})")
        return features(self.encoder[0], self.weights, [photo.view for photo in photos], self.say)

    def captioner(self) -> Captioner:
        """Encoder and decoder as they are."""
        return Captioner(self.encoder[0], self.decoder, self.vocabulary)

    def train_dataloader(self) -> range:
        """The numbers of an epoch's batches; `loss` cuts them out of the squares."""
        return range(len(self.photos["train"]) // self.settings.data.batch_size)

    def val_dataloader(self) -> range:
        """The numbers of the batches."""
        return range(-(-len(self.photos["val"]) // self.settings.data.batch_size))

    def on_train_epoch_start(self) -> None:
        """Shuffles the squares."""
        super().on_train_epoch_start()
        draw = generator(self.settings.seed, self.current_epoch)
        self._order = torch.randperm(len(self.photos["train"]), generator=draw)

    def loss(self, batch: int, draw: torch.Generator) -> Tensor:
        """The cross-entropy of the words of a caption of each square, and how unevenly its places were looked at.

        Source of the second: Xu et al., arXiv 1502.03044, equation 14, as a mean over the places.
        """
        torch.manual_seed(draw.initial_seed())  # dropout: the same for a resumed run
        numbers = self.numbers(batch)
        return self.caption_loss(self.places_of("train", numbers), numbers, draw)

    def caption_loss(self, places: Tensor, numbers: list[int], draw: torch.Generator) -> Tensor:
        """That of squares whose places are known."""
        photos = [self.photos["train"][number] for number in numbers]
        picks = torch.rand(len(photos), generator=draw).tolist()
        said = [photo.captions[int(pick * len(photo.captions))] for photo, pick in zip(photos, picks, strict=True)]
        words, uneven = self._loss(places, said, self.settings.loss.smoothing)
        self.log_dict({"train/words": words.detach(), "train/uneven": uneven.detach()})
        return words + self.settings.loss.attention * uneven

    def names(self, batch: int) -> list[str]:
        """The batch's photos."""
        return [str(self.photos["train"][number].view.path) for number in self.numbers(batch)]

    def validation_step(self, batch: int, batch_idx: int) -> None:
        """Captions a batch, and scores the words of its first references."""
        del batch_idx
        size = self.settings.data.batch_size
        numbers = list(range(batch * size, min((batch + 1) * size, len(self.photos["val"]))))
        places = self.places_of("val", numbers)
        self._said += caption_places(self.decoder, self.vocabulary, places, most=self.settings.decoder.longest)
        first = [self.photos["val"][number].captions[0] for number in numbers]
        self._losses_found.append(self._loss(places, first)[0].cpu() * len(numbers))

    def on_validation_epoch_end(self) -> None:
        """The metrics over all photos."""
        wanted = [photo.captions for photo in self.photos["val"]]
        self.said, self._said = self._said, []
        self.metrics = {
            "cider": float(np.mean(cider(self.said, wanted))),
            **{f"bleu_{order}": bleu(self.said, wanted, order) for order in (1, 4)},
            "nats_per_word": float(torch.stack(self._losses_found).sum()) / len(wanted),
        }
        self._losses_found = []
        self.log_dict({f"val/{name}": value for name, value in self.metrics.items()})

    def phases(self) -> list[Phase]:
        """The decoder."""
        return [Phase(list(self.decoder.parameters()), self.settings.optimizer.lr, self.settings.epochs)]

    def save_weights(self, path: Path, facts: Mapping[str, str | int | float | bool]) -> None:
        """Writes encoder, decoder and vocabulary.

        Raises:
            StorageError: The disk is full or not ours.
        """
        buffer = io.BytesIO()
        torch.save({**self.captioner().checkpoint(), "data": self.settings.data.root, "facts": dict(facts)}, buffer)
        write_atomic(path, buffer.getvalue())

    def draw(self, folder: Path) -> None:
        """Photos to judge with, and what is said of them.

        Raises:
            StorageError: The disk is full or not ours.
        """
        from edge_sdk.models.captioning._pictures import save_captions

        save_captions(folder / "captions.png", self.photos["val"][:_SHOWN], self.said[:_SHOWN])

    def about(self) -> dict[str, Any]:
        """The data, and what the last epoch said."""
        counts = {split: len(photos) for split, photos in self.photos.items()}
        about = {"name": self.encoder[0].name, "image_size": self.encoder[0].image_size}
        return {"encoder": about, "words": len(self.vocabulary), "squares": counts}

    def _loss(self, places: Tensor, said: list[str], smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """The mean cross-entropy of a word, and the mean squared distance of what a place got from 1."""
        most = self.settings.decoder.longest
        rows = [torch.tensor(self.vocabulary.encode(caption, most)) for caption in said]
        captions = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.vocabulary.pad)
        captions = captions.to(places.device)
        scores, shares = self.decoder(places, captions)
        wanted = captions[:, 1:]
        words = F.cross_entropy(
            scores.flatten(0, 1).float(),
            wanted.flatten(),
            ignore_index=self.vocabulary.pad,
            label_smoothing=smoothing,
        )
        spoken = (wanted != self.vocabulary.pad)[:, :, None]
        length = spoken.sum(1)
        # A place gets as much over a caption as all others where its sum is length / places.
        uneven = ((shares * spoken).sum(1) * shares.shape[2] / length - 1).square().mean()
        return words, uneven

    def numbers(self, batch: int) -> list[int]:
        """The squares of a batch."""
        size = self.settings.data.batch_size
        return self._order[batch * size : (batch + 1) * size].tolist()

    def places_of(self, split: Split, numbers: list[int]) -> Tensor:
        """Places ``[b, p, c]``."""
        return torch.from_numpy(self.places[split][numbers].astype(np.float32)).to(self.device)
