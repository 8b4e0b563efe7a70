"""SVQ in training: first the autoencoder, then, on its frozen codes, the prior."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge_sdk._files import write_atomic
from edge_sdk.errors import ModelError
from edge_sdk.models._checkpoint import fill, read_state_dict
from edge_sdk.models.svq import _pictures
from edge_sdk.models.svq._config import Config
from edge_sdk.models.svq._report import code_counts, codes_and_objects, perplexities
from edge_sdk.models.svq.data import LabelledImages, get_data_sets
from edge_sdk.models.svq.metrics import fg_ari, mean_iou
from edge_sdk.models.svq.network import SVQ, EncoderToCodes
from edge_sdk.models.svq.prior import AutoregressiveTransformer
from edge_sdk.training.seeds import generator
from edge_sdk.training.task import Phase, Task

_PRIOR = "prior."
_LARGEST_BATCH = 256
"""Images that are turned into codes at once."""
_SHOWN = 8
"""Images in the picture of slots."""
_GENERATED = (4, 8)
"""Rows and columns of the picture of generated images."""


class SvqTask(Task):
    """The network and its images, which lie in memory on the device that trains.

    Args:
        config: The run's settings.

    Raises:
        EdgeSdkError: Data is missing, or sizes do not fit.
    """

    score = "psnr"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.settings = config
        self.network = _network(config).train()  # Lightning leaves modules in the mode that they come in
        if config.trainer.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.data = {
            "dataset_name": config.data.name,
            "image_size": config.data.size,
            "max_shapes": config.data.max_shapes,
            "seed": config.seed,
            "root": config.data.root,
        }
        sizes = {"num_samples": config.data.num_samples, "val_samples": config.data.val_samples}
        train, self.truth = get_data_sets(**self.data, **sizes)  # type: ignore[arg-type]
        if len(train) < config.data.batch_size:
            raise ModelError(
                f"{config.data.root or config.data.name} has {len(train)} images to train on, fewer than a batch: give "
                f"data.batch_size={len(train)} or less."
            )
        self.images = {"train": _bytes(train), "val": _bytes(self.truth)}
        self.labels = torch.from_numpy(self.truth.labels).long()
        self._order = torch.empty(0)
        self._found: list[dict[str, Tensor]] = []
        # What the last validation of the autoencoder found, image by image, and its figures once they stay.
        self._last: dict[str, Tensor] = {}
        self._frozen: dict[str, float] = {}
        # The codes of each split, once the autoencoder is frozen, for the prior to learn.
        self._codes: dict[str, Tensor] = {}
        self._told: dict[str, Any] | None = None

    def on_fit_start(self) -> None:
        """Takes the images to the device."""
        self.images = {name: images.to(self.device) for name, images in self.images.items()}
        self.labels = self.labels.to(self.device)

    def train_dataloader(self) -> range:
        """The numbers of an epoch's batches; `loss` cuts them out of the images."""
        return range(len(self.images["train"]) // self.settings.data.batch_size)

    def val_dataloader(self) -> range:
        """The numbers of the batches."""
        return range(-(-len(self.images["val"]) // self.settings.data.batch_size))

    def on_train_epoch_start(self) -> None:
        """Shuffles the images; freezes the autoencoder where the prior's turn has come."""
        super().on_train_epoch_start()
        draw = generator(self.settings.seed, self.current_epoch)
        self._order = torch.randperm(len(self.images["train"]), generator=draw).to(self.device)
        if self.current_epoch >= self.settings.epochs and not self._codes:
            self._freeze()

    def loss(self, batch: int, draw: torch.Generator) -> Tensor:
        """The loss of the autoencoder, or of the prior in its phase."""
        torch.manual_seed(draw.initial_seed())  # first slots, new codes and dropout: the same for a resumed run
        numbers = self._numbers(batch)
        if self._codes:
            loss, terms = self._prior().compute_loss(self._codes["train"][numbers])
        else:
            self._warm_up()
            chosen = self.settings.training
            images = self._images("train", numbers)
            loss, terms = self.network.compute_loss(
                images, self.network(images), chosen.recon_loss_weight, chosen.commitment_loss_weight
            )
        self.log_dict({f"train/{name}": value for name, value in terms.items() if name != "loss"})
        return loss

    def names(self, batch: int) -> list[str]:
        """The batch's images, by number."""
        return [f"image {number}" for number in self._numbers(batch).tolist()]

    def validation_step(self, batch: int, batch_idx: int) -> None:
        """Keeps what the autoencoder makes of a batch, unless it is frozen and that is known."""
        del batch_idx
        if self._frozen:
            return
        size = self.settings.data.batch_size
        images = self._images("val", slice(batch * size, (batch + 1) * size))
        outputs = self.network(images)
        errors = (outputs["recon"].clamp(0, 1) - images).square().flatten(1).mean(1)
        found = {"errors": errors, "predicted": outputs["masks"][:, :, 0].argmax(1)}
        self._found.append(found | ({"codes": outputs["indices"]} if "indices" in outputs else {}))

    def on_validation_epoch_end(self) -> None:
        """The metrics over all images."""
        if not self._frozen:
            self._last = {name: torch.cat([one[name] for one in self._found]) for name in self._found[0]}
            self._found = []
            self.metrics = self._metrics()
        if self._codes:
            self._frozen = self._frozen or self.metrics
            self.metrics = {**self._frozen, "bits_per_image": self._bits_of_prior()}
        self.log_dict({f"val/{name}": value for name, value in self.metrics.items()})

    def is_better(self, found: Mapping[str, float], best: Mapping[str, float]) -> bool:
        """By the PSNR; in the prior's phase, where that stays, by how well it tells the codes."""
        if found["epoch"] <= self.settings.epochs:
            return super().is_better(found, best)
        return best["epoch"] <= self.settings.epochs or found["bits_per_image"] < best["bits_per_image"]

    def phases(self) -> list[Phase]:
        """The autoencoder, then the prior."""
        settings, prior = self.settings, self.network.prior
        autoencoder = [value for name, value in self.network.named_parameters() if not name.startswith(_PRIOR)]
        phases = [Phase(autoencoder, settings.optimizer.lr, settings.epochs)]
        if prior is not None:
            phases.append(Phase(list(prior.parameters()), settings.prior.learning_rate, settings.prior.epochs))
        return phases

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Scales the gradients of a step down to the largest norm that the settings allow."""
        if norm := self.settings.training.gradient_clip:
            self.clip_gradients(optimizer, norm, "norm")

    def save_weights(self, path: Path, facts: Mapping[str, str | int | float | bool]) -> None:
        """Writes weights and sizes, and the data that they are for; the prior's only once it has learned.

        Raises:
            StorageError: The disk is full or not ours.
        """
        content = self.network.checkpoint()
        state = {name: value.detach().cpu().contiguous() for name, value in content["state_dict"].items()}
        if not self._codes:
            state = {name: value for name, value in state.items() if not name.startswith(_PRIOR)}
            content["settings"]["prior"] = None
        buffer = io.BytesIO()
        torch.save({**content, "state_dict": state, "data": self.data, "facts": dict(facts)}, buffer)
        write_atomic(path, buffer.getvalue())

    def about(self) -> dict[str, Any]:
        """The network's size, its data, and what the codes of the best epoch say of the objects."""
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        return {"parameters": parameters, "data": self.data, "codes": self._told}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what was found of the best epoch for a resumed run."""
        checkpoint["codes"] = self._told

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over what `on_save_checkpoint` kept."""
        self._told = checkpoint["codes"]

    @torch.no_grad()
    def draw(self, folder: Path) -> None:
        """Slots and the use of the codes, or in the prior's phase generated images; the same for TensorBoard.

        Raises:
            StorageError: The disk is full or not ours.
        """
        if self._codes:
            draw = torch.Generator(self.device).manual_seed(self.settings.seed)
            made = self.network.generate(math.prod(_GENERATED), generator=draw)
            self._show(folder, "generated", _pictures.grid(made.unflatten(0, _GENERATED).unbind(1)))
            return
        images = self._images("val", slice(_SHOWN))
        self.network.eval()
        outputs = self.network(images)
        self.network.train()
        self._show(folder, "masks", _pictures.slots_picture(images, outputs["recon"], outputs["masks"]))
        if "codes" in self._last:
            codes = self._last["codes"]
            counts = self._counts(codes)
            _pictures.save_codes(folder / "codes.png", counts.cpu().numpy(), perplexities(counts).tolist())
            for block, used in enumerate(codes.flatten(0, 1).unbind(1), 1):
                self._board().add_histogram(f"codes/codebook_{block}", used, self.global_step)
            self._told = codes_and_objects(self.truth, self._last["predicted"], codes)

    def _show(self, folder: Path, name: str, picture: Any) -> None:
        _pictures.save(folder / f"{name}.png", picture)
        self._board().add_image(name, picture, self.global_step, dataformats="HWC")

    def _board(self) -> Any:
        board: Any = self.logger
        return board.experiment

    def _prior(self) -> AutoregressiveTransformer:
        assert self.network.prior is not None
        return self.network.prior

    def _numbers(self, batch: int) -> Tensor:
        size = self.settings.data.batch_size
        return self._order[batch * size : (batch + 1) * size]

    def _images(self, split: str, which: Tensor | slice) -> Tensor:
        """Images of a split in [0, 1]."""
        return self.images[split][which].float() / 255

    def _warm_up(self) -> None:
        """Sets how far slots are moved to their codes: not at all first, then step by step all the way."""
        if self.network.quantizer is None:
            return
        chosen, steps_per_epoch = self.settings.training, len(self.train_dataloader())
        begun = self.global_step + 1 - chosen.quantizer_start * steps_per_epoch
        steps = max(1.0, chosen.quantizer_warmup * steps_per_epoch)
        self.network.quantizer.set_strength(min(1.0, max(0.0, begun / steps)))

    @torch.no_grad()
    def _freeze(self) -> None:
        """Takes the best autoencoder, and turns all images into codes."""
        if self.current_epoch == self.settings.epochs:
            path = Path(self.trainer.default_root_dir) / self.weights_file
            untrained = {name: value for name, value in self.network.state_dict().items() if name.startswith(_PRIOR)}
            fill(self.network, {**read_state_dict(path), **untrained}, f"the run's best autoencoder, {path},")
        self.network.eval()
        encoder = EncoderToCodes(self.network)
        for split, images in self.images.items():
            batches = range(0, len(images), _LARGEST_BATCH)
            codes = [encoder(self._images(split, slice(begin, begin + _LARGEST_BATCH))) for begin in batches]
            self._codes[split] = torch.cat(codes)
        self._prior().train()

    def _metrics(self) -> dict[str, float]:
        """Of the autoencoder, from what its validation kept."""
        errors, predicted = self._last["errors"], self._last["predicted"]
        index, several = fg_ari(self.labels, predicted), self.labels.flatten(1).amax(1) > 1
        found = {
            "psnr": float(-10 * errors.clamp(min=1e-10).log10().mean()),
            "mse": float(errors.mean()),
            # A single object leaves nothing to tell apart: one stray pixel of it makes an index of 0.
            "fg_ari": float(index[several].nanmean()),
            "fg_ari_all": float(index.nanmean()),
            "ari": float(fg_ari(self.labels + 1, predicted).nanmean()),
            "miou": float(mean_iou(self.labels, predicted).nanmean()),
        }
        if "codes" not in self._last:
            return found
        counts = self._counts(self._last["codes"])
        perplexity, usage = perplexities(counts), (counts > 0).double().mean(1)
        found |= {"perplexity": float(perplexity.mean()), "usage": float(usage.mean())}
        for block, (one, used) in enumerate(zip(perplexity.tolist(), usage.tolist(), strict=True), 1):
            found |= {f"perplexity_{block}": one, f"usage_{block}": used}
        return found | {"bits_per_image": self.settings.model.num_slots * float(perplexity.log2().sum())}

    def _counts(self, codes: Tensor) -> Tensor:
        return code_counts(codes, self.settings.model.codebook_size)

    def _bits_of_prior(self) -> float:
        """The prior's cross-entropy of the codes of an image."""
        codes, prior = self._codes["val"], self._prior()
        nats = sum(float(prior.compute_loss(some)[0]) * len(some) for some in codes.split(_LARGEST_BATCH))
        return nats / len(codes) * prior.num_tokens / math.log(2)


def _network(config: Config) -> SVQ:
    network = SVQ(image_size=config.data.size, **config.model.model_dump())
    if config.prior.enabled:
        network.init_prior(**config.prior.model_dump(exclude={"enabled", "epochs", "learning_rate"}))
    return network


def _bytes(images: LabelledImages) -> Tensor:
    """All of them, uint8 ``[n, 3, s, s]``."""
    return torch.from_numpy(images.images).permute(0, 3, 1, 2).contiguous()
