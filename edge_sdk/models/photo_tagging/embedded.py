"""A real multi-label set without a download: scenes of several Fashion-MNIST items on photos, in COCO's layout.

Items are real labelled photos of clothes (Debian's dataset-fashion-mnist), backgrounds are crops of
real photos that come in Python packages. Scenes to train on hold items of Fashion-MNIST's train
images on photos for calibration; scenes to judge with hold items of its t10k images on photos for
evaluation. So neither an item nor a photo serves both purposes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edge_sdk._files import atomic_dir
from edge_sdk._paths import cache_dir
from edge_sdk.errors import MissingDependencyError, ModelError
from edge_sdk.models import _images, _photos
from edge_sdk.models.photo_tagging.coco import Split, annotations_path, images_path

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

Purpose = Literal["calibration", "evaluation"]
_Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""

NAME = "embedded"
CATEGORIES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
"""In the order of Fashion-MNIST's labels."""
VARIABLE = "EDGE_SDK_FASHION_MNIST"
SIDE = 128
SCENES: dict[Split, int] = {"train": 10_000, "val": 1500}

_VERSION = 2  # raised whenever the scenes change
_DEBIAN_PHOTOS = Path("/usr/share/doc/opencv-doc")
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_FILES: dict[Split, str] = {"train": "train", "val": "t10k"}
_MOST_ITEMS = 3
_ITEM_SIDES = (48, 72)
_MARGIN = round(SIDE * (1 - 0.87) / 2)  # what the middle crop of an evaluation would cut off
_TRIES = 12  # places drawn for an item, of which the one that covers least of the others is taken
_QUALITY = 92
_PHOTO_SIDE = 360  # short side of a photo that backgrounds are cut from
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Items:
    """Fashion-MNIST's images of one split, uint8 ``[n, 28, 28]``, and their labels ``[n]``."""

    images: np.ndarray
    labels: np.ndarray


def data_root(text: str) -> Path:
    """The COCO folder that a setting names: ``embedded`` or a path.

    Raises:
        MissingDependencyError: What the embedded set is made of is not installed.
    """
    return embedded_root() if text == NAME else Path(text).expanduser()


def embedded_root() -> Path:
    """The folder of the embedded set, made first where this machine does not have it yet.

    Raises:
        MissingDependencyError: Fashion-MNIST, or the packages with photos, are not installed.
        ModelError: Fashion-MNIST's files are damaged.
        StorageError: The cache cannot be written.
    """
    source = _source()
    photos: dict[Split, list[Path]] = {"train": _packaged("calibration"), "val": _packaged("evaluation")}
    told = hashlib.sha256(f"{_VERSION} {SCENES} {_photos.digest([*photos['train'], *photos['val']])}".encode())
    for name in _FILES.values():
        for path in _parts(source, name):
            told.update(f"{path.name} {path.stat().st_size}".encode())
    root = cache_dir() / "embedded" / f"photo_tagging-{told.hexdigest()[:16]}"
    if not root.is_dir():
        _log.info("making the embedded set in %s", root)
        with atomic_dir(root) as scratch:
            for split in SCENES:
                _make(scratch, split, _read(source, _FILES[split]), photos[split])
    return root


def _source() -> Path:
    chosen = os.environ.get(VARIABLE)
    folder = Path(chosen).expanduser() if chosen else _DEBIAN
    missing = [path.name for name in _FILES.values() for path in _parts(folder, name) if not path.is_file()]
    if missing:
        raise MissingDependencyError(
            f"the embedded set is made from Fashion-MNIST, and {folder} lacks {', '.join(missing)}. Run "
            f"apt-get install dataset-fashion-mnist, or set {VARIABLE} to a folder with the four *-ubyte.gz files."
        )
    return folder


def _parts(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}-images-idx3-ubyte.gz", folder / f"{name}-labels-idx1-ubyte.gz"


def _packaged(purpose: Purpose) -> list[Path]:
    """The photos that Python packages bring; Debian's would change the set from machine to machine."""
    paths = [path for path in _photos.installed(purpose) if not path.is_relative_to(_DEBIAN_PHOTOS)]
    if not paths:
        raise MissingDependencyError(
            "the embedded set lays its items on photos that come with scikit-image, which is not installed: "
            "pip install 'edge-sdk[train]'."
        )
    return paths


def _read(folder: Path, name: str) -> _Items:
    import numpy as np

    pictures, numbers = (_idx(path) for path in _parts(folder, name))
    if pictures.shape[1:] != (28, 28) or numbers.shape != pictures.shape[:1] or np.any(numbers >= len(CATEGORIES)):
        raise ModelError(
            f"{folder} does not hold Fashion-MNIST: found images {list(pictures.shape)} and labels "
            f"{list(numbers.shape)} for {name}; expected [n, 28, 28] and [n] with labels from 0 to 9."
        )
    return _Items(pictures, numbers)


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


def _make(root: Path, split: Split, items: _Items, photos: list[Path]) -> None:
    """Draws a split's scenes; the same wherever the photos are the same."""
    import numpy as np

    draw = np.random.default_rng((_VERSION, list(SCENES).index(split)))
    counts = draw.integers(1, _MOST_ITEMS + 1, SCENES[split])
    chosen = np.split(draw.permutation(len(items.images))[: counts.sum()], counts.cumsum()[:-1])
    backgrounds = [_background(path) for path in photos]
    folder = images_path(root, split)
    folder.mkdir(parents=True)
    document = {"info": {"description": "Fashion-MNIST on photos"}, "images": [], "annotations": []}
    for number, drawn in enumerate(chosen, 1):
        name = f"{number:012d}.jpg"
        picture, boxes = _scene(backgrounds[draw.integers(len(backgrounds))], items.images[drawn], draw)
        picture.save(folder / name, quality=_QUALITY)
        document["images"].append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        for label, box in zip(items.labels[drawn], boxes, strict=True):
            identity = len(document["annotations"]) + 1
            kind = {"image_id": number, "category_id": int(label) + 1, "bbox": box, "area": box[2] * box[3]}
            document["annotations"].append({"id": identity, **kind, "iscrowd": 0})
    document["categories"] = [{"id": number, "name": name} for number, name in enumerate(CATEGORIES, 1)]
    path = annotations_path(root, split)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document))


def _background(path: Path) -> Image:
    """A photo in the size that scenes are cut from."""
    photo = _images.read_photo(path)
    scale = _PHOTO_SIDE / min(photo.size)
    return photo.resize((max(_PHOTO_SIDE, round(photo.width * scale)), max(_PHOTO_SIDE, round(photo.height * scale))))


def _scene(photo: Image, items: np.ndarray, draw: np.random.Generator) -> tuple[Image, list[_Box]]:
    """Items on a piece of a photo, and where they lie.

    Args:
        photo: What the piece is cut from, at a random place, from one to two and a half times the scene's side.
        items: uint8 ``[n, 28, 28]``, 0 where there is no item.
        draw: Gives place, size, tint and whether an item is mirrored.
    """
    import numpy as np
    from PIL import Image as pillow

    side = int(draw.integers(SIDE, int(SIDE * 2.5) + 1))
    left, top = (int(draw.integers(room - side + 1)) for room in photo.size)
    piece = photo.resize((SIDE, SIDE), pillow.Resampling.BILINEAR, (left, top, left + side, top + side))
    scene = np.asarray(piece, np.float32).copy()
    boxes: list[_Box] = []
    for item in items:
        box = _place(boxes, draw)
        left, top, side, _ = box
        pixels = item[:, ::-1] if draw.random() < 0.5 else item
        enlarged = pillow.fromarray(np.ascontiguousarray(pixels)).resize(box[2:], pillow.Resampling.BILINEAR)
        intensity = np.asarray(enlarged, np.float32)[..., None] / 255
        alpha = np.minimum(1, intensity * 4)  # dark parts of an item hide the photo as well
        tint = draw.uniform(90, 255, 3)
        under = scene[top : top + side, left : left + side]
        under += alpha * (intensity * tint - under)
        boxes.append(box)
    return pillow.fromarray(scene.round().clip(0, 255).astype(np.uint8)), boxes


def _place(others: list[_Box], draw: np.random.Generator) -> _Box:
    """Of some random boxes in the middle of a scene the one that shares the least area with others."""
    best, least = None, float("inf")
    for _ in range(_TRIES):
        side = int(draw.integers(_ITEM_SIDES[0], _ITEM_SIDES[1] + 1))
        left, top = (int(place) for place in draw.integers(_MARGIN, SIDE - _MARGIN - side + 1, 2))
        shared = sum(_shared((left, top, side, side), other) for other in others) / side**2
        if shared < least:
            best, least = (left, top, side, side), shared
    assert best is not None
    return best


def _shared(one: _Box, other: _Box) -> int:
    """The area that two boxes share, in pixels."""
    across = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    down = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    return max(0, across) * max(0, down)
