"""Photos with what a captioner says of them."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_sdk.models.captioning._data import Captioned

_COLUMNS = 4
_SIDE = 224
_LETTERS = 34


def save_captions(path: Path, photos: Sequence[Captioned], said: Sequence[str]) -> None:
    """Draws a grid of photos, below each its caption.

    Args:
        path: A PNG file.
        photos: What was captioned.
        said: Its captions.

    Raises:
        StorageError: The disk is full or not ours.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from edge_sdk._files import write_atomic

    rows = -(-len(photos) // _COLUMNS)
    figure = Figure(figsize=(3 * _COLUMNS, 3.6 * rows), dpi=80)
    FigureCanvasAgg(figure)
    for place, (photo, caption) in enumerate(zip(photos, said, strict=True), 1):
        axes = figure.add_subplot(rows, _COLUMNS, place)
        axes.imshow(photo.view.read(_SIDE))
        axes.set_title("\n".join(textwrap.wrap(caption, _LETTERS)) or "(nothing)", fontsize=9, loc="left")
        axes.axis("off")
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())
