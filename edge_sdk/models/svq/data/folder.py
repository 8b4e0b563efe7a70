"""A folder of images with masks, such as CLEVR's.

```
ROOT/images/NAME.png                     JPEG as well
ROOT/masks/NAME.png                      a label map: 0 background, every other value an object
ROOT/masks/NAME/*.png, masks/NAME_K.png  or one file an object: non-zero where it is, later files in front
```

ROOT may hold this itself, or a folder ``train`` and a folder ``val`` that do. Without them an image belongs to
``val`` where the first byte of its name's SHA-256 is below 26: about a tenth of the images.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from edge_sdk.errors import ModelError
from edge_sdk.models import _images
from edge_sdk.models.svq.data._labelled import Arrays, Attribute, LabelledImages, check_range

_TABLE = (Attribute("x"), Attribute("y"), Attribute("size"))
_IMAGES = (".png", ".jpg", ".jpeg")
_PART = re.compile(r"(.+)_(\d+)")
_VAL_BYTE = 26
_MOST_OBJECTS = 255  # what a label map of bytes can number


class MaskedFolder(LabelledImages):
    """The images of a folder with the masks of their objects, cut to the square in the middle and scaled.

    Attributes of an object come from its mask: x and y of its middle and its size, the square root of its
    area, as shares of the side. Objects that the cut leaves out are not counted.

    Args:
        root: The folder.
        image_size: Side in pixels, 16 to 512.
        split: ``train`` or ``val``; every image of a folder without these two where left out.
        most: Read the first images by name, this many.
        with_labels: Whether an item holds the truth beside the image.

    Raises:
        ModelError: The folder, its images or masks are missing, unreadable or do not fit each other.
    """

    def __init__(
        self,
        root: str | Path,
        image_size: int = 64,
        *,
        split: Literal["train", "val"] | None = None,
        most: int | None = None,
        with_labels: bool = False,
    ):
        check_range("image_size", image_size, 16, 512)
        folder, files = _files(Path(root).expanduser(), split)
        masks = _Masks(folder / "masks", {path.stem for path in files})
        images, labels = [], []
        for path in files[:most]:
            image = _images.read_photo(path)
            label_map = masks.label_map(path, image.size)
            images.append(np.asarray(_images.center_square(image, 1.0, image_size)))
            labels.append(_numbered(_cut(label_map, image_size), path))
        stacked = np.stack(labels)
        attributes, present = _measured(stacked)
        super().__init__(Arrays(np.stack(images), stacked, attributes, present), _TABLE, with_labels=with_labels)


def _files(root: Path, split: str | None) -> tuple[Path, list[Path]]:
    """The folder with ``images`` and ``masks`` of a split, and the images that belong to it."""
    has_splits = any((root / name).is_dir() for name in ("train", "val"))
    folder = root / split if split and has_splits else root
    for part in ("images", "masks"):
        if not (folder / part).is_dir():
            raise ModelError(
                f"there is no folder {folder / part}: expected images in {folder / 'images'} and their masks in "
                f"{folder / 'masks'}. Give the folder that holds both, or train and val that do."
            )
    files = sorted(path for path in (folder / "images").iterdir() if path.suffix.lower() in _IMAGES)
    if not files:
        raise ModelError(f"{folder / 'images'} is empty: found no PNG or JPEG file. Put images there.")
    name, count = Counter(path.stem for path in files).most_common(1)[0]
    if count > 1:
        raise ModelError(f"{folder / 'images'} has {count} images named {name}, which would share a mask: rename them.")
    if split and not has_splits:
        wanted = [path for path in files if _is_val(path) == (split == "val")]
        if not wanted:
            raise ModelError(
                f"none of the {len(files)} images of {folder / 'images'} belongs to {split}: the split by name gives "
                "val about a tenth. Give more images, or sort them into the folders train and val."
            )
        files = wanted
    return folder, files


def _is_val(path: Path) -> bool:
    return hashlib.sha256(path.stem.encode()).digest()[0] < _VAL_BYTE


class _Masks:
    """The mask files of a folder, by the name of their image."""

    def __init__(self, folder: Path, names: set[str]):
        self.folder = folder
        self.label_maps: dict[str, Path] = {}
        self.parts: dict[str, list[Path]] = defaultdict(list)
        for path in folder.iterdir():
            if path.is_dir():
                self.parts[path.name] += path.glob("*.png")
            elif path.suffix == ".png" and path.stem in names:
                self.label_maps[path.stem] = path
            elif path.suffix == ".png" and (split := _PART.fullmatch(path.stem)):
                self.parts[split[1]].append(path)

    def label_map(self, image: Path, size: tuple[int, int]) -> np.ndarray:
        """Which object each pixel of an image belongs to, ``[height, width]``."""
        if image.stem in self.label_maps:
            return _read_mask(self.label_maps[image.stem], size)
        parts = sorted(self.parts.get(image.stem, ()), key=lambda path: (len(path.stem), path.stem))  # 2 before 10
        if not parts:
            raise ModelError(
                f"{image} has no mask: expected {self.folder / image.stem}.png, files in {self.folder / image.stem}/, "
                f"or {image.stem}_1.png and so on."
            )
        labels = np.zeros((size[1], size[0]), np.int64)
        for number, part in enumerate(parts, 1):
            labels[_read_mask(part, size) > 0] = number
        return labels


def _read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A mask's values, ``[height, width]``.

    Raises:
        ModelError: It is damaged, in colour, or of another size than its image.
    """
    try:
        with Image.open(path) as mask:
            mode, found, values = mask.mode, mask.size, np.asarray(mask)
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ModelError(f"the mask {path} cannot be read as an image: {error}.") from error
    if values.ndim != 2 or mode == "F":
        raise ModelError(
            f"the mask {path} is of mode {mode}: expected one channel of whole numbers (grey or palette), 0 for the "
            "background and another value for each object."
        )
    if found != size:
        raise ModelError(
            f"the mask {path} is {found[0]}x{found[1]} pixels: expected {size[0]}x{size[1]}, as its image."
        )
    return values.astype(np.int64)


def _cut(labels: np.ndarray, side: int) -> np.ndarray:
    """The square in the middle, scaled by the nearest pixel, so that no label is mixed from two."""
    height, width = labels.shape
    short = min(height, width)
    steps = ((np.arange(side) + 0.5) * short / side).astype(int)
    return labels[(height - short) // 2 + steps][:, (width - short) // 2 + steps]


def _numbered(labels: np.ndarray, image: Path) -> np.ndarray:
    """Labels numbered 1, 2, 3 in the order of their values: uint8."""
    values = np.unique(labels[labels > 0])
    if len(values) > _MOST_OBJECTS:
        raise ModelError(
            f"the masks of {image} hold {len(values)} objects: expected at most {_MOST_OBJECTS}. Are they label maps?"
        )
    return np.where(labels > 0, np.searchsorted(values, labels) + 1, 0).astype(np.uint8)


def _measured(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Attributes ``[n, o, 3]`` and presence ``[n, o]`` of label maps ``[n, s, s]``."""
    images, side = labels.shape[:2]
    objects = max(1, int(labels.max()))
    cells = (np.arange(images)[:, None, None] * (objects + 1) + labels).ravel()

    def total(weights: np.ndarray | None = None) -> np.ndarray:
        spread = None if weights is None else np.broadcast_to(weights, labels.shape).ravel()
        return np.bincount(cells, spread, images * (objects + 1)).reshape(images, -1)[:, 1:]

    places, area = (np.arange(side) + 0.5) / side, total()
    middles = [total(weights) / np.maximum(area, 1) for weights in (places, places[:, None])]
    return np.stack([*middles, np.sqrt(area) / side], -1).astype(np.float32), area > 0
