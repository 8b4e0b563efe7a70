"""Real photos that come in packages, split once and for all into calibration and evaluation.

The split stands in ``photos.txt``, by scene, so that no photo and no near-duplicate of it serves
both purposes. Packages are found without importing them. Photos of Debian's opencv-doc take part
where that package is installed.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from edge_sdk.errors import MissingDependencyError

_TABLE = Path(__file__).with_name("photos.txt")
_OPENCV_DOC = Path("/usr/share/doc/opencv-doc")
_IN_PYTHON_PACKAGE = {"scikit-image": ("skimage", "data"), "scikit-learn": ("sklearn", "datasets/images")}

REFERENCE = ("coffee.png", "chelsea.png", "rocket.jpg", "camera.png")
"""Photos of scikit-image that travel in bundles; none of them is used for calibration."""

_DEMO = (
    *REFERENCE,
    "examples/data/baboon.jpg",
    "examples/data/orange.jpg",
    "examples/data/apple.jpg",
    "examples/data/messi5.jpg",
    "examples/data/chicky_512.png",
    "examples/dnn_superres/butterfly.png",
    "examples/hfs/data/001.jpg",
    "examples/data/fruits.jpg",
)


@dataclass(frozen=True)
class Photo:
    """A row of ``photos.txt``. Photos that share a ``scene`` are near-duplicates."""

    purpose: Literal["calibration", "evaluation"]
    scene: str
    package: str
    file: str


@functools.cache
def table() -> tuple[Photo, ...]:
    """Every row of ``photos.txt``, installed or not."""
    lines = (line.split() for line in _TABLE.read_text().splitlines() if line and not line.startswith("#"))
    return tuple(Photo(cast(Literal["calibration", "evaluation"], purpose), *rest) for purpose, *rest in lines)


def installed(purpose: Literal["calibration", "evaluation"]) -> list[Path]:
    """The photos for one purpose that this machine has, in the table's order."""
    paths = (path(photo) for photo in table() if photo.purpose == purpose)
    return [path for path in paths if path is not None]


def path(photo: Photo) -> Path | None:
    """Where the photo lies, or None where its package, or that version of it, does not have it."""
    folder = _folder(photo.package)
    if folder is None:
        return None
    file = folder / photo.file
    return file if file.is_file() else None


def calibration_photos() -> list[Path]:
    """The photos to calibrate with; Python packages hold them all.

    Raises:
        MissingDependencyError: None is installed.
    """
    paths = installed("calibration")
    if not paths:
        raise MissingDependencyError(
            "there are no photos to calibrate with: they come with scikit-image and scikit-learn, neither of "
            "which is installed. Run pip install 'edge-sdk[demo]', or give your own photos as calibration data."
        )
    return paths


def reference_photos() -> list[Path]:
    """At most four photos that are not used for calibration; an empty list where none is installed."""
    return _named(REFERENCE)


def demo_photos() -> list[Path]:
    """Recognisable photos for a demonstration, none used for calibration; more of them with opencv-doc."""
    return _named(_DEMO)


def digest(paths: list[Path]) -> str:
    """The SHA-256 over the names and contents of photos, in order, in hexadecimal."""
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def _named(files: tuple[str, ...]) -> list[Path]:
    rows = {photo.file: photo for photo in table() if photo.purpose == "evaluation"}
    paths = (path(rows[file]) for file in files)
    return [path for path in paths if path is not None]


@functools.cache
def _folder(package: str) -> Path | None:
    if package == "opencv-doc":
        return _OPENCV_DOC if _OPENCV_DOC.is_dir() else None
    module, folder = _IN_PYTHON_PACKAGE[package]
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / folder
