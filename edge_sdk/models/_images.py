"""From a photo's file to the array that a network takes, with Pillow and NumPy alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.errors import MissingDependencyError, ModelError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
"""How the names of photos end, in small letters."""

# A square for each view of a calibration photo: its side as a share of the short side, where it
# lies (0 left or top, 1 right or bottom) and whether it is mirrored. Whole, corners, close-ups.
_VIEWS = (
    (0.875, 0.5, 0.5, False),
    (0.875, 0.5, 0.5, True),
    (0.6, 0.0, 0.0, True),
    (0.6, 1.0, 0.0, False),
    (0.6, 0.0, 1.0, True),
    (0.6, 1.0, 1.0, False),
    (0.35, 0.5, 0.5, True),
    (0.35, 0.3, 0.3, False),
)


def read_photo(path: Path) -> Image:
    """A photo as upright RGB.

    Raises:
        MissingDependencyError: Pillow is not installed.
        ModelError: The file is not there, is no image, is damaged, is too large or has more than 8 bits a channel.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise MissingDependencyError(
            "reading photos needs Pillow, which is not installed: pip install 'edge-sdk[demo]'."
        ) from error
    try:
        with Image.open(path) as image:
            if image.mode == "F" or image.mode.startswith("I"):
                raise ModelError(f"{path} has more than 8 bits a channel (mode {image.mode}): convert it to 8 bits.")
            return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError as error:
        raise ModelError(f"{path} is not an image that Pillow can read: give a JPEG or PNG file.") from error
    except Image.DecompressionBombError as error:
        raise ModelError(f"{path} is too large an image ({error}): scale it down.") from error
    except FileNotFoundError as error:
        raise ModelError(f"there is no photo at {path}.") from error
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG
        raise ModelError(f"{path} cannot be read: {error}.") from error


def spread(total: int, wanted: int) -> list[int]:
    """So many numbers below ``total``, evenly spread, or all of them."""
    count = min(total, wanted)
    return [place * total // count for place in range(count)]


def center_square(photo: Image, share: float, size: int) -> Image:
    """The square in the middle, ``share`` of the short side wide, scaled to ``size`` pixels."""
    return square(photo, share, 0.5, 0.5, size)


def square(photo: Image, share: float, across: float, down: float, size: int) -> Image:
    """A square of a photo, scaled to ``size`` pixels.

    Args:
        photo: Any size.
        share: Its side as a share of the photo's short side.
        across: Where it lies, from 0 (left) to 1 (right).
        down: From 0 (top) to 1 (bottom).
        size: Pixels of its side in the end.
    """
    from PIL.Image import Resampling

    width, height = photo.size
    side = max(1, int(min(width, height) * share))
    left, top = int((width - side) * across), int((height - side) * down)
    return photo.crop((left, top, left + side, top + side)).resize((size, size), Resampling.BICUBIC)


def views(photo: Image, size: int) -> Iterator[Image]:
    """Eight squares of ``size`` pixels of one photo, always the same, so that few photos show much."""
    from PIL import ImageOps

    for share, across, down, mirrored in _VIEWS:
        view = square(photo, share, across, down, size)
        yield ImageOps.mirror(view) if mirrored else view


def normalised(image: Image, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """``(pixel - mean) / std`` per channel, pixels from 0 to 255.

    Returns:
        float32 ``[1, 3, height, width]``.
    """
    import numpy as np

    pixels = np.asarray(image, dtype=np.float32)
    scaled = (pixels - np.asarray(mean, dtype=np.float32)) / np.asarray(std, dtype=np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))[None]
