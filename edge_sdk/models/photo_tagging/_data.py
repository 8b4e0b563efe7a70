"""Which photos of a COCO folder calibrate and which judge, and what becomes of those that are damaged."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from edge_sdk.errors import ModelError

if TYPE_CHECKING:
    import numpy as np

    from edge_sdk.models.photo_tagging.coco import Index

MOST_CORRUPT = 0.01
"""The largest share of images that may be damaged; with more of them a figure would not be that of the data set."""

_SHOWN = 3
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Skips:
    """Images that could not be read: left out, counted and named, until there are too many.

    Args:
        what: Whose images they are, for messages.
        total: How many images there are in all.
    """

    def __init__(self, what: str, total: int) -> None:
        self.reasons: dict[Path, str] = {}
        self._what = what
        self._total = total

    def add(self, path: Path, reason: str) -> None:
        """Counts an image, once however often it is met.

        Raises:
            ModelError: More than 1 % of all images are damaged.
        """
        if path in self.reasons:
            return
        self.reasons[path] = reason
        _log.warning("%s: an image is left out: %s", self._what, reason)
        if len(self.reasons) > MOST_CORRUPT * self._total:
            more = ", ..." if len(self.reasons) > _SHOWN else ""
            raise ModelError(
                f"{self._what}: {len(self.reasons)} of {self._total} images cannot be read, which is more than "
                f"{MOST_CORRUPT:.0%} ({', '.join(path.name for path in list(self.reasons)[:_SHOWN])}{more}). "
                f"The first: {next(iter(self.reasons.values()))} Fetch the images again."
            )


def readable(files: Sequence[Path], read: Callable[[Path], _T], skips: Skips) -> Iterator[tuple[int, _T]]:
    """What could be read of some images, each with its place among them.

    Args:
        files: The images.
        read: Reads one of them, and raises `ModelError` where it is damaged.
        skips: Gets those that are damaged.

    Raises:
        ModelError: Too many are damaged.
    """
    for place, path in enumerate(files):
        try:
            content = read(path)
        except ModelError as error:
            skips.add(path, str(error))
        else:
            yield place, content


def evenly(total: int, wanted: int) -> list[int]:
    """So many places of ``total``, evenly spread from the first on; all of them where fewer are there or 0 is given."""
    count = min(wanted, total) if wanted else total
    return [place * total // count for place in range(count)]


@dataclass(frozen=True)
class TaggingData:
    """A COCO folder as calibration and evaluation data.

    Attributes:
        root: The folder.
        calibration_images: How many of the train split calibrate, 0 for all.
        eval_images: How many of the val split judge, 0 for all.
    """

    root: Path
    calibration_images: int
    eval_images: int

    @cached_property
    def val(self) -> Index:
        """The split to judge with, which also names the categories."""
        from edge_sdk.models.photo_tagging.coco import read_index

        return read_index(self.root, "val")

    @cached_property
    def train(self) -> Index:
        """The split to calibrate with.

        Raises:
            ModelError: It is not there, or has other categories than the val split.
        """
        from edge_sdk.models.photo_tagging.coco import read_index

        found = read_index(self.root, "train")
        if found.categories != self.val.categories:
            raise ModelError(
                f"{self.root}: the train split has {len(found.categories)} categories and the val split "
                f"{len(self.val.categories)}, or others; expected the same in the same order."
            )
        return found

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories' names, in the order of the outputs."""
        return self.val.categories

    def calibration_files(self) -> list[Path]:
        """Photos of the train split, evenly spread over it."""
        return [self.train.files[place] for place in evenly(len(self.train.files), self.calibration_images)]

    def evaluation_files(self) -> tuple[list[Path], np.ndarray]:
        """Photos of the val split, evenly spread over it, and their labels ``[photos, categories]``."""
        places = evenly(len(self.val.files), self.eval_images)
        return [self.val.files[place] for place in places], self.val.labels[places]

    def identity(self) -> str:
        """The SHA-256 over the labels of both splits, the photos to calibrate with, and the sizes of those to judge."""
        from edge_sdk.models._photos import digest
        from edge_sdk.models.photo_tagging.coco import annotations_path

        total = hashlib.sha256(index_identity(self.val).encode())
        total.update("".join(str(path.stat().st_size) + "\n" for path in self.evaluation_files()[0]).encode())
        if annotations_path(self.root, "train").exists():  # who only judges needs no train split
            total.update(f"{index_identity(self.train)} {digest(self.calibration_files())}".encode())
        return total.hexdigest()


def index_identity(index: Index) -> str:
    """The SHA-256 over an index: its categories, the names of its images and their labels."""
    total = hashlib.sha256("\n".join([*index.categories, "", *(path.name for path in index.files)]).encode())
    total.update(index.labels.tobytes())
    return total.hexdigest()
