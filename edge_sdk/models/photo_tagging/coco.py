"""COCO for tagging: which images have which of the categories, read once and kept as a compact index.

The layout is that of COCO 2017: ``ROOT/annotations/instances_{train,val}2017.json`` and
``ROOT/{train,val}2017/*.jpg``. The index lies in the SDK's cache; a data set is never written to.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edge_sdk._files import write_atomic
from edge_sdk._paths import cache_dir
from edge_sdk.errors import ModelError, StorageError

if TYPE_CHECKING:
    import numpy as np

Split = Literal["train", "val"]

FORMAT = 1
_SHOWN = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Index:
    """The images of one split and their tags.

    Attributes:
        root: The data set's folder.
        split: ``train`` or ``val``.
        categories: The categories' names, in the order of their numbers.
        files: The images, in the order of their numbers. Images without any tag are among them.
        labels: 1 where an image has a category, uint8 ``[images, categories]``. A crowd of things
            (``iscrowd``) counts as much as a single one.
    """

    root: Path
    split: Split
    categories: tuple[str, ...]
    files: tuple[Path, ...]
    labels: np.ndarray


def annotations_path(root: Path, split: Split) -> Path:
    """Where a split's annotations lie."""
    return root / "annotations" / f"instances_{split}2017.json"


def images_path(root: Path, split: Split) -> Path:
    """Where a split's images lie."""
    return root / f"{split}2017"


def read_index(root: Path, split: Split) -> Index:
    """The index of one split, from the cache or from the annotations.

    Args:
        root: The data set's folder.
        split: ``train`` or ``val``.

    Raises:
        ModelError: A part of the folder is missing, the annotations are no COCO annotations, or they
            name images that are not there.
    """
    root = root.expanduser()
    _check_parts(root, split)
    names, categories, labels = _cached(annotations_path(root, split))
    folder = images_path(root, split)
    _check_images(names, folder, root, split)
    return Index(root, split, categories, tuple(folder / name for name in names), labels)


def fetch_advice(root: Path, split: Split) -> str:
    """The command that fetches what a split needs."""
    only = " --val-only" if split == "val" else ""
    return f"edge-sdk train photo_tagging --download {root}{only}"


def _check_parts(root: Path, split: Split) -> None:
    parts = (annotations_path(root, split), images_path(root, split))
    missing = [part for part in parts if not part.exists()]
    if not missing:
        return
    lacks = " and ".join(str(part.relative_to(root)) for part in missing)
    there = "is half there: it lacks" if root.is_dir() and any(root.iterdir()) else "is not there: it needs"
    raise ModelError(f"the COCO folder {root} {there} {lacks}. Fetch it with: {fetch_advice(root, split)}")


def _check_images(names: Iterable[str], folder: Path, root: Path, split: Split) -> None:
    with os.scandir(folder) as entries:
        there = {entry.name for entry in entries}
    if missing := [name for name in names if name not in there]:
        more = ", ..." if len(missing) > _SHOWN else ""
        plural = "s" if len(missing) > 1 else ""
        raise ModelError(
            f"{annotations_path(root, split)} names {len(missing)} image{plural} that {folder} does not hold "
            f"({', '.join(missing[:_SHOWN])}{more}). Fetch them with: {fetch_advice(root, split)}"
        )


_Content = tuple[tuple[str, ...], tuple[str, ...], "np.ndarray"]
"""Names of the images' files, names of the categories, labels."""


def _cached(path: Path) -> _Content:
    """What the annotations say, read anew only where the file has changed."""
    about = path.stat()
    told = f"{FORMAT}\0{path.resolve()}\0{about.st_size}\0{about.st_mtime_ns}"
    kept = cache_dir() / "coco" / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.npz"
    if (content := _unpacked(kept)) is not None:
        return content
    content = _read(path)
    try:
        write_atomic(kept, _packed(content))
    except StorageError as error:
        _log.warning("the index of %s is not kept: %s", path, error)
    return content


def _packed(content: _Content) -> bytes:
    import numpy as np

    names, categories, labels = content
    buffer = io.BytesIO()
    np.savez_compressed(buffer, names=np.array(names), categories=np.array(categories), labels=labels)
    return buffer.getvalue()


def _unpacked(path: Path) -> _Content | None:
    """What was kept, None where nothing was or where it is damaged."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as kept:
            names, categories, labels = kept["names"], kept["categories"], kept["labels"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        _log.warning("%s is damaged and made anew: %s", path, error)
        return None
    if labels.shape != (len(names), len(categories)) or labels.dtype != np.uint8:
        return None
    return tuple(map(str, names)), tuple(map(str, categories)), labels


def _read(path: Path) -> _Content:
    _log.info("reading %s", path)
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} is not JSON: {error}. It may have been cut off; fetch the annotations again."
        ) from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        return _indexed(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        found = f"it lacks the key {error}" if isinstance(error, KeyError) else str(error)
        raise ModelError(
            f"{path} holds no COCO annotations: {found}. Expected 'images' with 'id' and 'file_name', 'categories' "
            "with 'id' and 'name', and 'annotations' with 'image_id' and 'category_id'."
        ) from error


def _indexed(document: Mapping[str, Any]) -> _Content:
    """The content of a document.

    Raises:
        KeyError: A key is missing.
        TypeError: Something is of another kind.
        ValueError: Something does not fit together.
    """
    import numpy as np

    if not isinstance(document, Mapping):
        raise TypeError(f"it is a {type(document).__name__} instead of a mapping")
    categories = sorted((one["id"], str(one["name"])) for one in document["categories"])
    pictures = sorted((one["id"], _plain(one["file_name"])) for one in document["images"])
    if not categories or not pictures:
        raise ValueError("it has no categories" if not categories else "it has no images")
    column = {number: place for place, (number, _) in enumerate(categories)}
    row = {number: place for place, (number, _) in enumerate(pictures)}
    if len(column) < len(categories) or len(row) < len(pictures):
        raise ValueError("a number is given to several categories or images")
    labels = np.zeros((len(pictures), len(categories)), np.uint8)
    for one in document["annotations"]:
        image, category = one["image_id"], one["category_id"]
        if image not in row or category not in column:
            raise ValueError(f"an annotation names image {image!r} and category {category!r}, one of which it lacks")
        labels[row[image], column[category]] = 1
    return tuple(name for _, name in pictures), tuple(name for _, name in categories), labels


def _plain(name: object) -> str:
    """A file's name, which leads to no other folder."""
    if not isinstance(name, str) or Path(name).name != name or name in ("", ".."):
        raise ValueError(f"the file name {name!r:.80} is no plain name")
    return name
