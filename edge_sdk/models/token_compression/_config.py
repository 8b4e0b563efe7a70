"""The settings of a training run; ``conf/`` holds their defaults, with a comment for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from edge_sdk.training.config import EarlyStop, NotNegative, Optimizer, Positive, RunConfig, Settings, TrainerSettings

Layers = Annotated[int, Field(ge=1, le=16)]
Width = Annotated[int, Field(ge=1, le=8192)]


class Data(Settings):
    """Where the photos lie, and how much of them is taken."""

    root: str
    views: Annotated[int, Field(ge=1, le=1000)]
    use_subset: bool
    subset_size: Annotated[int, Field(ge=2)]


class Clip(Settings):
    """The encoder."""

    model_name: Annotated[str, Field(min_length=1)]
    freeze: bool
    layer: Annotated[int, Field(le=-1)]


class Compressor(Settings):
    """What makes few tokens of many."""

    output_grid_size: Annotated[int, Field(ge=1, le=256)]
    num_layers: Layers
    hidden_dim: Width
    progressive: bool
    use_residual: bool
    start: Literal["components", "average"]


class Autoencoder(Settings):
    """The decoder."""

    use_attention: bool
    num_layers: Layers
    hidden_dim: Width
    progressive: bool


class Discriminator(Settings):
    """The critic."""

    hidden_dim: Width
    num_layers: Layers
    multi_scale: bool


class ModelSettings(Settings):
    """The networks."""

    clip: Clip
    compressor: Compressor
    autoencoder: Autoencoder
    discriminator: Discriminator


class Wgan(Settings):
    """The critic's loss."""

    lambda_gp: NotNegative


class Ae(Settings):
    """The loss of reconstruction."""

    type: Literal["mse", "cosine", "hybrid", "perceptual"]


class Weights(Settings):
    """How much each loss counts."""

    wgan: NotNegative
    ae: Positive


class LossSettings(Settings):
    """What is made small."""

    wgan: Wgan
    ae: Ae
    weights: Weights


class Training(Settings):
    """How it is made small."""

    batch_size: Annotated[int, Field(ge=1)]
    n_critic: Annotated[int, Field(ge=1, le=100)]


class Config(RunConfig):
    """All of them."""

    data: Data
    model: ModelSettings
    loss: LossSettings
    training: Training
    optimizer: Optimizer
    early_stop: EarlyStop
    trainer: TrainerSettings

    @model_validator(mode="after")
    def _together(self) -> Config:
        if not self.data.root:
            raise ValueError("data.root is empty; give data.root=PATH of a folder with train/ and val/")
        if not self.model.clip.freeze:
            raise ValueError(
                "model.clip.freeze is false; an encoder that learns with its compressor makes tokens that are easy to "
                "compress and say little, so that only frozen ones are trained with: give true"
            )
        if self.model.autoencoder.use_attention and self.model.autoencoder.progressive:
            raise ValueError(
                "model.autoencoder.progressive goes without model.autoencoder.use_attention, which has no steps"
            )
        self.trainer.check_one_device("token_compression")
        return self


def without_short_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by their own names alone: two of ``training`` stand for others.

    Args:
        values: What Hydra composed, where both stand, or what a run's folder holds.
    """
    kept = dict(values)
    if isinstance(training := kept.get("training"), Mapping):
        kept["training"] = {key: training[key] for key in training if key not in ("epochs", "learning_rate")}
    return kept
