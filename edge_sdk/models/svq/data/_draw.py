"""Drawing many labelled images at once with NumPy.

b: images of a chunk, o: objects, s: side in pixels. Lengths and places are shares of the side. All that
is random in image i comes from row i of tables of uniform numbers, so it depends on the seed and on i
alone, not on how many images are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edge_sdk.errors import ModelError
from edge_sdk.models.svq.data._labelled import Arrays, check_range

COLOURS = {
    "red": (230, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 80, 235),
    "yellow": (240, 220, 50),
    "magenta": (220, 60, 210),
    "cyan": (60, 210, 220),
    "white": (240, 240, 240),
}
PLACES = 8
"""Places drawn for an object, of which the first is taken that keeps its distance from the earlier objects."""

_CHUNK = 256
_ATTEMPTS = 100
_LEAST_PIXELS = 4  # of an object that is to be seen at all


class Layers(NamedTuple):
    """What a chunk's images are put together from, back to front.

    Attributes:
        background: float32 ``[b, s, s, 3]`` in 0 to 255, or broadcastable.
        alpha: float32 ``[b, o, s, s]``: the share of a pixel that an object covers, 0 where it is absent.
        paint: float32 ``[b, o, s, s, 3]`` in 0 to 255, or broadcastable.
        attributes: float32 ``[b, o, a]``.
        present: bool ``[b, o]``.
    """

    background: np.ndarray
    alpha: np.ndarray
    paint: np.ndarray
    attributes: np.ndarray
    present: np.ndarray


def draw_all(
    count: int, side: int, seed: int, numbers: int, compose: Callable[[np.ndarray], Layers], least_seen: float
) -> Arrays:
    """Draws images; one in which an object is hidden too much is drawn again with other numbers.

    Args:
        count: How many images.
        side: Their side in pixels.
        seed: 0 or more.
        numbers: How many uniform numbers an image takes.
        compose: From uniform numbers ``[b, numbers]`` to layers.
        least_seen: The share of each object that stays visible.

    Raises:
        ModelError: The objects hide each other in all of 100 attempts.
    """
    waiting, parts = np.arange(count), []
    for attempt in range(_ATTEMPTS):
        table = np.random.default_rng((seed, attempt)).random((waiting[-1] + 1, numbers), np.float32)
        failed = []
        for start in range(0, len(waiting), _CHUNK):
            rows = waiting[start : start + _CHUNK]
            layers = compose(table[rows])
            labels = _labels(layers.alpha)
            good = _is_seen(layers, labels, least_seen)
            kept = Layers(*(_rows(part, good) for part in layers))
            parts.append((rows[good], Arrays(_flatten(kept, side), labels[good], kept.attributes, kept.present)))
            failed.append(rows[~good])
        waiting = np.concatenate(failed)
        if not len(waiting):
            order = np.argsort(np.concatenate([rows for rows, _ in parts]))
            return Arrays(*(np.concatenate(field)[order] for field in zip(*(part for _, part in parts), strict=True)))
    raise ModelError(
        f"{len(waiting)} of {count} images have no room: in {_ATTEMPTS} attempts some object always stayed more "
        f"than {1 - least_seen:.0%} hidden. Ask for fewer objects (max_shapes) or larger images (image_size)."
    )


def _rows(part: np.ndarray, good: np.ndarray) -> np.ndarray:
    """The chosen images of a layer, which may be one for all."""
    return part[good] if len(part) == len(good) else part


def _labels(alpha: np.ndarray) -> np.ndarray:
    """The number of the last object that covers half of a pixel or more: uint8 ``[b, s, s]``."""
    labels = np.zeros((len(alpha), *alpha.shape[2:]), np.uint8)
    for number in range(alpha.shape[1]):
        labels[alpha[:, number] >= 0.5] = number + 1
    return labels


def _is_seen(layers: Layers, labels: np.ndarray, least: float) -> np.ndarray:
    """Whether enough of every object of an image is visible: bool ``[b]``."""
    objects = layers.alpha.shape[1]
    whole = (layers.alpha >= 0.5).sum((2, 3))
    seen = np.stack([(labels == number).sum((1, 2)) for number in range(1, objects + 1)], 1)
    return (~layers.present | (seen >= np.maximum(_LEAST_PIXELS, least * whole))).all(1)


def _flatten(layers: Layers, side: int) -> np.ndarray:
    images = np.broadcast_to(layers.background, (len(layers.alpha), side, side, 3)).astype(np.float32)
    paint = np.broadcast_to(layers.paint, (*layers.alpha.shape[:2], *layers.paint.shape[2:]))
    for number in range(layers.alpha.shape[1]):
        images += layers.alpha[:, number, ..., None] * (paint[:, number] - images)
    return (images + 0.5).clip(0, 255).astype(np.uint8)


def check_scene(num_samples: int, image_size: int, max_shapes: int, most_shapes: int, seed: int) -> None:
    """Refuses arguments of a drawn data set.

    Raises:
        ModelError: One is out of range.
    """
    check_range("num_samples", num_samples, 1, 10_000_000)
    check_range("image_size", image_size, 16, 512)
    check_range("max_shapes", max_shapes, 1, most_shapes)
    check_range("seed", seed, 0, 2**63)


def layers(
    background: np.ndarray, alpha: np.ndarray, paint: np.ndarray, attributes: np.ndarray, present: np.ndarray
) -> Layers:
    """Layers in which absent objects cover nothing and have attributes of 0."""
    return Layers(
        background,
        alpha * present[..., None, None],
        paint,
        (attributes * present[..., None]).astype(np.float32),
        present,
    )


def rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Colours ``[..., 3]`` in 0 to 255 from shares in [0, 1].

    Source: https://en.wikipedia.org/wiki/HSL_and_HSV, "HSV to RGB alternative".
    """
    turn = (np.array([5, 3, 1], np.float32) + 6 * hue[..., None]) % 6
    return 255 * value[..., None] * (1 - saturation[..., None] * np.minimum(turn, 4 - turn).clip(0, 1))


def counts(uniform: np.ndarray, objects: int) -> np.ndarray:
    """From numbers ``[b]`` to presence ``[b, o]``: 1 to ``objects`` objects, the first ones."""
    return np.arange(objects) <= (uniform * objects).astype(int)[:, None]


def distinct(uniform: np.ndarray, objects: int) -> np.ndarray:
    """From numbers ``[b, c]`` to classes ``[b, o]`` of c that repeat in an image only where there are more objects."""
    return np.argsort(uniform, 1)[:, np.arange(objects) % uniform.shape[1]]


def spread(uniform: np.ndarray, radius: np.ndarray, least_gap: float) -> np.ndarray:
    """Centres of objects that lie inside the image and, where there is room, apart.

    Args:
        uniform: Numbers ``[b, o, PLACES, 2]``.
        radius: ``[b, o]``.
        least_gap: The distance to keep, as a share of the sum of two radii.

    Returns:
        float32 ``[b, o, 2]``: x and y.
    """
    places = radius[..., None, None] + uniform * (1 - 2 * radius)[..., None, None]
    centres = places[:, :, 0].copy()
    for number in range(1, radius.shape[1]):
        apart = np.linalg.norm(places[:, number, :, None] - centres[:, None, :number], axis=-1)
        gap = (apart / (radius[:, None, :number] + radius[:, number, None, None])).min(-1)
        best = np.minimum(gap, least_gap).argmax(1)  # the first of those that keep the distance
        centres[:, number] = places[np.arange(len(places)), number, best]
    return centres


def grid(centres: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixels' places from each centre: x ``[b, o, 1, s]`` and y ``[b, o, s, 1]``, y pointing down."""
    pixels = (np.arange(side, dtype=np.float32) + 0.5) / side
    return pixels - centres[..., 0, None, None], (pixels - centres[..., 1, None])[..., None]
