"""How far points are from the outline of a shape of size 1 around the origin: negative inside.

Arguments are arrays of x and y that broadcast against each other, y pointing down.
Source: Inigo Quilez, https://iquilezles.org/articles/distfunctions2d/ (circle, box, triangle, ellipse, heart).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]

_ELLIPSE = (1.0, 0.55)
_CORNER = np.float32(np.sqrt(0.5))  # a square in the unit circle, as the other shapes are


def circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A circle of radius 1."""
    return np.sqrt(x * x + y * y) - 1


def square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A square in the unit circle; exact inside and beside its edges."""
    return np.maximum(np.abs(x), np.abs(y)) - _CORNER


def triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """An equilateral triangle in the unit circle, one corner up; exact inside and beside its edges."""
    return np.maximum(np.float32(np.sqrt(0.75)) * np.abs(x) - 0.5 * y, y) - 0.5


def ellipse(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """An ellipse, 1 by 0.55; to the first order near its outline."""
    across, down = _ELLIPSE
    reach = np.sqrt((x / across) ** 2 + (y / down) ** 2)
    slope = np.sqrt((x / across**2) ** 2 + (y / down**2) ** 2)
    return reach * (reach - 1) / np.maximum(slope, 1e-6)


def heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A heart in the unit circle, its tip down."""
    scale = 0.6  # the source's heart is 1.2 wide, 1.1 high and has its tip at the origin
    x, y = np.abs(x) * scale, 0.6 - y * scale
    lobe = np.sqrt((x - 0.25) ** 2 + (y - 0.75) ** 2) - np.float32(np.sqrt(2) / 4)
    below = 0.5 * np.maximum(x + y, 0)
    edge = np.sqrt(np.minimum(x**2 + (y - 1) ** 2, (x - below) ** 2 + (y - below) ** 2)) * np.sign(x - y)
    return np.where(x + y > 1, lobe, edge) / scale


def coverage(
    kinds: np.ndarray, outlines: tuple[Distance, ...], x: np.ndarray, y: np.ndarray, radius_px: np.ndarray
) -> np.ndarray:
    """The share of each pixel that a shape covers, from the distance of the pixel's middle to the outline.

    Args:
        kinds: Which outline each object has, ``[b, o]``.
        outlines: The shapes to choose from.
        x: Places from the centre in units of the radius, ``[b, o, 1, s]`` or ``[b, o, s, s]``.
        y: The same, ``[b, o, s, 1]`` or ``[b, o, s, s]``.
        radius_px: ``[b, o]``, in pixels.

    Returns:
        float32 ``[b, o, s, s]``.
    """
    alpha = np.empty((*kinds.shape, y.shape[2], x.shape[3]), np.float32)
    for kind, outline in enumerate(outlines):
        chosen = kinds == kind
        distance = outline(x[chosen], y[chosen])
        alpha[chosen] = (0.5 - distance * radius_px[chosen][:, None, None]).clip(0, 1)
    return alpha
