"""Scenes of real pictures with known masks: Fashion-MNIST's items on textures cut from photos.

Items and photos to train on are others than those to judge with: train items on photos for calibration,
t10k items on photos for evaluation, as in photo tagging's embedded set.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL.Image import Image, Resampling
from PIL.Image import fromarray as from_array

from edge_sdk.errors import ModelError, unknown_name
from edge_sdk.models import _fashion
from edge_sdk.models.svq.data import _draw
from edge_sdk.models.svq.data._labelled import Attribute, LabelledImages

CATEGORIES = _fashion.CATEGORIES
MOST_ITEMS = 6

_TABLE = (
    Attribute("category", len(CATEGORIES)),
    Attribute("hue"),
    Attribute("x"),
    Attribute("y"),
    Attribute("size"),
)
_RADII = (0.17, 0.25)
_GAP = 0.9
_LEAST_SEEN = 0.5
_SATURATION = 0.5
_OWN_NUMBERS = 4 + 2 * _draw.PLACES
_PIECE = (0.4, 1.0)  # the side of the texture cut from a photo, as a share of the photo's short side
_PURPOSES: dict[str, _fashion.Purpose] = {"train": "calibration", "val": "evaluation"}


class ScenesDataset(LabelledImages):
    """Scenes of 1 to ``max_shapes`` items of clothing on a texture, at least half of each visible.

    Attributes: category (Fashion-MNIST's ten), hue of the tint, x, y and size (half the side of the item's
    square), the last three as shares of the side.

    Args:
        num_samples: How many scenes. Scene i depends on the other arguments and on i alone.
        image_size: Side in pixels, 16 to 512.
        max_shapes: Most items of a scene, 1 to 6.
        seed: 0 or more.
        split: ``train`` or ``val``: which items and photos are used.
        with_labels: Whether an item of the set holds the truth beside the image.

    Raises:
        MissingDependencyError: Fashion-MNIST or the packages with photos are not installed.
        ModelError: An argument is out of range, or Fashion-MNIST's files are damaged.
    """

    def __init__(
        self,
        num_samples: int = 10_000,
        image_size: int = 64,
        max_shapes: int = 3,
        seed: int = 0,
        *,
        split: Literal["train", "val"] = "train",
        with_labels: bool = False,
    ):
        _draw.check_scene(num_samples, image_size, max_shapes, MOST_ITEMS, seed)
        if split not in _PURPOSES:
            raise ModelError(unknown_name("split", split, _PURPOSES))
        items = _fashion.items(split)
        photos = [_fashion.background(path) for path in _fashion.background_photos(_PURPOSES[split])]

        def compose(uniform: np.ndarray) -> _draw.Layers:
            present = _draw.counts(uniform[:, 0], max_shapes)
            behind = np.stack([_texture(photos, row, image_size) for row in uniform[:, 1:5]])
            own = uniform[:, 5:].reshape(-1, max_shapes, _OWN_NUMBERS)
            chosen = (own[..., 0] * len(items.images)).astype(int)
            radius = _RADII[0] + own[..., 1] * np.float32(_RADII[1] - _RADII[0])
            centres = _draw.spread(own[..., 4:].reshape(*own.shape[:2], _draw.PLACES, 2), radius, _GAP)
            whole = np.ones_like(radius)
            tint = _draw.rgb(own[..., 2], _SATURATION * whole, whole)
            pixels = np.where(own[..., 3, None, None] < 0.5, items.images[chosen], items.images[chosen][..., ::-1])
            intensity, alpha = (
                _placed(part, present, centres, radius, image_size) for part in (pixels, _outline(pixels))
            )
            paint = intensity[..., None] * tint[:, :, None, None]
            known = np.stack([items.labels[chosen], own[..., 2], centres[..., 0], centres[..., 1], radius], -1)
            return _draw.layers(behind, alpha, paint, known, present)

        numbers = 5 + max_shapes * _OWN_NUMBERS
        arrays = _draw.draw_all(num_samples, image_size, seed, numbers, compose, _LEAST_SEEN)
        super().__init__(arrays, _TABLE, with_labels=with_labels)


def _texture(photos: list[Image], uniform: np.ndarray, side: int) -> np.ndarray:
    """A square piece of a photo, float32 ``[s, s, 3]``, from four numbers: which photo, how large, where."""
    photo = photos[int(uniform[0] * len(photos))]
    piece = min(photo.size) * float(_PIECE[0] + uniform[1] * (_PIECE[1] - _PIECE[0]))
    left, top = (float(share) * (room - piece) for share, room in zip(uniform[2:], photo.size, strict=True))
    box = (left, top, left + piece, top + piece)
    return np.asarray(photo.resize((side, side), Resampling.BILINEAR, box), np.float32)


def _outline(pixels: np.ndarray) -> np.ndarray:
    """What of items ``[b, o, 28, 28]`` hides the texture, uint8: dark parts too, and gaps of up to two pixels."""
    solid = np.minimum(255, pixels.astype(int) * 4).astype(np.uint8)
    return 255 - _widest(255 - _widest(solid))  # a closing: dilation, then erosion


def _widest(pixels: np.ndarray) -> np.ndarray:
    """Each pixel's highest value within 3x3."""
    padded = np.pad(pixels, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    across = np.maximum(np.maximum(padded[..., :-2], padded[..., 1:-1]), padded[..., 2:])
    return np.maximum(np.maximum(across[..., :-2, :], across[..., 1:-1, :]), across[..., 2:, :])


def _placed(pixels: np.ndarray, present: np.ndarray, centres: np.ndarray, radius: np.ndarray, side: int) -> np.ndarray:
    """Items scaled and laid at their places: float32 ``[b, o, s, s]`` in [0, 1], from uint8 ``[b, o, 28, 28]``."""
    laid = np.zeros((*present.shape, side, side), np.float32)
    for place in zip(*np.nonzero(present), strict=True):
        length = round(float(2 * radius[place] * side))
        left, top = (min(side - length, max(0, round(float(middle * side - length / 2)))) for middle in centres[place])
        item = from_array(np.ascontiguousarray(pixels[place])).resize((length, length), Resampling.BILINEAR)
        laid[place][top : top + length, left : left + length] = np.asarray(item, np.float32) / 255
    return laid
