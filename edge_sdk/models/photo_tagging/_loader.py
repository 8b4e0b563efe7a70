"""Feeds training: photos in batches of bytes, in an order that only seed and epoch decide.

A photo to train on is a square at a random place along its longer side, slightly larger than the
network's input, for the augmentation to cut from. A photo to judge with is cut exactly as
`PhotoTagging.preprocess` does. A small set is decoded once and kept in memory.

Shapes: b batch, c classes, s pixels of a side.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from edge_sdk.errors import ModelError
from edge_sdk.models import _images
from edge_sdk.models.photo_tagging._data import Skips
from edge_sdk.models.photo_tagging.coco import Index
from edge_sdk.models.photo_tagging.plugin import _SHARE as SHARE
from edge_sdk.training.seeds import derived

Place = tuple[int, int]
"""An epoch and the number of an image."""

_MOST_WORKERS = 16


class Batch(TypedDict):
    """What the loader gives.

    Attributes:
        images: uint8 ``[b, 3, s, s]``.
        labels: float32 ``[b, c]``.
        indices: The images' numbers in the index, int64 ``[b]``.
        faults: Path and reason of each image that could not be read; it is not in the batch.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    faults: list[tuple[Path, str]]


class Photos(Dataset):
    """A split's photos as bytes.

    Args:
        index: The split.
        size: Pixels of the network's input.
        seed: Decides where the squares to train on lie.

    Attributes:
        kept: The pixels of each ``[h, w, 3]``, or why it cannot be read, after `keep`.
    """

    def __init__(self, index: Index, size: int, seed: int) -> None:
        self.index = index
        self.size = size
        self.seed = seed
        self.is_training = index.split == "train"
        self.kept: list[np.ndarray | str] = []

    @property
    def side(self) -> int:
        """Pixels of the squares that it gives."""
        return round(self.size / SHARE) if self.is_training else self.size

    @property
    def bytes_in_memory(self) -> int:
        """What `keep` takes: photos to train on are kept whole, most of them at four to three."""
        return len(self.index.files) * self.side**2 * 3 * (4 if self.is_training else 3) // 3

    def keep(self) -> None:
        """Decodes all of them, so that later epochs read no file."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            self.kept = list(pool.map(self._read, self.index.files))

    def __len__(self) -> int:
        return len(self.index.files)

    def __getitem__(self, place: Place) -> tuple[int, np.ndarray | str]:
        """The image's number, and its pixels ``[s, s, 3]`` or why they cannot be read."""
        epoch, number = place
        found = self.kept[number] if self.kept else self._read(self.index.files[number])
        if isinstance(found, str) or not self.is_training:
            return number, found
        room = max(found.shape[:2]) - self.side
        offset = derived(self.seed, epoch, number) % (room + 1)
        down, across = (offset, 0) if found.shape[0] > found.shape[1] else (0, offset)
        return number, found[down : down + self.side, across : across + self.side]

    def collate(self, items: Sequence[tuple[int, np.ndarray | str]]) -> Batch:
        """A batch of those that could be read."""
        good = [(number, pixels) for number, pixels in items if not isinstance(pixels, str)]
        numbers = [number for number, _ in good]
        empty = np.zeros((0, self.side, self.side, 3), np.uint8)
        images = np.stack([pixels for _, pixels in good]) if good else empty
        return {
            # Height, width, channels in memory, which is the order that convolutions are fastest in.
            "images": torch.from_numpy(images).permute(0, 3, 1, 2),
            "labels": torch.from_numpy(self.index.labels[numbers]).float(),
            "indices": torch.tensor(numbers, dtype=torch.int64),
            "faults": [(self.index.files[number], why) for number, why in items if isinstance(why, str)],
        }

    def _read(self, path: Path) -> np.ndarray | str:
        try:
            if self.is_training:
                return np.asarray(_scaled(_draft(path, self.side), self.side))
            return np.asarray(_images.center_square(_images.read_photo(path), SHARE, self.size))
        except ModelError as error:
            return str(error)


def _draft(path: Path, side: int) -> Any:
    """A photo whose short side has at least ``side`` pixels; JPEG's own scaling saves most of a large one's decoding.

    Raises:
        ModelError: It cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if image.format == "JPEG" and min(image.size) >= 2 * side:
                image.draft("RGB", (side, side))
                return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError):
        pass  # the usual way says what is wrong with it
    return _images.read_photo(path)


def _scaled(photo: Any, side: int) -> Any:
    """A photo whose short side has ``side`` pixels."""
    from PIL.Image import Resampling

    width, height = photo.size
    scale = side / min(width, height)
    wanted = (max(side, round(width * scale)), max(side, round(height * scale)))
    return photo if wanted == photo.size else photo.resize(wanted, Resampling.BILINEAR, reducing_gap=2.0)


class Order(DistributedSampler):
    """A split's places in the order of an epoch, which Lightning sets; each device takes its share."""

    def __iter__(self) -> Iterator[Place]:  # type: ignore[override]
        return ((self.epoch, number) for number in super().__iter__())


def loader(photos: Photos, batch_size: int, workers: int, replicas: int = 1, rank: int = 0) -> DataLoader:
    """The batches of a split, for one device.

    Args:
        photos: The split.
        batch_size: Images of a batch on this device.
        workers: Processes that read; none where the set is in memory.
        replicas: How many devices there are.
        rank: Which of them this is.
    """
    order = Order(photos, replicas, rank, shuffle=photos.is_training, seed=photos.seed)  # type: ignore[arg-type]
    workers = 0 if photos.kept else min(workers, -(-len(photos) // batch_size))
    return DataLoader(
        photos,
        batch_size,
        sampler=order,
        num_workers=workers,
        collate_fn=photos.collate,
        # A last batch of few images would count as much as a full one, and batch norms would suffer from it.
        drop_last=photos.is_training and len(order) > batch_size,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
    )


def keep_if_small(splits: Mapping[Photos, Skips], most_mib: int) -> None:
    """Takes the splits into memory where all of them fit.

    Raises:
        ModelError: More than 1 % of a split cannot be read.
    """
    if sum(photos.bytes_in_memory for photos in splits) > most_mib << 20:
        return
    for photos, skips in splits.items():
        photos.keep()
        for path, found in zip(photos.index.files, photos.kept, strict=True):
            if isinstance(found, str):
                skips.add(path, found)


def default_workers(on_gpu: bool, devices: int) -> int:
    """How many processes read for each device: a processor that trains shares its cores with them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MOST_WORKERS, cores // devices)) if on_gpu else max(1, cores // 2)
