"""Circles, squares and triangles in clear colours on a plain dark background."""

from __future__ import annotations

import numpy as np

from edge_sdk.models.svq.data import _draw, _outlines
from edge_sdk.models.svq.data._labelled import Attribute, LabelledImages

SHAPES = ("circle", "square", "triangle")
MOST_SHAPES = 10

_OUTLINES = (_outlines.circle, _outlines.square, _outlines.triangle)
_TABLE = (
    Attribute("shape", len(SHAPES)),
    Attribute("colour", len(_draw.COLOURS)),
    Attribute("x"),
    Attribute("y"),
    Attribute("size"),
)
_PALETTE = np.array(list(_draw.COLOURS.values()), np.float32)
_RADII = (0.11, 0.19)
_BACKGROUND = 20.0
_GAP = 0.85  # outlines may overlap a little
_LEAST_SEEN = 0.5


class ShapesDataset(LabelledImages):
    """Images of 1 to ``max_shapes`` shapes that overlap a little, at least half of each visible.

    Colours differ within an image as long as there are enough of them (7), since no border shows
    between two shapes of one colour. Attributes: shape, colour, x, y and size (the radius of the circle
    around the shape), the last three as shares of the side.

    Args:
        num_samples: How many images. Image i depends on the seed and on i alone.
        image_size: Side in pixels, 16 to 512.
        max_shapes: Most shapes of an image, 1 to 10.
        seed: 0 or more.
        with_labels: Whether an item holds the truth beside the image.

    Raises:
        ModelError: An argument is out of range, or so many shapes have no room.
    """

    def __init__(
        self,
        num_samples: int = 10_000,
        image_size: int = 64,
        max_shapes: int = 4,
        seed: int = 0,
        *,
        with_labels: bool = False,
    ):
        _draw.check_scene(num_samples, image_size, max_shapes, MOST_SHAPES, seed)
        background = np.full((1, 1, 1, 3), _BACKGROUND, np.float32)
        colours, per_object = len(_PALETTE), 2 + 2 * _draw.PLACES

        def compose(uniform: np.ndarray) -> _draw.Layers:
            present = _draw.counts(uniform[:, 0], max_shapes)
            colour = _draw.distinct(uniform[:, 1 : 1 + colours], max_shapes)
            own = uniform[:, 1 + colours :].reshape(-1, max_shapes, per_object)
            kind = (own[..., 0] * len(SHAPES)).astype(int)
            radius = _RADII[0] + own[..., 1] * np.float32(_RADII[1] - _RADII[0])
            centres = _draw.spread(own[..., 2:].reshape(*own.shape[:2], _draw.PLACES, 2), radius, _GAP)
            x, y = (along / radius[..., None, None] for along in _draw.grid(centres, image_size))
            alpha = _outlines.coverage(kind, _OUTLINES, x, y, radius * image_size)
            known = np.stack([kind, colour, centres[..., 0], centres[..., 1], radius], -1)
            return _draw.layers(background, alpha, _PALETTE[colour][:, :, None, None], known, present)

        numbers = 1 + colours + max_shapes * per_object
        arrays = _draw.draw_all(num_samples, image_size, seed, numbers, compose, _LEAST_SEEN)
        super().__init__(arrays, _TABLE, with_labels=with_labels)
