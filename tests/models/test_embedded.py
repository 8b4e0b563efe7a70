"""The embedded set: real items on real photos, in COCO's layout, the same each time it is made."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from edge_sdk._files import sha256_file
from edge_sdk.errors import MissingDependencyError, ModelError
from edge_sdk.models import _fashion, _images, _photos
from edge_sdk.models.photo_tagging import embedded
from edge_sdk.models.photo_tagging.coco import read_index

pytest.importorskip("skimage")
pytest.importorskip("PIL")

FASHION = pytest.mark.debian("dataset-fashion-mnist")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a smaller set in a cache of its own."""
    monkeypatch.setattr(embedded, "SCENES", {"train": 60, "val": 40})

    def make(name: str = "cache") -> Path:
        monkeypatch.setenv("EDGE_SDK_CACHE", str(tmp_path / name))
        return embedded.embedded_root()

    return make


@FASHION
def test_it_is_in_cocos_layout_with_one_to_three_items(made):
    root = made()
    for split, count in embedded.SCENES.items():
        index = read_index(root, split)
        assert index.categories == _fashion.CATEGORIES
        assert len(index.files) == count
        assert set(index.labels.sum(1)) <= {1, 2, 3} and index.labels.any(0).all()
        document = json.loads((root / "annotations" / f"instances_{split}2017.json").read_text())
        assert {_images.read_photo(file).size for file in index.files} == {(128, 128)}
        for one in document["annotations"]:
            left, top, width, height = one["bbox"]
            assert 48 <= width == height <= 72
            assert 8 <= min(left, top) and max(left, top) + width <= 120, "the middle crop cuts off no item"


@FASHION
def test_it_is_the_same_each_time(made):
    first, again = made("a"), made("b")
    assert first.name == again.name
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) == 102
    assert [sha256_file(first / file) for file in files] == [sha256_file(again / file) for file in files]


@FASHION
def test_it_is_made_once(made):
    root = made()
    about = (root / "train2017").stat().st_mtime_ns
    assert made() == root == embedded.data_root("embedded")
    assert (root / "train2017").stat().st_mtime_ns == about
    assert [path for path in root.parent.iterdir() if path != root] == []


@FASHION
def test_an_interruption_leaves_no_half_set(made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scene, drawn = embedded._scene, []

    def stopped(*arguments):
        drawn.append(1)
        if len(drawn) == 70:
            raise KeyboardInterrupt
        return scene(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(embedded, "_scene", stopped)
        with pytest.raises(KeyboardInterrupt):
            made()
    assert [path for path in (tmp_path / "cache").rglob("*")] == []
    assert read_index(made(), "val").labels.any()


def test_no_photo_serves_both_splits():
    train, val = (set(_fashion.background_photos(purpose)) for purpose in ("calibration", "evaluation"))
    assert train and val and not train & val
    scenes = [{photo.scene for photo in _photos.table() if photo.purpose == p} for p in ("calibration", "evaluation")]
    assert not scenes[0] & scenes[1]


def test_another_root_is_a_path():
    assert embedded.data_root("~/coco") == Path.home() / "coco"


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EDGE_SDK_FASHION_MNIST", str(tmp_path))
    with pytest.raises(MissingDependencyError) as caught:
        embedded.embedded_root()
    message = str(caught.value)
    assert f"{tmp_path} lacks train-images-idx3-ubyte.gz" in message
    assert "apt-get install dataset-fashion-mnist" in message and "EDGE_SDK_FASHION_MNIST" in message


def write_idx(path: Path, array: np.ndarray) -> None:
    header = b"\0\0\x08" + bytes([array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture
def fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files in Fashion-MNIST's format."""
    folder = tmp_path / "fashion"
    folder.mkdir()
    for name, count in (("train", 400), ("t10k", 300)):
        draw = np.random.default_rng(count)
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", draw.integers(0, 256, (count, 28, 28)))
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", np.arange(count) % 10)
    monkeypatch.setenv("EDGE_SDK_FASHION_MNIST", str(folder))
    return folder


def test_a_folder_of_ones_own_files_serves(fashion: Path, made):
    assert len(read_index(made(), "train").files) == 60


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip", "is no gzip file, or was cut off"),
        (gzip.compress(b"\0\0\x08\x03" * 9), "is no IDX file of bytes, or was cut off"),
        (gzip.compress(b""), "is no IDX file of bytes"),
    ],
    ids=["no gzip", "cut off", "empty"],
)
def test_damaged_files_are_refused(fashion: Path, made, content: bytes, message: str):
    (fashion / "t10k-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        made()


def test_another_set_in_the_same_format_is_refused(fashion: Path, made):
    write_idx(fashion / "train-images-idx3-ubyte.gz", np.zeros((400, 32, 32)))
    with pytest.raises(ModelError, match=r"does not hold Fashion-MNIST: found images \[400, 32, 32\]"):
        made()


@FASHION
def test_making_it_is_logged(made, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "edge_sdk"):
        made()
    assert "making the embedded set in" in caplog.text
