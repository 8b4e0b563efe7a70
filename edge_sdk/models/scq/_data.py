"""Patches of real photos, to train on and to judge with; no photo gives patches for both.

Photos are held in memory in up to three scales, each half as large as the one before, so that a patch
may show a detail or a good part of the scene.

Shapes: n patches, s pixels of a side, h and w pixels of a photo.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edge_sdk.errors import MissingDependencyError, ModelError, unknown_name
from edge_sdk.models import _images, _photos

if TYPE_CHECKING:
    import numpy as np

Split = Literal["train", "val"]

EMBEDDED = "embedded"
CACHE_MIB = 1024
"""How much memory the photos of a split may take, unless told otherwise."""
_NO_LIMIT_MIB = 1 << 40

SCENES: dict[str, dict[Split, tuple[str, ...]]] = {
    "food_ar": {
        "train": ("fruits", "orange", "peppers", "smarties", "flower", "plant", "aloe", "astronaut", "coins", "stuff"),
        "val": ("coffee", "apple", "pumpkin"),
    },
    "nav_ar": {
        "train": (
            *("china", "motorcycle", "home", "building", "leuven", "facade", "urban", "arch", "graf", "aero"),
            *("scenetext01", "scenetext03", "scenetext04", "scenetext05", "scenetext_segmented_word01"),
            *("scenetext_segmented_word02", "lake", "pasture", "tree", "brick", "gravel", "grass"),
        ),
        "val": ("bus", "scenetext02", "scenetext06", "licenseplate_motion", "brick-house", "rocket", "camera"),
    },
}
"""The scenes of ``photos.txt`` that each task takes: food and things on a table, or streets, signs and buildings.

What travels in bundles (`_photos.REFERENCE`) is never trained on.
"""

_LEVELS = 3
_MOST_SIDES = 8  # a photo's short side is reduced to so many patches: more of it would only be less sharp
_ROOM = 2  # so many patches lie side by side in a smaller scale: in less they would all be alike
_MOST_UNUSABLE = 0.01
_VAL_SHARE = 10  # of a folder without splits every tenth photo is to judge with
_log = logging.getLogger(__name__)


def files(root: str, task: str, split: Split) -> list[Path]:
    """The photos of a split.

    Args:
        root: ``embedded``, or a folder: with ``train/`` and ``val/`` in it, or photos that the hashes of their
            names split nine to one.
        task: Which of the embedded photos.
        split: ``train`` or ``val``.

    Raises:
        ModelError: The task is unknown; there is no such folder; it holds no photo for one of the splits.
        MissingDependencyError: The packages whose photos the task takes are not installed.
    """
    if task not in SCENES:
        raise ModelError(unknown_name("task", task, SCENES))
    return _embedded(task, split) if root == EMBEDDED else _in_folder(Path(root).expanduser(), split)


def identity(root: str, task: str) -> str:
    """The SHA-256 over the photos of both splits, in hexadecimal.

    Raises:
        EdgeSdkError: As `files`.
    """
    splits: tuple[Split, ...] = ("train", "val")
    return hashlib.sha256(" ".join(_photos.digest(files(root, task, split)) for split in splits).encode()).hexdigest()


def patches(root: str, task: str, split: Split, size: int, count: int, seed: int) -> np.ndarray:
    """Patches at places that only the seed decides, each photo giving as many as any other.

    Args:
        root: ``embedded`` or a folder, as for `files`.
        task: Which of the embedded photos.
        split: ``train`` or ``val``.
        size: Pixels of a side.
        count: How many.
        seed: Of the places.

    Returns:
        uint8 ``[n, s, s, 3]``.

    Raises:
        EdgeSdkError: As `files` and `read`.
    """
    paths = files(root, task, split)
    return read([paths[place] for place in _images.spread(len(paths), count)], size, _NO_LIMIT_MIB).fixed(count, seed)


@dataclass(frozen=True)
class Photos:
    """Photos in memory.

    Attributes:
        levels: For each photo its scales, largest first, uint8 ``[h, w, 3]``.
        size: Pixels of a patch's side, which no scale is smaller than.
        unusable: Name of each photo that was left out, to the reason.
    """

    levels: tuple[tuple[np.ndarray, ...], ...]
    size: int
    unusable: dict[str, str]

    def patch(self, draw: np.random.Generator, photo: int | None = None) -> np.ndarray:
        """One patch ``[s, s, 3]``, of a given photo or of any.

        Args:
            draw: Decides the photo, its scale, and the place.
            photo: Which one.
        """
        scales = self.levels[int(draw.integers(len(self.levels))) if photo is None else photo]
        pixels = scales[int(draw.integers(len(scales)))]
        top, left = (int(draw.integers(room - self.size + 1)) for room in pixels.shape[:2])
        return pixels[top : top + self.size, left : left + self.size]

    def fixed(self, count: int, seed: int) -> np.ndarray:
        """``[n, s, s, 3]``, the photos taking turns."""
        import numpy as np

        draw = np.random.default_rng(seed)
        return np.stack([self.patch(draw, number % len(self.levels)) for number in range(count)])


def read(paths: Sequence[Path], size: int, cache_mib: int = CACHE_MIB) -> Photos:
    """Reads photos into memory.

    Args:
        paths: The photos.
        size: Pixels of a patch's side.
        cache_mib: How much they may take.

    Raises:
        ModelError: More than 1 % of them, or all, cannot be read or are smaller than a patch; or they take too
            much memory.
    """
    found: list[tuple[np.ndarray, ...]] = []
    unusable: dict[str, str] = {}
    taken = 0
    for path in paths:
        try:
            levels = tuple(_levels(path, size))
        except ModelError as error:
            unusable[path.name] = str(error)
            _log.warning("a photo is left out: %s", error)
            continue
        taken += sum(level.nbytes for level in levels)
        if taken > cache_mib << 20:
            raise ModelError(
                f"the photos take more than {cache_mib} MiB of memory: {len(found)} of {len(paths)} fit. Give "
                f"data.photos={max(1, len(found))}, or data.cache_mib=N where there is more."
            )
        found.append(levels)
    if len(unusable) > _MOST_UNUSABLE * len(paths) or not found:
        names = list(unusable)
        raise ModelError(
            f"{len(unusable)} of {len(paths)} photos cannot be used, more than {_MOST_UNUSABLE:.0%} "
            f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}). The first: {unusable[names[0]]} "
            "Replace them or take them out of the folder."
        )
    return Photos(tuple(found), size, unusable)


def _levels(path: Path, size: int) -> Iterator[np.ndarray]:
    """A photo in each scale that has room for patches."""
    import numpy as np
    from PIL.Image import Resampling

    photo = _images.read_photo(path)
    short = min(photo.size)
    if short < size:
        raise ModelError(
            f"{path} has {photo.width} x {photo.height} pixels; a patch takes at least {size} x {size}. "
            "Give larger photos, or a smaller size."
        )
    scale = min(1.0, _MOST_SIDES * size / short)
    for level in range(_LEVELS):
        if level and short * scale < _ROOM * size:
            return
        sides = (max(size, round(photo.width * scale)), max(size, round(photo.height * scale)))
        yield np.asarray(photo if sides == photo.size else photo.resize(sides, Resampling.BOX, reducing_gap=2.0))
        scale /= 2


def _embedded(task: str, split: Split) -> list[Path]:
    wanted = SCENES[task][split]
    rows = [photo for photo in _photos.table() if photo.scene in wanted]
    paths = [path for path in map(_photos.path, rows) if path is not None]
    if not paths:
        raise MissingDependencyError(
            f"task '{task}' takes its patches from photos that come with scikit-image and scikit-learn, neither of "
            "which is installed: pip install 'edge-sdk[train]', or give a folder of your own: "
            "data.root=FOLDER to train with, --set data=FOLDER to deploy with."
        )
    return paths


def _in_folder(root: Path, split: Split) -> list[Path]:
    if not root.is_dir():
        raise ModelError(f"there is no folder of photos at {root}: give the path of one, or embedded.")
    if (root / "train").is_dir() or (root / "val").is_dir():
        return _found(root / split)
    photos = sorted(_found(root), key=lambda path: hashlib.sha256(path.name.encode()).digest())
    if len(photos) < 2:
        raise ModelError(f"{root} holds a single photo; expected at least two, one to train on and one to judge with.")
    judges = max(1, len(photos) // _VAL_SHARE)
    return sorted(photos[:judges] if split == "val" else photos[judges:])


def _found(folder: Path) -> list[Path]:
    """The photos in a folder and in those below it, by path."""
    within: Iterable[Path] = folder.rglob("*") if folder.is_dir() else ()
    inside = [path for path in within if path.is_file()]
    photos = sorted(path for path in inside if path.suffix.lower() in _images.SUFFIXES)
    if not photos:
        held = f"it holds {len(inside)} other files" if inside else "it is empty or not there"
        raise ModelError(
            f"there is no photo in {folder}: {held}; expected files that end with {', '.join(_images.SUFFIXES)}."
        )
    return photos
