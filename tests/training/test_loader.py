"""The loader: what is cut from photos, their order, damaged ones, memory; and augmentation of a batch."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import tiny_coco
import torch
from PIL import Image

from edge_sdk.errors import ModelError
from edge_sdk.models.photo_tagging._augment import augment, normalise
from edge_sdk.models.photo_tagging._config import Augment
from edge_sdk.models.photo_tagging._data import Skips
from edge_sdk.models.photo_tagging._loader import Photos, keep_if_small, loader
from edge_sdk.models.photo_tagging.coco import Index, read_index
from edge_sdk.models.photo_tagging.plugin import PhotoTagging
from edge_sdk.training.seeds import generator

NONE = Augment(scale=(1, 1), ratio=1, flip=0, brightness=0, contrast=0, saturation=0)
STRONG = Augment(scale=(0.2, 1), ratio=1.5, flip=0.5, brightness=0.4, contrast=0.4, saturation=0.4)


@pytest.fixture
def train(coco: Path) -> Photos:
    return Photos(read_index(coco, "train"), 56, seed=3)


def epoch(photos: Photos, number: int, **options) -> list[dict]:
    batches = loader(photos, 8, options.pop("workers", 0), **options)
    batches.sampler.set_epoch(number)  # type: ignore[attr-defined]
    return list(batches)


def numbers(batches: list[dict]) -> list[int]:
    return torch.cat([batch["indices"] for batch in batches]).tolist()


def test_batches_are_bytes_with_labels(train: Photos):
    batches = epoch(train, 0)
    assert [tuple(batch["images"].shape) for batch in batches] == [(8, 3, 64, 64)] * 3
    assert batches[0]["images"].dtype == torch.uint8
    assert batches[0]["images"].is_contiguous(memory_format=torch.channels_last)
    assert sorted(numbers(batches)) == list(range(24))
    for batch in batches:
        assert torch.equal(batch["labels"], torch.from_numpy(train.index.labels[batch["indices"]]).float())


def test_the_order_follows_seed_and_epoch_alone(train: Photos, coco: Path):
    first, again, later = epoch(train, 0), epoch(train, 0), epoch(train, 1)
    assert numbers(first) == numbers(again) != numbers(later)
    assert all(torch.equal(a["images"], b["images"]) for a, b in zip(first, again, strict=True))
    other = epoch(Photos(train.index, 56, seed=4), 0)
    assert numbers(other) != numbers(first)


def test_processes_and_memory_change_nothing(train: Photos):
    plain = epoch(train, 5)
    by_processes = epoch(train, 5, workers=2)
    keep_if_small({train: Skips("train", 24)}, 100)
    assert train.kept
    for batches in (by_processes, epoch(train, 5)):
        assert all(torch.equal(a["images"], b["images"]) for a, b in zip(plain, batches, strict=True))


def test_a_set_that_is_too_large_is_not_kept(train: Photos):
    keep_if_small({train: Skips("train", 24)}, 0)
    assert not train.kept


def test_several_devices_share_an_epoch(train: Photos):
    shares = [numbers(epoch(train, 0, replicas=2, rank=rank)) for rank in (0, 1)]
    assert [len(share) for share in shares] == [8, 8], "twelve each, without a last half batch"
    assert not set(shares[0]) & set(shares[1])


def test_photos_to_judge_with_are_cut_as_the_plugin_does(coco: Path):
    photos = Photos(read_index(coco, "val"), 48, seed=0)
    (batch, _) = epoch(photos, 0)
    plugin = PhotoTagging(input_size="48")
    for image, number in zip(normalise(batch["images"]), batch["indices"], strict=True):
        expected = plugin.preprocess(photos.index.files[number])["forward"]["image"]
        np.testing.assert_allclose(image.numpy(), expected[0], atol=1e-6)


def index_of(folder: Path, *files: str) -> Index:
    return Index(folder, "train", ("a",), tuple(folder / file for file in files), np.ones((len(files), 1), np.uint8))


def test_a_wide_photo_gives_squares_along_its_length(tmp_path: Path):
    across = np.zeros((64, 256, 3), np.uint8)
    across[..., 0] = np.arange(256)
    Image.fromarray(across).save(tmp_path / "wide.png")
    Image.fromarray(across.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    photos = Photos(index_of(tmp_path, "wide.png", "tall.png"), 56, seed=0)
    lefts = {int(photos[number, 0][1][0, 0, 0]) for number in range(60)}  # type: ignore[index]
    tops = {int(photos[number, 1][1][0, 0, 0]) for number in range(60)}  # type: ignore[index]
    assert min(lefts) < 20 and max(lefts) > 170 and len(lefts) > 30
    assert min(tops) < 20 and max(tops) > 170


def test_a_large_jpeg_is_decoded_small_and_looks_the_same(tmp_path: Path):
    draw = np.random.default_rng(0)
    smooth = Image.fromarray(draw.integers(0, 256, (8, 10, 3), dtype=np.uint8)).resize((1280, 1024))
    smooth.save(tmp_path / "large.jpg", quality=95)
    pixels = Photos(index_of(tmp_path, "large.jpg"), 112, seed=0)._read(tmp_path / "large.jpg")
    assert isinstance(pixels, np.ndarray) and pixels.shape == (128, 160, 3)
    expected = np.asarray(Image.open(tmp_path / "large.jpg").resize((160, 128)), float)
    assert np.abs(pixels - expected).mean() < 2


def damage(root: Path, split: str, number: int) -> str:
    path = root / f"{split}2017" / f"{number:012d}.jpg"
    path.write_bytes(path.read_bytes()[:300])
    return path.name


def test_a_damaged_image_is_left_out_and_named(tmp_path: Path):
    root = tiny_coco.write_coco(tmp_path / "coco", 24, 4)
    damage(root, "train", 5)
    photos = Photos(read_index(root, "train"), 56, seed=0)
    batches = epoch(photos, 0)
    assert sorted(numbers(batches)) == [number for number in range(24) if number != 4]
    ((path, reason),) = [fault for batch in batches for fault in batch["faults"]]
    assert path.name == "000000000005.jpg" and "000000000005.jpg cannot be read" in reason


def test_too_many_damaged_images_end_it_before_training(tmp_path: Path):
    root = tiny_coco.write_coco(tmp_path / "coco", 24, 4)
    damage(root, "train", 5)
    photos = Photos(read_index(root, "train"), 56, seed=0)
    with pytest.raises(ModelError, match=r"train: 1 of 24 images cannot be read, .* 1% \(000000000005.jpg\)"):
        keep_if_small({photos: Skips("train", 24)}, 100)


# Augmentation


def test_without_changes_it_only_normalises():
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(augment(images, 32, NONE, generator(0)), normalise(images), atol=1e-4, rtol=0)


def test_it_draws_the_same_for_the_same_place_in_a_run():
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    first, again, other = (augment(images, 56, STRONG, generator(1, 2, step)) for step in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (4, 3, 56, 56) and torch.isfinite(first).all()


def test_each_image_is_cut_by_itself_and_within_its_area():
    """The pixels tell where they come from: red across, green down."""
    ramp = torch.arange(128, dtype=torch.uint8)
    image = torch.stack([ramp.expand(128, 128), ramp.expand(128, 128).T, torch.zeros(128, 128, dtype=torch.uint8)])
    chosen = Augment(scale=(0.3, 0.5), ratio=1.5, flip=0.5, brightness=0, contrast=0, saturation=0)
    found = augment(image.expand(200, 3, 128, 128), 32, chosen, generator(0))
    from edge_sdk.models.photo_tagging.plugin import _MEAN, _STD

    pixels = found * torch.tensor(_STD).view(3, 1, 1) + torch.tensor(_MEAN).view(3, 1, 1)
    width = (pixels[:, 0, 16, -1] - pixels[:, 0, 16, 0]) * 32 / 31 / 128
    height = (pixels[:, 1, -1, 16] - pixels[:, 1, 0, 16]) * 32 / 31 / 128
    area, ratio = width.abs() * height, width.abs() / height
    assert 0.28 < area.min() < 0.32 and 0.48 < area.max() < 0.52
    assert 0.66 < ratio.min() < 0.75 and 1.4 < ratio.max() < 1.52
    assert 60 < (width < 0).sum() < 140, "half of them are mirrored"
    assert height.min() > 0
    assert pixels[:, :2].min() > -1 and pixels[:, :2].max() < 128


def test_colours_change_as_they_should():
    images = torch.randint(60, 160, (300, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain = augment(images, 8, NONE, generator(0))
    std = torch.tensor((58.395, 57.12, 57.375)).view(3, 1, 1)
    mean = torch.tensor((123.675, 116.28, 103.53)).view(3, 1, 1)
    before = plain * std + mean

    def pixels(**strength: float) -> torch.Tensor:
        return augment(images, 8, NONE.model_copy(update=strength), generator(0)) * std + mean

    bright = pixels(brightness=0.3) / before
    assert torch.allclose(bright, bright[:, :1, :1, :1].expand_as(bright), atol=1e-3)
    assert 0.7 <= bright.min() + 1e-3 and bright.max() - 1e-3 <= 1.3 and bright.std() > 0.1
    contrast = pixels(contrast=0.3)
    grey = lambda x: (x * torch.tensor((0.299, 0.587, 0.114)).view(3, 1, 1)).sum(1)  # noqa: E731
    torch.testing.assert_close(grey(contrast).mean((1, 2)), grey(before).mean((1, 2)), atol=0.01, rtol=0)
    spread = contrast.flatten(1).std(1) / before.flatten(1).std(1)
    assert 0.69 < spread.min() < 0.75 and 1.25 < spread.max() < 1.31
    saturated = pixels(saturation=0.5)
    torch.testing.assert_close(grey(saturated), grey(before), atol=0.01, rtol=0)


@pytest.mark.slow
def test_the_loader_feeds_faster_than_resnet18_trains(tmp_path: Path):
    """At 224 pixels, photos of COCO's size, on the same single core; training takes the better part of a second."""
    from edge_sdk.models.photo_tagging.resnet import randomly_initialised

    draw = np.random.default_rng(0)
    files = []
    for number in range(16):
        coarse = Image.fromarray(draw.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(tmp_path / f"{number}.jpg", quality=90)
        files.append(f"{number}.jpg")
    photos = Photos(index_of(tmp_path, *files), 224, seed=0)
    network = randomly_initialised("resnet18", 80, 0).train()

    def feed() -> torch.Tensor:
        batch = photos.collate([photos[0, number] for number in range(16)])
        return augment(batch["images"], 224, STRONG, generator(0))

    def step(images: torch.Tensor) -> None:
        network(images).square().mean().backward()

    images = feed()
    step(images)
    times = []
    for action in (feed, lambda: step(images)):
        begun = time.process_time()
        action()
        times.append(time.process_time() - begun)
    assert times[0] < 0.5 * times[1], times
