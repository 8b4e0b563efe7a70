"""What to set so that a checkpoint fits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from edge_sdk.models.photo_tagging.resnet import VARIANTS, ResNet


def advice(state: Mapping[str, Tensor], variant: str, num_classes: int) -> str:
    """The settings that would make a checkpoint fit, as far as its weights tell.

    Args:
        state: The checkpoint's weights.
        variant: The variant that was asked for.
        num_classes: The number of tags that was asked for.
    """
    found = next((known for known in VARIANTS if _names(_keys(known)) == _names(state)), None)
    if found is None:
        return f"Expected the weights of {variant} as edge_sdk/models/photo_tagging/resnet.py names them."
    classes = state["fc.weight"].shape[0]
    asked = {"variant": (found, variant), "num_classes": (classes, num_classes)}
    change = " ".join(f"--set {key}={have}" for key, (have, want) in asked.items() if have != want)
    return f"It holds a {found} with {classes} classes: give {change}." if change else ""


def _keys(variant: str) -> Iterable[str]:
    with torch.device("meta"):  # no memory, no time
        return ResNet(variant, 1).state_dict()


def _names(keys: Iterable[str]) -> set[str]:
    return {key for key in keys if not key.endswith("num_batches_tracked")}
