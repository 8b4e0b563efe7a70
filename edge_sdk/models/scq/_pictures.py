"""Pictures of what an autoencoder does: patches, their reconstructions, and where they differ.

Shapes: n patches, s pixels of a side.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edge_sdk._files import write_atomic

ERROR_SHOWN = 0.25
"""The absolute error of a pixel, of a range of 1, that an error map shows as white."""

_INCHES = 1.1


def draw_reconstructions(
    path: Path, originals: Tensor, rows: Mapping[str, Tensor], title: str, *, maps: bool = True
) -> None:
    """Draws patches over each of their reconstructions, as a PNG file.

    Args:
        path: The file; its folder is made.
        originals: ``[n, 3, s, s]``, from 0 to 1.
        rows: Name of each reconstruction to its patches, as ``originals``.
        title: What stands over it.
        maps: Whether each reconstruction is followed by its error map.

    Raises:
        StorageError: The disk is full or not ours.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines: dict[str, np.ndarray] = {"original": _pixels(originals)}
    for name, patches in rows.items():
        lines[name] = _pixels(patches)
        if maps:
            error = (patches.detach().float().cpu() - originals.detach().float().cpu()).abs().mean(1) / ERROR_SHOWN
            lines[f"error of\n{name}"] = error.clamp(0, 1).numpy()
    figure = Figure(figsize=(_INCHES * len(originals) + 1, _INCHES * len(lines) + 0.6))
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(lines), squeeze=False, gridspec_kw={"hspace": 0.06})
    for (axes,), (name, patches) in zip(grid, lines.items(), strict=True):
        # One picture a row: many small ones take a second to draw.
        row = np.concatenate(list(patches), axis=1)
        axes.imshow(row, cmap="magma" if row.ndim == 2 else None, vmin=0, vmax=1, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    figure.suptitle(title, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight")
    write_atomic(path, buffer.getvalue())


def sheet(originals: Tensor, reconstructions: Tensor) -> Tensor:
    """Patches over their reconstructions as one image ``[3, 2 s, n s]``, from 0 to 1."""
    both = torch.stack([originals, reconstructions]).detach().float().cpu().clamp(0, 1)
    rows, count, channels, height, width = both.shape
    return both.permute(2, 0, 3, 1, 4).reshape(channels, rows * height, count * width)


def _pixels(patches: Tensor) -> np.ndarray:
    return patches.detach().float().cpu().clamp(0, 1).permute(0, 2, 3, 1).numpy()
