"""A picture of how much each layer bears."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from edge_sdk._files import write_atomic
from edge_sdk.errors import MissingDependencyError
from edge_sdk.pruning._sensitivity import Sensitivity

_DARK = 0.5  # below this, numbers are written in white


def sensitivity_picture(found: Sensitivity, path: Path, title: str) -> None:
    """Draws a table of colours: a row for each layer, a column for each share, channels beside weights.

    Args:
        found: What to draw.
        path: A PNG file.
        title: The heading.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
        StorageError: The file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            f"the picture needs Matplotlib, which cannot be imported ({error}): pip install 'edge-sdk[train]'."
        ) from error
    tables = (("channels removed", found.channels), ("weights at zero", found.weights))
    rows = max(len(table) for _, table in tables)
    figure = Figure(figsize=(13, 1.6 + 0.24 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    shown: Any = None
    for axes, (heading, table) in zip(figure.subplots(1, len(tables)), tables, strict=True):
        low, high = min(0.0, found.unpruned), max(1.0, found.unpruned)
        shown = axes.imshow([*table.values()], vmin=low, vmax=high, cmap="viridis", aspect="auto")
        axes.set_yticks(range(len(table)), list(table), fontsize=8)
        axes.set_xticks(range(len(found.shares)), [f"{share:.0%}" for share in found.shares], fontsize=8)
        axes.set_title(heading, fontsize=10)
        axes.set_xlabel("of the layer", fontsize=9)
        for row, values in enumerate(table.values()):
            for column, value in enumerate(values):
                color = "white" if value < low + _DARK * (high - low) else "black"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=color)
    figure.colorbar(shown, ax=figure.axes, fraction=0.02, label=found.figure)
    figure.suptitle(title, fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())
