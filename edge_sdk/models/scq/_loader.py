"""Feeds training: patches in batches of bytes, whose places only seed, epoch and number decide.

Shapes: b batch, s pixels of a side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from edge_sdk.models.scq._data import Photos
from edge_sdk.training.seeds import derived

Place = tuple[int, int]
"""An epoch and the number of a patch."""


class Batch(TypedDict):
    """What the loader gives.

    Attributes:
        images: uint8 ``[b, 3, s, s]``.
        numbers: The patches' numbers in their epoch, int64 ``[b]``.
    """

    images: Tensor
    numbers: Tensor


class TrainPatches(Dataset):
    """Patches at random places, others in each epoch.

    Args:
        photos: What they are cut from.
        count: How many an epoch has.
        flip: How often a patch is mirrored.
        seed: Decides the places.
    """

    def __init__(self, photos: Photos, count: int, flip: float, seed: int) -> None:
        self.photos = photos
        self.count = count
        self.flip = flip
        self.seed = seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: Place) -> tuple[int, np.ndarray]:
        """The patch's number and its pixels ``[s, s, 3]``."""
        draw = np.random.default_rng(derived(self.seed, *place))
        patch = self.photos.patch(draw)
        return place[1], patch[:, ::-1] if draw.random() < self.flip else patch


class FixedPatches(Dataset):
    """The same patches in every epoch.

    Args:
        patches: uint8 ``[n, s, s, 3]``.
    """

    def __init__(self, patches: np.ndarray) -> None:
        self.patches = patches

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, place: Place) -> tuple[int, np.ndarray]:
        """The patch's number and its pixels ``[s, s, 3]``."""
        return place[1], self.patches[place[1]]


class Order(Sampler[Place]):
    """The patches of one device, as many as each other device has: the last ones begin anew where they do not suffice.

    Args:
        count: Patches of an epoch, of all devices together.
        replicas: How many devices there are.
        rank: Which of them this is.
    """

    def __init__(self, count: int, replicas: int, rank: int) -> None:
        self.count = count
        self.replicas = replicas
        self.rank = rank
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Is called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.count // self.replicas)

    def __iter__(self) -> Iterator[Place]:
        return ((self.epoch, (place * self.replicas + self.rank) % self.count) for place in range(len(self)))


def loader(patches: TrainPatches | FixedPatches, batch_size: int, replicas: int = 1, rank: int = 0) -> DataLoader:
    """The batches of one device; the photos are in memory, so no process beside this one reads.

    Args:
        patches: What to give.
        batch_size: Patches of a batch on this device.
        replicas: How many devices there are.
        rank: Which of them this is.
    """
    order = Order(len(patches), replicas, rank)
    is_training = isinstance(patches, TrainPatches)
    return DataLoader(
        patches,
        batch_size,
        sampler=order,  # type: ignore[arg-type]
        collate_fn=collate,
        # A last batch of few patches would count as much as a full one.
        drop_last=is_training and len(order) > batch_size,
        pin_memory=torch.cuda.is_available(),
    )


def collate(items: Sequence[tuple[int, np.ndarray]]) -> Batch:
    """A batch of patches."""
    numbers, patches = zip(*items, strict=True)
    # Height, width, channels in memory, which is the order that convolutions are fastest in.
    images = torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2)
    return {"images": images, "numbers": torch.tensor(numbers, dtype=torch.int64)}


def floats(images: Tensor) -> Tensor:
    """Bytes as numbers from 0 to 1."""
    return images.float() / 255
