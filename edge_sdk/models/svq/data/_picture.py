"""The picture of samples: images above, their masks in colours below."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_sdk._files import storage_error
from edge_sdk.errors import MissingDependencyError, ModelError

_MASK_COLOURS = "tab10"
_COLUMNS = 8


def save_samples(images: np.ndarray, labels: np.ndarray, path: Path) -> None:
    """Writes images ``[n, s, s, 3]`` and label maps ``[n, s, s]`` as one picture; see `LabelledImages`."""
    try:
        from matplotlib import colormaps
        from matplotlib.figure import Figure  # without pyplot: no window, whatever the user's back end
    except ImportError as error:
        raise MissingDependencyError(
            "the picture of samples needs Matplotlib, which is not installed: pip install 'edge-sdk[train]'."
        ) from error
    palette = np.array([(0, 0, 0), *colormaps[_MASK_COLOURS].colors])  # type: ignore[attr-defined]
    masks = np.where(labels == 0, 0, (labels.astype(int) - 1) % (len(palette) - 1) + 1)
    columns = min(_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.5 * columns, 3.1 * rows), layout="constrained")
    axes = figure.subplots(2 * rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        row, column = divmod(number, columns)
        axes[2 * row, column].imshow(image)
        axes[2 * row, column].set_title(f"objects: {len(np.unique(mask[mask > 0]))}", fontsize=8)
        axes[2 * row + 1, column].imshow(palette[mask])
    known = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise ModelError(f"{path} is no kind of picture that Matplotlib writes: expected one of {', '.join(known)}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise storage_error(path, error) from error
