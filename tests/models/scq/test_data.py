"""Patches of photos: where they come from, that no photo serves both purposes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_sdk.errors import EdgeSdkError, MissingDependencyError
from edge_sdk.models import _photos
from edge_sdk.models.scq import _data

pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install 'edge-sdk[train]'")
pytest.importorskip("skimage", reason="scikit-image is not installed: pip install 'edge-sdk[train]'")

TASKS = ("food_ar", "nav_ar")


def write_photos(folder: Path, count: int, side: int = 64) -> list[Path]:
    """Photos of one colour each, so that a patch tells its photo."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}.png" for number in range(count)]
    for number, path in enumerate(paths):
        pillow.new("RGB", (side + 10, side), (number, 0, 0)).save(path)
    return paths


def refusal(call, *arguments, **options) -> str:
    with pytest.raises(EdgeSdkError) as caught:
        call(*arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize("task", TASKS)
def test_embedded_splits_share_no_scene_and_exist_in_the_table(task: str):
    train, val = (set(_data.SCENES[task][split]) for split in ("train", "val"))
    assert not train & val
    assert train | val <= {photo.scene for photo in _photos.table()}
    assert not {photo.scene for photo in _photos.table() if photo.file in _photos.REFERENCE} & train


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_embedded_patches_are_real_and_repeat(task: str, split: _data.Split):
    found = _data.patches("embedded", task, split, 64, 24, seed=3)
    assert found.shape == (24, 64, 64, 3) and found.dtype == np.uint8
    assert len({one.tobytes() for one in found}) == 24 and found.std() > 20
    assert np.array_equal(found, _data.patches("embedded", task, split, 64, 24, seed=3))
    assert not np.array_equal(found, _data.patches("embedded", task, split, 64, 24, seed=4))


def test_python_packages_alone_give_both_splits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_photos, "_OPENCV_DOC", Path("/nowhere"))
    _photos._folder.cache_clear()
    try:
        for task in TASKS:
            assert [len(_data.files("embedded", task, split)) > 0 for split in ("train", "val")] == [True, True]
    finally:
        _photos._folder.cache_clear()


def test_photos_that_are_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_photos, "path", lambda photo: None)
    with pytest.raises(
        MissingDependencyError, match=r"task 'nav_ar' takes .* or give a folder of your own: data.root=FOLDER"
    ):
        _data.files("embedded", "nav_ar", "train")


def test_a_folder_is_split_by_name_whatever_else_lies_in_it(tmp_path: Path):
    photos = write_photos(tmp_path / "photos", 30)
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    train, val = (_data.files(str(tmp_path / "photos"), "food_ar", split) for split in ("train", "val"))
    assert len(val) == 3 and sorted(train + val) == photos
    moved = tmp_path / "elsewhere"
    (tmp_path / "photos").rename(moved)
    assert [path.name for path in _data.files(str(moved), "nav_ar", "val")] == [path.name for path in val]


def test_a_folder_with_splits_keeps_them(tmp_path: Path):
    train, val = write_photos(tmp_path / "train" / "deep", 3), write_photos(tmp_path / "val", 2)
    assert _data.files(str(tmp_path), "food_ar", "train") == train
    assert _data.files(str(tmp_path), "food_ar", "val") == val
    before = _data.identity(str(tmp_path), "food_ar")
    assert before == _data.identity(str(tmp_path), "food_ar")
    pillow.new("RGB", (64, 64)).save(val[0])
    assert before != _data.identity(str(tmp_path), "food_ar")


def test_each_photo_gives_as_many_patches_in_up_to_three_scales(tmp_path: Path):
    photos = _data.read(write_photos(tmp_path, 4, side=130), 32)
    assert [level.shape[0] for level in photos.levels[0]] == [130, 65]
    colours = photos.fixed(40, seed=0)[:, 0, 0, 0]
    assert np.bincount(colours).tolist() == [10, 10, 10, 10]
    drawn = photos.patch(np.random.default_rng(0))
    assert drawn.shape == (32, 32, 3)
    assert [level.shape[0] for level in _data.read(write_photos(tmp_path, 1, side=600), 32).levels[0]] == [256, 128, 64]


def test_a_damaged_photo_among_many_is_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    paths = write_photos(tmp_path, 120, side=16)
    paths[7].write_bytes(b"no photo")
    photos = _data.read(paths, 16)
    assert len(photos.levels) == 119 and list(photos.unusable) == ["007.png"]
    assert "a photo is left out" in caplog.text and "is not an image that Pillow can read" in caplog.text


# Bad input


def test_an_unknown_task():
    assert refusal(_data.files, "embedded", "fod_ar", "train") == (
        "unknown task 'fod_ar'. Did you mean 'food_ar'? Known: food_ar, nav_ar."
    )


def test_folders_without_photos(tmp_path: Path):
    missing = tmp_path / "missing"
    assert f"there is no folder of photos at {missing}: give the path of one, or embedded" in refusal(
        _data.files, str(missing), "food_ar", "train"
    )
    assert f"there is no photo in {tmp_path}: it is empty or not there; expected files that end with .jpg" in refusal(
        _data.files, str(tmp_path), "food_ar", "train"
    )
    (tmp_path / "notes.txt").write_text("no photo")
    assert "it holds 1 other files" in refusal(_data.files, str(tmp_path), "food_ar", "train")
    write_photos(tmp_path, 1)
    assert "holds a single photo; expected at least two" in refusal(_data.files, str(tmp_path), "food_ar", "val")
    write_photos(tmp_path / "train", 2)
    assert f"there is no photo in {tmp_path / 'val'}" in refusal(_data.files, str(tmp_path), "food_ar", "val")


def test_photos_that_cannot_be_used(tmp_path: Path):
    paths = write_photos(tmp_path, 3, side=48)
    said = refusal(_data.read, paths, 64)
    assert said.startswith("3 of 3 photos cannot be used, more than 1% (000.png, 001.png, 002.png). The first: ")
    assert f"{paths[0]} has 58 x 48 pixels; a patch takes at least 64 x 64" in said
    paths[1].write_bytes(paths[1].read_bytes()[:60])
    assert "1 of 3 photos cannot be used, more than 1% (001.png)" in refusal(_data.read, paths, 32)


def test_photos_that_take_too_much_memory(tmp_path: Path):
    paths = write_photos(tmp_path, 3, side=512)
    assert refusal(_data.read, paths, 256, cache_mib=2) == (
        "the photos take more than 2 MiB of memory: 2 of 3 fit. Give data.photos=2, or data.cache_mib=N where there "
        "is more."
    )
