"""Squares of photos, as networks are trained and judged on."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.models import _images

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class View:
    """A square of a photo.

    Attributes:
        path: The photo.
        label: The number of its class, or of its scene.
        share: Side of the square as a share of the photo's short side.
        across: Where it lies, from 0 (left) to 1 (right).
        down: From 0 (top) to 1 (bottom).
        mirrored: Left and right changed.
    """

    path: Path
    label: int
    share: float
    across: float
    down: float
    mirrored: bool

    @staticmethod
    def middle(path: Path, label: int = 0) -> View:
        """The largest square in the middle."""
        return View(path, label, 1.0, 0.5, 0.5, False)

    @staticmethod
    def drawn(path: Path, seed: int, least_share: float, label: int = 0) -> View:
        """A square of a random size and place, mirrored or not, always the same for a seed."""
        draw = random.Random(seed)
        share = least_share + (1 - least_share) * draw.random()
        return View(path, label, share, draw.random(), draw.random(), draw.random() < 0.5)

    def read(self, size: int) -> Image:
        """The square, scaled to ``size`` pixels of a side.

        Raises:
            EdgeSdkError: The photo cannot be read.
        """
        from PIL import ImageOps

        square = _images.square(_images.read_photo(self.path), self.share, self.across, self.down, size)
        return ImageOps.mirror(square) if self.mirrored else square


def identity(chosen: Sequence[View]) -> str:
    """The SHA-256 over the squares, photos by their path, size and time of change, in hexadecimal."""
    total = hashlib.sha256()
    known: dict[Path, str] = {}
    for view in chosen:
        if view.path not in known:
            facts = view.path.stat()
            known[view.path] = f"{view.path.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}"
        total.update(f"{known[view.path]}\0{view.share}\0{view.across}\0{view.down}\0{view.mirrored}\n".encode())
    return total.hexdigest()
