"""Squares of real photos, to train on and to judge with; no photo gives squares for both."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from edge_sdk.errors import MissingDependencyError, ModelError
from edge_sdk.models import _images, _photos
from edge_sdk.models._views import View
from edge_sdk.training.seeds import derived

Split = Literal["train", "val"]

EMBEDDED = "embedded"

_VAL_SHARE = 5  # of the packaged scenes every fifth is to judge with
_LEAST_SHARE = 0.4  # of a photo's short side, for a square that is not the only one
_VAL_OF_SUBSET = 10


def views(root: str, split: Split, count: int, seed: int, subset: int = 0) -> list[View]:
    """The squares of a split, always the same.

    Args:
        root: ``embedded``, or a folder with ``train/CLASS/`` and ``val/CLASS/``, as ImageNet has it.
        split: ``train`` or ``val``.
        count: Squares of each photo; 1 is the middle.
        seed: Of their places; those to judge with do not depend on it.
        subset: How many photos to train on, evenly spread over all; a tenth of it to judge with; 0: all.

    Raises:
        ModelError: There is no such folder, or it holds no photos.
        MissingDependencyError: The packages with the embedded photos are not installed.
    """
    photos = _embedded(split) if root == EMBEDDED else _in_folder(Path(root).expanduser(), split)
    if subset:
        wanted = subset if split == "train" else max(2, subset // _VAL_OF_SUBSET)
        photos = [photos[place] for place in _images.spread(len(photos), wanted)]
    if count == 1:
        return [View.middle(path, label) for path, label in photos]
    seed = seed if split == "train" else 0
    numbered = ((photo, path, label, number) for photo, (path, label) in enumerate(photos) for number in range(count))
    return [
        View.drawn(path, derived(seed, photo, number), _LEAST_SHARE, label) for photo, path, label, number in numbered
    ]


def _embedded(split: Split) -> list[tuple[Path, int]]:
    """Photos with the number of their scene. Scenes that travel in bundles are never trained on."""
    rows = [(photo, path) for photo in _photos.table() if (path := _photos.path(photo)) is not None]
    if not rows:
        raise MissingDependencyError(
            "the embedded photos come with scikit-image and scikit-learn, neither of which is installed: "
            "pip install 'edge-sdk[train]', or give data=imagenet data.root=FOLDER."
        )
    in_bundles = {photo.scene for photo, _ in rows if photo.file in _photos.REFERENCE}
    scenes = sorted({photo.scene for photo, _ in rows}, key=lambda name: hashlib.sha256(name.encode()).digest())
    judging = in_bundles | set(scenes[::_VAL_SHARE])
    return [(path, scenes.index(photo.scene)) for photo, path in rows if (photo.scene in judging) == (split == "val")]


def _in_folder(root: Path, split: Split) -> list[tuple[Path, int]]:
    folder = root / split
    if not folder.is_dir():
        raise ModelError(
            f"there is no folder {folder}: give data.root=PATH of a folder with train/CLASS/ and val/CLASS/, as "
            "ImageNet has it, or data=embedded."
        )
    classes = sorted(one for one in folder.iterdir() if one.is_dir())
    found = [
        (path, label)
        for label, one in enumerate(classes)
        for path in sorted(one.rglob("*"))
        if path.suffix.lower() in _images.SUFFIXES
    ]
    if not found:
        raise ModelError(
            f"{folder} holds no photos: expected a folder for each class in it, with files that end with "
            f"{', '.join(_images.SUFFIXES)}."
        )
    return found
