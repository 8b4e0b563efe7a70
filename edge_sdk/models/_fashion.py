"""Fashion-MNIST's items, real labelled photos of clothes, and photos to lay them on.

The items are those of Debian's dataset-fashion-mnist, or of a folder that `VARIABLE` names.
"""

from __future__ import annotations

import gzip
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edge_sdk.errors import MissingDependencyError, ModelError
from edge_sdk.models import _images, _photos

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

Split = Literal["train", "val"]
Purpose = Literal["calibration", "evaluation"]

CATEGORIES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
"""In the order of Fashion-MNIST's labels."""
VARIABLE = "EDGE_SDK_FASHION_MNIST"

_DEBIAN_PHOTOS = Path("/usr/share/doc/opencv-doc")
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_FILES: dict[Split, str] = {"train": "train", "val": "t10k"}
_PHOTO_SIDE = 360  # short side of a photo that backgrounds are cut from


@dataclass(frozen=True)
class Items:
    """Fashion-MNIST's images of one split, uint8 ``[n, 28, 28]``, and their labels ``[n]``."""

    images: np.ndarray
    labels: np.ndarray


def items(split: Split) -> Items:
    """The images of one split and their labels.

    Raises:
        MissingDependencyError: Fashion-MNIST is not there.
        ModelError: Its files are damaged.
    """
    import numpy as np

    folder = _folder()
    pictures, numbers = (_idx(path) for path in _pair(folder, split))
    if pictures.shape[1:] != (28, 28) or numbers.shape != pictures.shape[:1] or np.any(numbers >= len(CATEGORIES)):
        raise ModelError(
            f"{folder} does not hold Fashion-MNIST: found images {list(pictures.shape)} and labels "
            f"{list(numbers.shape)} for {_FILES[split]}; expected [n, 28, 28] and [n] with labels from 0 to 9."
        )
    return Items(pictures, numbers)


def files() -> list[Path]:
    """The four files.

    Raises:
        MissingDependencyError: They are not there.
    """
    folder = _folder()
    return [path for split in _FILES for path in _pair(folder, split)]


def background_photos(purpose: Purpose) -> list[Path]:
    """The photos that Python packages bring; Debian's would change what is made from machine to machine.

    Raises:
        MissingDependencyError: None is installed.
    """
    paths = [path for path in _photos.installed(purpose) if not path.is_relative_to(_DEBIAN_PHOTOS)]
    if not paths:
        raise MissingDependencyError(
            "items are laid on photos that come with scikit-image, which is not installed: "
            "pip install 'edge-sdk[train]'."
        )
    return paths


def background(path: Path) -> Image:
    """A photo in the size that pieces are cut from."""
    photo = _images.read_photo(path)
    scale = _PHOTO_SIDE / min(photo.size)
    return photo.resize((max(_PHOTO_SIDE, round(photo.width * scale)), max(_PHOTO_SIDE, round(photo.height * scale))))


def _folder() -> Path:
    chosen = os.environ.get(VARIABLE)
    folder = Path(chosen).expanduser() if chosen else _DEBIAN
    missing = [path.name for split in _FILES for path in _pair(folder, split) if not path.is_file()]
    if missing:
        raise MissingDependencyError(
            f"this set is made from Fashion-MNIST, and {folder} lacks {', '.join(missing)}. Run "
            f"apt-get install dataset-fashion-mnist, or set {VARIABLE} to a folder with the four *-ubyte.gz files."
        )
    return folder


def _pair(folder: Path, split: Split) -> tuple[Path, Path]:
    name = _FILES[split]
    return folder / f"{name}-images-idx3-ubyte.gz", folder / f"{name}-labels-idx1-ubyte.gz"


def _idx(path: Path) -> np.ndarray:
    """An array of bytes in the IDX format. Source: http://yann.lecun.com/exdb/mnist, "the IDX file format"."""
    import numpy as np

    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ModelError(f"{path} is no gzip file, or was cut off: {error}.") from error
    dimensions = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    shape = np.frombuffer(content[4 : 4 + 4 * dimensions], ">u4").astype(int)
    if not dimensions or len(content) != 4 + 4 * dimensions + int(np.prod(shape)):
        raise ModelError(f"{path} is no IDX file of bytes, or was cut off: it has {len(content)} bytes.")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
