"""Pictures of what a network has learned: slots and their masks, generated images, the use of the codes.

n: images, s: side in pixels, slots: slots of an image, blocks: codebooks, k: codes of a codebook.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from edge_sdk._files import write_atomic
from edge_sdk.errors import MissingDependencyError

_GAP = 2
_SMALLEST = 128
"""Tiles are enlarged to at least so many pixels of a side, for people to see."""


def slots_picture(images: Tensor, recon: Tensor, masks: Tensor) -> np.ndarray:
    """A row for each image: itself, its reconstruction, all masks in colours, then what each slot holds.

    Args:
        images: ``[n, 3, s, s]`` in [0, 1].
        recon: The same of the reconstructions.
        masks: ``[n, slots, 1, s, s]``, which sum to 1 over the slots.

    Returns:
        uint8 ``[height, width, 3]``.
    """
    count = masks.shape[1]
    colours = masks.new_tensor([colorsys.hsv_to_rgb(slot / count, 0.75, 0.95) for slot in range(count)])
    coloured = (masks * colours[None, :, :, None, None]).sum(1)
    parts = masks * recon[:, None] + (1 - masks)  # white where a slot is not
    return grid([images, recon, coloured, *parts.unbind(1)])


def grid(columns: Sequence[Tensor]) -> np.ndarray:
    """Images side by side: one column for each sequence ``[n, 3, s, s]``, one row for each of the n.

    Returns:
        uint8 ``[height, width, 3]``.
    """
    rows = []
    scale = max(1, -(-_SMALLEST // columns[0].shape[-1]))
    for row in zip(*columns, strict=True):
        tiles = [np.pad(_pixels(tile, scale), ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255) for tile in row]
        rows.append(np.concatenate(tiles, axis=1))
    return np.concatenate(rows, axis=0)


def save(path: Path, picture: np.ndarray) -> None:
    """Writes a PNG, whole or not at all.

    Args:
        path: The file.
        picture: uint8 ``[height, width, 3]``.

    Raises:
        StorageError: The disk is full or not ours.
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())


def save_codes(path: Path, counts: np.ndarray, perplexity: Sequence[float]) -> None:
    """Draws how often each code was used, one row for each codebook, the most frequent first.

    Args:
        path: The file.
        counts: Whole numbers ``[blocks, k]``.
        perplexity: Of each codebook: how many equally frequent codes would be as uncertain.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
        StorageError: The disk is full or not ours.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            f"drawing the use of codes needs Matplotlib, which cannot be imported ({error}): "
            "pip install 'edge-sdk[train]'."
        ) from error
    blocks, codes = counts.shape
    figure = Figure(figsize=(8, 1 + 1.3 * blocks), layout="constrained")
    for block, axes in enumerate(figure.subplots(blocks, 1, squeeze=False, sharex=True)[:, 0]):
        shares = np.sort(counts[block])[::-1] / max(1, counts[block].sum())
        axes.bar(np.arange(codes), shares, width=1.0)
        used = int((counts[block] > 0).sum())
        axes.set_title(f"codebook {block + 1}: {used} of {codes} used, perplexity {perplexity[block]:.1f}", fontsize=9)
        axes.set_ylabel("share")
    axes.set_xlabel("codes, the most frequent first")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomic(path, buffer.getvalue())


def _pixels(image: Tensor, scale: int) -> np.ndarray:
    pixels = (image.detach().float().clamp(0, 1) * 255).round().byte().cpu().numpy().transpose(1, 2, 0)
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)
