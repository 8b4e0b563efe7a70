"""Augmentation of a whole batch on its device: crop, flip and colour in two passes over the pixels.

Shapes: b batch, s pixels of a side that comes in, t of one that goes out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from edge_sdk.models.photo_tagging._config import Augment
from edge_sdk.models.photo_tagging.plugin import _MEAN as MEAN
from edge_sdk.models.photo_tagging.plugin import _STD as STD

_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey. Source: ITU-R BT.601."""

_TRIES = 10
"""How often a crop is drawn that does not fit into the image, before the largest that fits is taken."""


def normalise(images: Tensor) -> Tensor:
    """Bytes ``[b, 3, s, s]`` to what the network takes, float32 of the same shape."""
    mean, std = (images.new_tensor(values, dtype=torch.float32).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (images.float() - mean) / std


def augment(images: Tensor, size: int, settings: Augment, generator: torch.Generator) -> Tensor:
    """Random crops of a batch, some mirrored, with other brightness, contrast and saturation, normalised.

    Args:
        images: uint8 ``[b, 3, s, s]``.
        size: t.
        settings: How strong each change is.
        generator: On the processor, so that it draws the same for every device.

    Returns:
        float32 ``[b, 3, t, t]``.
    """
    count = len(images)
    draw = _draws(count, generator)
    shape = [count, 3, size, size]
    grid = functional.affine_grid(_crops(count, settings, draw).to(images.device), shape, align_corners=False)
    crops = functional.grid_sample(images.float(), grid, "bilinear", "reflection", align_corners=False)
    return normalise(_coloured(crops, settings, draw).clamp_(0, 255))


Draw = Callable[[float, float], Tensor]
"""Smallest and largest value to ``[b]`` random ones."""


def _draws(count: int, generator: torch.Generator) -> Draw:
    return lambda low, high: low + (high - low) * torch.rand(count, generator=generator)


def _crops(count: int, settings: Augment, draw: Draw) -> Tensor:
    """Where each crop lies, as affine matrices from its coordinates to the image's, both from -1 to 1: ``[b, 2, 3]``.

    Source: a share of the area and the logarithm of the ratio of sides are drawn uniformly, as
    Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, cut ImageNet's photos.
    """
    width, height = torch.zeros(count), torch.zeros(count)
    for _ in range(_TRIES):
        area = draw(*settings.scale)
        ratio = draw(-math.log(settings.ratio), math.log(settings.ratio)).exp()
        across, down = (area * ratio).sqrt(), (area / ratio).sqrt()
        fits = (width == 0) & (across <= 1) & (down <= 1)
        width, height = torch.where(fits, across, width), torch.where(fits, down, height)
    width, height = (torch.where(side == 0, 1.0, side) for side in (width, height))
    mirrored = torch.where(draw(0, 1) < settings.flip, -1.0, 1.0)
    crops = torch.zeros(count, 2, 3)
    crops[:, 0, 0], crops[:, 1, 1] = width * mirrored, height
    crops[:, 0, 2], crops[:, 1, 2] = (1 - width) * draw(-1, 1), (1 - height) * draw(-1, 1)
    return crops


def _coloured(crops: Tensor, settings: Augment, draw: Draw) -> Tensor:
    """Pixels as ``contrast * (saturated - grey mean) + grey mean``, brightened: one matrix for each image."""
    bright, contrast, saturation = (
        draw(1 - strength, 1 + strength).to(crops.device).view(-1, 1, 1)
        for strength in (settings.brightness, settings.contrast, settings.saturation)
    )
    luma = crops.new_tensor(_LUMA)
    grey = (crops.mean((2, 3)) @ luma).view(-1, 1, 1)
    matrix = saturation * torch.eye(3, device=crops.device) + (1 - saturation) * luma.expand(3, 3)
    pixels = crops.permute(0, 2, 3, 1).reshape(len(crops), -1, 3)  # what they are in memory where channels come last
    changed = torch.baddbmm((1 - contrast) * bright * grey, pixels, (contrast * bright * matrix).transpose(1, 2))
    return changed.view(len(crops), *crops.shape[2:], 3).permute(0, 3, 1, 2)
