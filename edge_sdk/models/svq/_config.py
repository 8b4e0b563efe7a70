"""The settings of a training run; ``conf/`` holds their defaults, with a comment for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from edge_sdk.errors import ModelError
from edge_sdk.training.config import EarlyStop, NotNegative, Optimizer, Positive, RunConfig, Settings, TrainerSettings

Count = Annotated[int, Field(ge=1, le=1024)]

_ACCELERATORS = {"auto": "auto", "cpu": "cpu", "cuda": "gpu"}
"""Words for ``device`` to Lightning's."""


class Data(Settings):
    """Which images, how many and how large."""

    name: Literal["shapes", "dsprites", "scenes", "folder"]
    root: str
    size: Annotated[int, Field(ge=16, le=512)]
    batch_size: Annotated[int, Field(ge=1)]
    num_samples: Annotated[int, Field(ge=2)]
    val_samples: Annotated[int, Field(ge=2)]
    max_shapes: Annotated[int, Field(ge=1, le=16)]

    @model_validator(mode="after")
    def _complete(self) -> Data:
        if self.name == "folder" and not self.root:
            raise ValueError("root is empty; give data.root=PATH of a folder with images/ and masks/")
        if self.name != "folder" and self.root:
            raise ValueError(f"root is '{self.root}', and {self.name} are made here; give data=folder, or no data.root")
        return self


class ModelSettings(Settings):
    """The autoencoder."""

    num_slots: Annotated[int, Field(ge=1, le=64)]
    num_iterations: Annotated[int, Field(ge=1, le=16)]
    slot_size: Count
    hidden_dim: Count
    num_codebooks: Annotated[int, Field(ge=1, le=64)]
    codebook_size: Annotated[int, Field(ge=2, le=65_536)]
    code_dim: Count
    commitment_cost: NotNegative
    quantize: Literal["inside", "after", "none"]
    decoder: Literal["cnn", "transformer"]
    init: Literal["random", "learned"]


class Training(Settings):
    """The loss, and what keeps the first steps steady."""

    recon_loss_weight: Positive
    commitment_loss_weight: NotNegative
    gradient_clip: NotNegative
    quantizer_start: NotNegative
    quantizer_warmup: NotNegative


class Prior(Settings):
    """The transformer that says which codes come next, trained once the autoencoder is."""

    enabled: bool
    epochs: Annotated[int, Field(ge=1, le=100_000)]
    learning_rate: Positive
    embed_dim: Count
    num_heads: Annotated[int, Field(ge=1, le=64)]
    num_layers: Annotated[int, Field(ge=1, le=64)]
    dropout: Annotated[float, Field(ge=0, lt=1)]


class Ablation(Settings):
    """Several runs, each with one component changed."""

    enabled: bool
    epochs: Annotated[int, Field(ge=1, le=100_000)]
    only: list[str]


class Config(RunConfig):
    """All of them."""

    data: Data
    model: ModelSettings
    training: Training
    prior: Prior
    ablation: Ablation
    optimizer: Optimizer
    early_stop: EarlyStop
    trainer: TrainerSettings

    @property
    def total_epochs(self) -> int:
        """The autoencoder's and then the prior's."""
        return self.epochs + (self.prior.epochs if self.prior.enabled else 0)

    @model_validator(mode="after")
    def _together(self) -> Config:
        if self.prior.enabled and self.model.quantize == "none":
            raise ValueError("model.quantize=none leaves no codes for a prior to learn; give prior.enabled=false")
        if self.prior.enabled and self.early_stop.patience:
            raise ValueError(
                "early_stop.patience would end the run before its prior is trained; give prior.enabled=false, or "
                "early_stop.patience=0"
            )
        self.trainer.check_one_device("svq")
        return self


def without_short_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by their own names alone: ``device`` and ``training.learning_rate`` stand for others.

    Args:
        values: What Hydra composed, where both stand, or what a run's folder holds.

    Raises:
        ModelError: ``device`` is none of the known words.
    """
    kept = dict(values)
    device = kept.pop("device", "auto")
    if device not in _ACCELERATORS:
        raise ModelError(f"device is {device!r}; expected one of {', '.join(_ACCELERATORS)}.")
    if isinstance(trainer := kept.get("trainer"), Mapping):
        accelerator = trainer.get("accelerator")
        kept["trainer"] = {**trainer, "accelerator": _ACCELERATORS.get(str(accelerator), accelerator)}
    if isinstance(training := kept.get("training"), Mapping):
        kept["training"] = {key: value for key, value in training.items() if key != "learning_rate"}
    return kept
