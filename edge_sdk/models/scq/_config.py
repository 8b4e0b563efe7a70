"""The settings of a training run; ``conf/`` holds their defaults, with a comment for each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edge_sdk.training.config import EarlyStop, NotNegative, Optimizer, Positive, RunConfig, Settings, TrainerSettings

Share = Annotated[float, Field(ge=0, le=1)]


class Data(Settings):
    """Where the photos lie and how patches are cut from them."""

    root: str
    size: Annotated[int, Field(ge=16, le=1024)]
    batch_size: Annotated[int, Field(ge=1)]
    patches: Annotated[int, Field(ge=1)]
    val_patches: Annotated[int, Field(ge=1)]
    photos: Annotated[int, Field(ge=0)]
    cache_mib: Annotated[int, Field(ge=1)]
    flip: Share


class Network(Settings):
    """The encoder and the decoder."""

    latent_dim: Annotated[int, Field(ge=1, le=4096)]
    hidden: Annotated[int, Field(ge=4, le=4096)]
    stride: Literal[2, 4, 8, 16, 32]


class Codebook(Settings):
    """The codes and how they are learned."""

    num_codes: Annotated[int, Field(ge=2, le=65536)]
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None


class LossSettings(Settings):
    """The weights of what is added to the squared error of the pixels."""

    commitment: NotNegative
    entropy: float = Field(allow_inf_nan=False)


class Config(RunConfig):
    """All of them."""

    task: Literal["food_ar", "nav_ar"]
    quantizer: Literal["scq", "vq", "vq_reference", "none"]
    solver: Literal["exact", "relaxed"]
    anchor: Literal["vq", "none"]
    scq_lambda: Positive
    data: Data
    network: Network
    codebook: Codebook
    loss: LossSettings
    optimizer: Optimizer
    early_stop: EarlyStop
    trainer: TrainerSettings

    @model_validator(mode="after")
    def _complete(self) -> Config:
        if not self.data.root:
            raise ValueError("data.root is empty; give data.root=PATH of a folder of photos, or data=embedded")
        if self.quantizer == "vq_reference" and self.codebook.ema_decay is None:
            raise ValueError("codebook.ema_decay is null; with quantizer=vq_reference codes follow, so give a decay")
        stride = self.network.stride
        if self.data.size % stride:
            raise ValueError(
                f"data.size is {self.data.size} and network.stride {stride}; expected a size that the stride divides, "
                f"such as {max(stride, self.data.size // stride * stride)}"
            )
        return self
