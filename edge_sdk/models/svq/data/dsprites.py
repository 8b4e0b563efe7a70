"""Sprites as in dSprites, several to an image: turned, scaled, coloured, and in front of each other.

Source: Kabra et al., "Multi-Object Datasets", https://github.com/google-deepmind/multi_object_datasets
(Multi-dSprites, in its variants with a plain and a coloured background; the texture is ours).
"""

from __future__ import annotations

import numpy as np

from edge_sdk.errors import ModelError, unknown_name
from edge_sdk.models.svq.data import _draw, _outlines
from edge_sdk.models.svq.data._labelled import Attribute, LabelledImages

SPRITES = ("square", "ellipse", "heart")
BACKGROUNDS = ("black", "colour", "texture")
MOST_SPRITES = 8

_OUTLINES = (_outlines.square, _outlines.ellipse, _outlines.heart)
_TABLE = (
    Attribute("shape", len(SPRITES)),
    Attribute("hue"),
    Attribute("x"),
    Attribute("y"),
    Attribute("size"),
    Attribute("angle"),
)
_RADII = (0.12, 0.24)
_GAP = 0.6
_LEAST_SEEN = 0.3
_WAVES = 3
_BACKGROUND_NUMBERS = 3 + _WAVES * 4
_OWN_NUMBERS = 6 + 2 * _draw.PLACES


class MultiDspritesDataset(LabelledImages):
    """Images of 1 to ``max_shapes`` sprites, at least three tenths of each visible.

    Attributes: shape, hue, x, y, size (the radius of the circle around the sprite, as a share of the side)
    and angle (as a share of a full turn; a square repeats after a quarter, an ellipse after a half).

    Args:
        num_samples: How many images. Image i depends on the other arguments and on i alone.
        image_size: Side in pixels, 16 to 512.
        max_shapes: Most sprites of an image, 1 to 8.
        seed: 0 or more.
        background: ``black``, ``colour`` (one dark colour) or ``texture`` (dark waves of changing colour).
        with_labels: Whether an item holds the truth beside the image.

    Raises:
        ModelError: An argument is out of range, or so many sprites have no room.
    """

    def __init__(
        self,
        num_samples: int = 10_000,
        image_size: int = 64,
        max_shapes: int = 4,
        seed: int = 0,
        *,
        background: str = "black",
        with_labels: bool = False,
    ):
        _draw.check_scene(num_samples, image_size, max_shapes, MOST_SPRITES, seed)
        if background not in BACKGROUNDS:
            raise ModelError(unknown_name("background", background, BACKGROUNDS))

        def compose(uniform: np.ndarray) -> _draw.Layers:
            present = _draw.counts(uniform[:, 0], max_shapes)
            behind = _background(background, uniform[:, 1 : 1 + _BACKGROUND_NUMBERS], image_size)
            own = uniform[:, 1 + _BACKGROUND_NUMBERS :].reshape(-1, max_shapes, _OWN_NUMBERS)
            kind = (own[..., 0] * len(SPRITES)).astype(int)
            radius = _RADII[0] + own[..., 1] * np.float32(_RADII[1] - _RADII[0])
            centres = _draw.spread(own[..., 6:].reshape(*own.shape[:2], _draw.PLACES, 2), radius, _GAP)
            paint = _draw.rgb(own[..., 3], 0.6 + 0.4 * own[..., 4], 0.65 + 0.35 * own[..., 5])
            x, y = (along / radius[..., None, None] for along in _draw.grid(centres, image_size))
            turn = 2 * np.pi * own[..., 2, None, None]
            turned = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
            alpha = _outlines.coverage(kind, _OUTLINES, *turned, radius * image_size)
            known = np.stack([kind, own[..., 3], centres[..., 0], centres[..., 1], radius, own[..., 2]], -1)
            return _draw.layers(behind, alpha, paint[:, :, None, None], known, present)

        numbers = 1 + _BACKGROUND_NUMBERS + max_shapes * _OWN_NUMBERS
        arrays = _draw.draw_all(num_samples, image_size, seed, numbers, compose, _LEAST_SEEN)
        super().__init__(arrays, _TABLE, with_labels=with_labels)


def _background(kind: str, uniform: np.ndarray, side: int) -> np.ndarray:
    """Backgrounds from numbers ``[b, 3 + 4 * waves]``: ``[b, s, s, 3]``, or a plain one to broadcast."""
    if kind == "black":
        return np.zeros((1, 1, 1, 3), np.float32)
    plain = 20 + 80 * uniform[:, None, None, :3]
    if kind == "colour":
        return plain
    waves = uniform[:, 3:].reshape(-1, _WAVES, 4, 1, 1)
    pixels = (np.arange(side, dtype=np.float32) + 0.5) / side
    direction, periods = 2 * np.pi * waves[:, :, 0], 1 + 5 * waves[:, :, 1]
    along = np.cos(direction) * pixels + np.sin(direction) * pixels[:, None]
    heights = np.sin(2 * np.pi * (periods * along + waves[:, :, 2]))  # one for each channel
    return np.clip(plain + 25 * np.moveaxis(heights, 1, -1), 0, 255).astype(np.float32)
