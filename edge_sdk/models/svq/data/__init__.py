"""Labelled images to learn objects from: drawn, composed of real pictures, or from a folder."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader

from edge_sdk.errors import ModelError, unknown_name
from edge_sdk.models.svq.data._labelled import Arrays, Attribute, Item, LabelledImages, check_range
from edge_sdk.models.svq.data.dsprites import MultiDspritesDataset
from edge_sdk.models.svq.data.folder import MaskedFolder
from edge_sdk.models.svq.data.scenes import ScenesDataset
from edge_sdk.models.svq.data.shapes import ShapesDataset

__all__ = [
    "NAMES",
    "Arrays",
    "Attribute",
    "LabelledImages",
    "MaskedFolder",
    "MultiDspritesDataset",
    "ScenesDataset",
    "ShapesDataset",
    "get_data_loaders",
    "get_data_sets",
]

NAMES = ("shapes", "dsprites", "scenes", "folder")


def get_data_sets(
    dataset_name: str,
    num_samples: int = 10_000,
    val_samples: int = 1_000,
    image_size: int = 64,
    max_shapes: int = 4,
    *,
    with_labels: bool = False,
    seed: int = 0,
    root: str = "",
) -> tuple[LabelledImages, LabelledImages]:
    """The images to train on and those to judge with; none serves both.

    Args:
        dataset_name: One of `NAMES`.
        num_samples: Images to train on; of a folder at most this many.
        val_samples: Images to judge with; of a folder at most this many.
        image_size: Side in pixels.
        max_shapes: Most objects of an image; a folder's images have as many as they have.
        with_labels: Whether an item holds the truth beside the image.
        seed: 0 or more.
        root: The folder, for ``folder``.

    Raises:
        MissingDependencyError: What the scenes are made of is not installed.
        ModelError: The name is unknown, an argument is out of range, or the folder is missing, empty or damaged.
    """
    if dataset_name not in NAMES:
        raise ModelError(unknown_name("data set", dataset_name, NAMES))
    if (dataset_name == "folder") != bool(root):
        raise ModelError(
            f"data set '{dataset_name}' has root '{root}': 'folder' needs the path of one, the others are made here."
        )
    check_range("num_samples", num_samples, 1, 10_000_000)
    check_range("val_samples", val_samples, 1, 10_000_000)
    check_range("seed", seed, 0, 2**62)
    if dataset_name == "folder":
        return (
            MaskedFolder(root, image_size, split="train", most=num_samples, with_labels=with_labels),
            MaskedFolder(root, image_size, split="val", most=val_samples, with_labels=with_labels),
        )
    # Even seeds to train on, odd ones to judge with: they never meet, whatever the user's seed.
    train, val = (num_samples, image_size, max_shapes, 2 * seed), (val_samples, image_size, max_shapes, 2 * seed + 1)
    if dataset_name == "scenes":
        return (
            ScenesDataset(*train, split="train", with_labels=with_labels),
            ScenesDataset(*val, split="val", with_labels=with_labels),
        )
    drawn = ShapesDataset if dataset_name == "shapes" else MultiDspritesDataset
    return drawn(*train, with_labels=with_labels), drawn(*val, with_labels=with_labels)


def get_data_loaders(
    dataset_name: str,
    batch_size: int = 32,
    num_workers: int = 0,
    num_samples: int = 10_000,
    image_size: int = 64,
    max_shapes: int = 4,
    *,
    with_labels: bool = False,
    seed: int = 0,
    root: str = "",
    val_samples: int | None = None,
) -> tuple[DataLoader[Item], DataLoader[Item]]:
    """Loaders of batches to train on, shuffled anew each epoch, and to judge with, in order.

    Args:
        dataset_name: One of `NAMES`.
        batch_size: Images of a batch; the last may be smaller.
        num_workers: Processes that load; 0 loads in this one.
        num_samples: Images to train on.
        image_size: Side in pixels.
        max_shapes: Most objects of an image.
        with_labels: Batches are dicts with the truth rather than images ``[b, 3, s, s]`` alone.
        seed: Of the images and their order.
        root: The folder, for ``folder``.
        val_samples: Images to judge with; a tenth of ``num_samples`` where left out.

    Raises:
        MissingDependencyError: What the scenes are made of is not installed.
        ModelError: See `get_data_sets`; or ``batch_size`` or ``num_workers`` is out of range.
    """
    check_range("batch_size", batch_size, 1, 100_000)
    check_range("num_workers", num_workers, 0, 1_000)
    check_range("num_samples", num_samples, 1, 10_000_000)
    judged = max(1, num_samples // 10) if val_samples is None else val_samples
    sets = get_data_sets(
        dataset_name, num_samples, judged, image_size, max_shapes, with_labels=with_labels, seed=seed, root=root
    )
    order = torch.Generator().manual_seed(seed)
    return (
        DataLoader(sets[0], batch_size, shuffle=True, num_workers=num_workers, generator=order),
        DataLoader(sets[1], batch_size, num_workers=num_workers),
    )
