"""What all data sets of SVQ share: images in memory with a label map, attributes and presence of each object."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from edge_sdk.errors import ModelError

Item = Tensor | dict[str, Tensor]


class Attribute(NamedTuple):
    """A column of ``attributes``: its values are 0 to ``classes - 1``, or lie in [0, 1] where ``classes`` is 0."""

    name: str
    classes: int = 0


class Arrays(NamedTuple):
    """A data set as arrays; n: images, s: side in pixels, o: most objects of an image, a: attributes.

    Attributes:
        images: uint8 ``[n, s, s, 3]``, RGB.
        labels: uint8 ``[n, s, s]``: 0 background, else the number of the object in front, from 1.
        attributes: float32 ``[n, o, a]``: object 1 is row 0; zeros where there is no object.
        present: bool ``[n, o]``: whether the image has that object.
    """

    images: np.ndarray
    labels: np.ndarray
    attributes: np.ndarray
    present: np.ndarray


class LabelledImages(Dataset[Item]):
    """Images in memory with the truth about their objects.

    An item is the image, float32 ``[3, s, s]`` in [0, 1]; ``with_labels`` makes it a dict of ``image``,
    ``labels`` int64 ``[s, s]``, ``attributes`` float32 ``[o, a]`` and ``present`` bool ``[o]``.
    """

    attribute_table: tuple[Attribute, ...]

    def __init__(self, arrays: Arrays, attribute_table: tuple[Attribute, ...], *, with_labels: bool = False):
        self.images, self.labels, self.attributes, self.present = arrays
        self.attribute_table = attribute_table
        self.with_labels = with_labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        image = torch.from_numpy(self.images[index]).permute(2, 0, 1).float() / 255
        if not self.with_labels:
            return image
        return {
            "image": image,
            "labels": torch.from_numpy(self.labels[index]).long(),
            "attributes": torch.from_numpy(self.attributes[index]),
            "present": torch.from_numpy(self.present[index]),
        }

    def as_arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """The images, uint8 ``[n, s, s, 3]``, and their label maps, uint8 ``[n, s, s]``: views, not copies."""
        return self.images, self.labels

    def visualize_samples(self, num_samples: int, save_path: str | Path) -> None:
        """Writes a picture of the first images with their coloured masks below.

        Args:
            num_samples: How many images; at most as many as there are.
            save_path: A PNG file, or another kind that Matplotlib writes.

        Raises:
            MissingDependencyError: Matplotlib is not installed.
            ModelError: ``num_samples`` is below 1 or above the number of images, or the file's kind is unknown.
            StorageError: The file cannot be written.
        """
        from edge_sdk.models.svq.data._picture import save_samples

        check_range("num_samples", num_samples, 1, len(self))
        save_samples(self.images[:num_samples], self.labels[:num_samples], Path(save_path))


def check_range(name: str, value: int, smallest: int, largest: int) -> None:
    """Refuses a number outside a range.

    Raises:
        ModelError: It is no whole number from ``smallest`` to ``largest``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not smallest <= value <= largest:
        raise ModelError(f"{name} is {value!r}: expected a whole number from {smallest} to {largest}.")
