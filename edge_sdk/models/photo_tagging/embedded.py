"""A real multi-label set without a download: scenes of several Fashion-MNIST items on photos, in COCO's layout.

Items are real labelled photos of clothes (Debian's dataset-fashion-mnist), backgrounds are crops of
real photos that come in Python packages. Scenes to train on hold items of Fashion-MNIST's train
images on photos for calibration; scenes to judge with hold items of its t10k images on photos for
evaluation. So neither an item nor a photo serves both purposes.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk._files import atomic_dir
from edge_sdk._paths import cache_dir
from edge_sdk.models import _fashion, _photos
from edge_sdk.models.photo_tagging.coco import Split, annotations_path, images_path

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

_Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""

NAME = "embedded"
SIDE = 128
SCENES: dict[Split, int] = {"train": 10_000, "val": 1500}

_VERSION = 2  # raised whenever the scenes change
_MOST_ITEMS = 3
_ITEM_SIDES = (48, 72)
_MARGIN = round(SIDE * (1 - 0.87) / 2)  # what the middle crop of an evaluation would cut off
_TRIES = 12  # places drawn for an item, of which the one that covers least of the others is taken
_QUALITY = 92
_log = logging.getLogger(__name__)


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
    files = _fashion.files()
    photos: dict[Split, list[Path]] = {
        "train": _fashion.background_photos("calibration"),
        "val": _fashion.background_photos("evaluation"),
    }
    told = hashlib.sha256(f"{_VERSION} {SCENES} {_photos.digest([*photos['train'], *photos['val']])}".encode())
    for path in files:
        told.update(f"{path.name} {path.stat().st_size}".encode())
    root = cache_dir() / "embedded" / f"photo_tagging-{told.hexdigest()[:16]}"
    if not root.is_dir():
        _log.info("making the embedded set in %s", root)
        with atomic_dir(root) as scratch:
            for split in SCENES:
                _make(scratch, split, _fashion.items(split), photos[split])
    return root


def _make(root: Path, split: Split, items: _fashion.Items, photos: list[Path]) -> None:
    """Draws a split's scenes; the same wherever the photos are the same."""
    import numpy as np

    draw = np.random.default_rng((_VERSION, list(SCENES).index(split)))
    counts = draw.integers(1, _MOST_ITEMS + 1, SCENES[split])
    chosen = np.split(draw.permutation(len(items.images))[: counts.sum()], counts.cumsum()[:-1])
    backgrounds = [_fashion.background(path) for path in photos]
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
    document["categories"] = [{"id": number, "name": name} for number, name in enumerate(_fashion.CATEGORIES, 1)]
    path = annotations_path(root, split)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document))


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
