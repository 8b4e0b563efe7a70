"""Photos with captions: packaged ones, whose captions were written for them, or COCO's.

``captions.yaml`` holds five captions for each scene of the packaged photos. Four are learned from; the fifth, the
same in other words, judges. The photos are the same for both, so that what is judged is the wording.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from edge_sdk.errors import MissingDependencyError, ModelError, first_line
from edge_sdk.models import _photos
from edge_sdk.models._views import View
from edge_sdk.training.seeds import derived

Split = Literal["train", "val"]

EMBEDDED = "embedded"
_LEARNED = 4
_LEAST_SHARE = 0.8
_MOST_BYTES = 1 << 31


@dataclass(frozen=True)
class Captioned:
    """A square of a photo, and what people wrote of it."""

    view: View
    captions: tuple[str, ...]


def captioned(root: str, split: Split, views: int, seed: int, subset: int = 0) -> list[Captioned]:
    """The photos of a split, always the same.

    Args:
        root: ``embedded``, or COCO's folder with ``annotations/captions_train2017.json``, ``train2017`` and so on.
        split: ``train`` or ``val``.
        views: Squares of each photo to train on; those to judge with are the middle alone.
        seed: Of the places of the squares.
        subset: How many photos at most; 0: all.

    Raises:
        ModelError: A file is missing or damaged.
        MissingDependencyError: The packages with the embedded photos are not installed.
    """
    photos = _embedded(split) if root == EMBEDDED else _coco(Path(root).expanduser(), split)
    photos = photos[:subset] if subset else photos
    count = views if split == "train" else 1
    return [
        Captioned(
            View.drawn(path, derived(seed, photo, number), _LEAST_SHARE) if number else View.middle(path), captions
        )
        for photo, (path, captions) in enumerate(photos)
        for number in range(count)
    ]


@cache
def scenes() -> dict[str, tuple[str, ...]]:
    """The five captions of each scene of the packaged photos."""
    import yaml

    content = yaml.safe_load(Path(__file__).with_name("captions.yaml").read_text("utf-8"))
    return {scene: tuple(captions) for scene, captions in content.items()}


def learned_captions() -> list[str]:
    """The captions of the packaged photos that are learned from, whether or not the photos are installed."""
    return [caption for captions in scenes().values() for caption in captions[:_LEARNED]]


def _embedded(split: Split) -> list[tuple[Path, tuple[str, ...]]]:
    known = scenes()
    rows = [(photo, path) for photo in _photos.table() if photo.scene in known and (path := _photos.path(photo))]
    if not rows:
        raise MissingDependencyError(
            "the embedded photos come with scikit-image and scikit-learn, neither of which is installed: "
            "pip install 'edge-sdk[train]', or give data=coco data.root=FOLDER."
        )
    chosen = slice(None, _LEARNED) if split == "train" else slice(_LEARNED, None)
    if split == "train":
        return [(path, known[photo.scene][chosen]) for photo, path in rows]
    # One photo of a scene judges: many of a scene are nearly alike, and would count it many times.
    first = {photo.scene: path for photo, path in reversed(rows)}
    return [(path, known[scene][chosen]) for scene, path in first.items()]


def _coco(root: Path, split: Split) -> list[tuple[Path, tuple[str, ...]]]:
    """Source: COCO 2017's format, https://cocodataset.org/#format-data, "4. Image Captioning"."""
    path, folder = root / "annotations" / f"captions_{split}2017.json", root / f"{split}2017"
    for one in (path, folder):
        if not one.exists():
            raise ModelError(
                f"there is no {one}: give data.root=PATH of COCO's folder, which has annotations/captions_{split}2017"
                f".json and {split}2017/, or data=embedded."
            )
    if path.stat().st_size > _MOST_BYTES:
        raise ModelError(f"{path} is larger than {_MOST_BYTES >> 30} GiB; that is no file of captions.")
    try:
        content: Any = json.loads(path.read_bytes())
        files = {int(image["id"]): str(image["file_name"]) for image in content["images"]}
        said: dict[int, list[str]] = defaultdict(list)
        for annotation in content["annotations"]:
            said[int(annotation["image_id"])].append(str(annotation["caption"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{path} is no file of COCO's captions: {first_line(error)}.") from error
    unknown = sorted(set(said) - set(files))
    if unknown:
        raise ModelError(f"{path} has captions of {len(unknown)} images that it does not list, such as {unknown[0]}.")
    if outside := [name for name in files.values() if Path(name).name != name]:
        raise ModelError(f"{path} names the image '{outside[0]:.80}', which is not a file of {folder}.")
    if not said:
        raise ModelError(f"{path} has no captions.")
    return [(folder / files[number], tuple(captions)) for number, captions in sorted(said.items())]
