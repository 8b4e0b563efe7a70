"""The settings of a training run; ``conf/`` holds their defaults, with a comment for each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from edge_sdk.errors import UnsupportedError
from edge_sdk.pruning import Recipe
from edge_sdk.training.config import EarlyStop, NotNegative, Optimizer, RunConfig, Settings, TrainerSettings

Width = Annotated[int, Field(ge=1, le=8192)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Data(Settings):
    """Where photos and captions lie, and how much of them is taken."""

    root: str
    views: Annotated[int, Field(ge=1, le=1000)]
    subset: Annotated[int, Field(ge=0)]
    batch_size: Annotated[int, Field(ge=1)]
    least_count: Annotated[int, Field(ge=1)]


class Encoder(Settings):
    """What gives the places of an image."""

    name: Literal["efficientnet_lite0", "resnet18", "resnet34", "resnet50"]
    checkpoint: str
    image_size: Annotated[int, Field(ge=32, le=2048)]


class Decoder(Settings):
    """What says the words."""

    embed_dim: Width
    attention_dim: Width
    decoder_dim: Width
    dropout: Share
    longest: Annotated[int, Field(ge=1, le=200)]


class LossSettings(Settings):
    """What is added to the cross-entropy of the words."""

    attention: NotNegative
    smoothing: Share


class Prune(Settings):
    """What is pruned of which captioner."""

    checkpoint: str
    recipe: str
    distillation: NotNegative
    calibration_squares: Annotated[int, Field(ge=1)]
    sensitivity: bool

    @field_validator("recipe")
    @classmethod
    def _known(cls, text: str) -> str:
        try:
            return str(Recipe.parse(text))
        except UnsupportedError as error:
            raise ValueError(str(error)) from error


class Config(RunConfig):
    """All of them."""

    method: Literal["whole", "prune"]
    prune: Prune
    data: Data
    encoder: Encoder
    decoder: Decoder
    loss: LossSettings
    optimizer: Optimizer
    early_stop: EarlyStop
    trainer: TrainerSettings

    @model_validator(mode="after")
    def _together(self) -> Config:
        if not self.data.root:
            raise ValueError("data.root is empty; give data.root=PATH of COCO's folder, or data=embedded")
        if self.method == "prune" and not self.prune.checkpoint:
            raise ValueError("prune.checkpoint is empty; give prune.checkpoint=PATH of the captioner to prune")
        self.trainer.check_one_device("captioning")
        return self
