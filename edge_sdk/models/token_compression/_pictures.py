"""A picture of tokens: photos, and below each the maps of its tokens in colours that mean the same in all rows.

Shapes: i photos, s pixels of a side, n tokens, d width of a token, g tokens of a side.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edge_sdk._files import write_atomic
from edge_sdk.models.token_compression.metrics import cosine, pooled

_INCHES = 1.5
_STEP = 1.12  # from one image to the next, of an image's size
_DOTS = 90
_CUT = 0.01  # of a colour's values at either end


def draw_tokens(
    path: Path, photos: np.ndarray, tokens: Tensor, compressed: Tensor, rebuilt: Tensor, title: str
) -> None:
    """Draws photos over their tokens, averages of these, compressed ones and what the decoder gives, as a PNG file.

    A colour is a place along the three directions in which the encoder's tokens of these photos vary most.

    Args:
        path: The file; its folder is made.
        photos: uint8 ``[i, s, s, 3]``.
        tokens: The encoder's, ``[i, n, d]``.
        compressed: ``[i, m, d]``.
        rebuilt: What the decoder gives, ``[i, n, d]``.
        title: What stands over it.

    Raises:
        StorageError: The disk is full or not ours.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours, size, count = _Colours(tokens), photos.shape[1], compressed.shape[1]
    averages = pooled(tokens, math.isqrt(tokens.shape[1]), math.isqrt(count))
    lines: dict[str, np.ndarray] = {
        "photo": photos / 255,
        f"{tokens.shape[1]} tokens\nof the encoder": colours(tokens),
        (first := f"{count} averages,\nrepeated"): colours(averages),
        f"{count} compressed\ntokens": colours(compressed),
        (second := "decoded\nfrom these"): colours(rebuilt),
    }
    alike = {first: cosine(averages, tokens), second: cosine(rebuilt, tokens)}
    figure = Figure(figsize=(_INCHES * len(photos), _INCHES * len(lines)))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    # One picture: many small ones take a second to draw.
    axes.imshow(np.concatenate([_row(images, size) for images in lines.values()]))
    axes.axis("off")
    for down, name in enumerate(lines):
        top = down * round(_STEP * size)
        axes.text(-0.1 * size, top + size / 2, name, ha="right", va="center", fontsize=8)
        for place, value in enumerate(alike[name].tolist() if name in alike else []):
            middle = place * round(_STEP * size) + size / 2
            axes.text(middle, top + 1.01 * size, f"cosine {value:.3f}", ha="center", va="top", fontsize=7)
    axes.set_title(title, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS, bbox_inches="tight")
    write_atomic(path, buffer.getvalue())


def _row(images: np.ndarray, size: int) -> np.ndarray:
    """Images ``[i, g, g, 3]`` side by side, each ``size`` pixels wide, with white between and below them."""
    places = np.arange(size) * images.shape[1] // size
    scaled, gap = images[:, places][:, :, places], round(_STEP * size) - size
    return np.concatenate(list(np.pad(scaled, ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=1.0)), axis=1)


class _Colours:
    """Tokens to colours, by the three components of some tokens."""

    def __init__(self, tokens: Tensor) -> None:
        rows = tokens.flatten(0, 1).float()
        self._centre = rows.mean(0)
        centred = rows - self._centre
        self._directions = torch.linalg.eigh(centred.T @ centred)[1][:, -3:].flip(1)
        found = centred @ self._directions
        self._low, self._high = (found.quantile(share, 0) for share in (_CUT, 1 - _CUT))

    def __call__(self, tokens: Tensor) -> np.ndarray:
        """``[i, n, d]`` to ``[i, g, g, 3]``, from 0 to 1."""
        found = (tokens.float() - self._centre) @ self._directions
        shown = ((found - self._low) / (self._high - self._low).clamp(min=1e-12)).clamp(0, 1)
        side = math.isqrt(tokens.shape[1])
        return shown.reshape(len(tokens), side, side, -1).numpy()
