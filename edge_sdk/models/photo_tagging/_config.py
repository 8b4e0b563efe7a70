"""The settings of a training run; ``conf/`` holds their defaults, with a comment for each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edge_sdk.training.config import EarlyStop, NotNegative, Optimizer, RunConfig, Settings, TrainerSettings

Share = Annotated[float, Field(ge=0, le=1)]
Bits = Annotated[int, Field(ge=2, le=8)]


class Data(Settings):
    """Where the images lie and how they are read."""

    root: str
    size: Annotated[int, Field(ge=32, le=2048)]
    batch_size: Annotated[int, Field(ge=1)]
    workers: Annotated[int, Field(ge=-1, le=256)]
    cache_mib: Annotated[int, Field(ge=0)]


class Augment(Settings):
    """How images are changed at random."""

    scale: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]]
    ratio: Annotated[float, Field(ge=1, le=4)]
    flip: Share
    brightness: Annotated[float, Field(ge=0, lt=1)]
    contrast: Annotated[float, Field(ge=0, lt=1)]
    saturation: Annotated[float, Field(ge=0, le=1)]

    @model_validator(mode="after")
    def _ordered(self) -> Augment:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale is {list(self.scale)}; expected the smaller share first")
        return self


class LossSettings(Settings):
    """Which loss, and its constants."""

    name: Literal["bce", "focal", "asymmetric"]
    gamma: NotNegative
    alpha: Share
    gamma_neg: NotNegative
    gamma_pos: NotNegative
    clip: Annotated[float, Field(ge=0, lt=1)]


class Lsq(Settings):
    """How LSQ quantizes."""

    checkpoint: str
    weight_bits: Bits
    activation_bits: Bits
    edges: Literal["8bit", "fp32", "same"]
    per_channel: bool
    start: Literal["mse", "paper", "range"]
    distillation: Share
    outputs: Literal["int8", "float"]


class Config(RunConfig):
    """All of them."""

    model: Literal["resnet18", "resnet34", "resnet50"]
    checkpoint: str
    method: Literal["fp32", "lsq"]
    data: Data
    augment: Augment
    loss: LossSettings
    optimizer: Optimizer
    early_stop: EarlyStop
    lsq: Lsq
    trainer: TrainerSettings

    @model_validator(mode="after")
    def _complete(self) -> Config:
        if not self.data.root:
            raise ValueError("data.root is empty; give data.root=PATH of a COCO folder, or data=embedded")
        if self.method == "lsq" and not self.lsq.checkpoint:
            raise ValueError("lsq.checkpoint is empty; give lsq.checkpoint=PATH of the FP32 weights to start from")
        if self.method == "lsq" and self.checkpoint:
            raise ValueError("checkpoint is for method=fp32; give lsq.checkpoint=PATH alone")
        return self
