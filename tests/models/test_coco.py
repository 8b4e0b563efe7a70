"""COCO's layout read into an index: what counts, what is kept, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tiny_coco

from edge_sdk.errors import ModelError
from edge_sdk.models.photo_tagging.coco import read_index


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_SDK_CACHE", str(tmp_path / "cache"))
    return tiny_coco.write_coco(tmp_path / "coco", 5, 4)


def annotations(root: Path, split: str = "train") -> Path:
    return root / "annotations" / f"instances_{split}2017.json"


def change(root: Path, **values) -> None:
    document = json.loads(annotations(root).read_text())
    annotations(root).write_text(json.dumps({**document, **values}))


def refusal(root: Path, split="train") -> str:
    with pytest.raises(ModelError) as caught:
        read_index(root, split)
    return str(caught.value)


def test_images_categories_and_labels(root: Path):
    document = json.loads(annotations(root).read_text())
    index = read_index(root, "train")
    assert (index.root, index.split) == (root, "train")
    assert index.categories == tuple(tiny_coco.SUBJECTS)
    assert [file.name for file in index.files] == [f"{number:012d}.jpg" for number in range(1, 6)]
    assert all(file.is_file() for file in index.files)
    assert (index.labels.dtype, index.labels.shape) == (np.uint8, (5, 4))
    expected = {(one["image_id"] - 1, one["category_id"] // 10) for one in document["annotations"]}
    assert set(zip(*map(list, np.nonzero(index.labels)), strict=True)) == expected


def test_categories_and_images_are_sorted_by_number_and_crowds_count(root: Path):
    objects = [
        {"image_id": 2, "category_id": 90, "iscrowd": 1},
        {"image_id": 2, "category_id": 90, "iscrowd": 0},
        {"image_id": 1, "category_id": 7, "iscrowd": 0},
    ]
    pictures = [{"id": number, "file_name": f"{number:012d}.jpg"} for number in (3, 1, 2)]
    change(
        root,
        categories=[{"id": 90, "name": "book"}, {"id": 7, "name": "bus"}],
        images=pictures,
        annotations=objects,
    )
    index = read_index(root, "train")
    assert index.categories == ("bus", "book")
    assert index.labels.tolist() == [[1, 0], [0, 1], [0, 0]], "an image without annotations is one without tags"


def test_annotations_are_read_once_and_the_data_is_not_written_to(root: Path):
    before = sorted(root.rglob("*"))
    first = read_index(root, "train")
    about = annotations(root).stat()
    annotations(root).write_text("x" * about.st_size)
    os.utime(annotations(root), ns=(about.st_atime_ns, about.st_mtime_ns))
    again = read_index(root, "train")
    assert (again.categories, again.files) == (first.categories, first.files)
    assert np.array_equal(again.labels, first.labels)
    assert sorted(root.rglob("*")) == before


def test_changed_annotations_are_read_anew(root: Path):
    read_index(root, "train")
    change(root, annotations=[])
    assert not read_index(root, "train").labels.any()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut off", b"\x80\x04 a pickle"])
def test_a_damaged_cache_is_made_anew(root: Path, tmp_path: Path, damage: bytes):
    first = read_index(root, "train")
    (kept,) = (tmp_path / "cache" / "coco").iterdir()
    kept.write_bytes(damage)
    assert np.array_equal(read_index(root, "train").labels, first.labels)
    assert kept.stat().st_size > 100


def test_a_folder_that_is_not_there(tmp_path: Path):
    assert refusal(tmp_path / "coco") == (
        f"the COCO folder {tmp_path / 'coco'} is not there: it needs annotations/instances_train2017.json and "
        f"train2017. Fetch it with: edge-sdk train photo_tagging --download {tmp_path / 'coco'}"
    )


def test_half_a_folder_says_what_it_lacks_and_how_to_fetch_it(root: Path):
    annotations(root, "val").unlink()
    assert refusal(root, "val") == (
        f"the COCO folder {root} is half there: it lacks annotations/instances_val2017.json. "
        f"Fetch it with: edge-sdk train photo_tagging --download {root} --val-only"
    )
    (root / "train2017").rename(root / "elsewhere")
    assert "is half there: it lacks train2017. Fetch it with" in refusal(root)


def test_annotations_that_name_missing_images(root: Path):
    for number in range(1, 5):
        (root / "train2017" / f"{number:012d}.jpg").unlink()
    message = refusal(root)
    assert f"names 4 images that {root / 'train2017'} does not hold" in message
    assert "(000000000001.jpg, 000000000002.jpg, 000000000003.jpg, ...)" in message
    assert f"edge-sdk train photo_tagging --download {root}" in message


def test_missing_images_are_found_although_the_index_is_kept(root: Path):
    read_index(root, "train")
    (root / "train2017" / "000000000002.jpg").unlink()
    assert "names 1 image that" in refusal(root)


@pytest.mark.parametrize("text", ["", '{"images": [', "not JSON", "\udcff", "[" * 100_000])
def test_annotations_that_are_no_json(root: Path, text: str):
    annotations(root).write_bytes(text.encode("utf-8", "surrogateescape"))
    message = refusal(root)
    assert f"{annotations(root)} is not JSON: " in message
    assert "fetch the annotations again" in message


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"images": []}, "it has no images"),
        ({"categories": []}, "it has no categories"),
        ({"images": [{"id": 1}]}, "it lacks the key 'file_name'"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "a number is given to several"),
        ({"annotations": [{"image_id": 99, "category_id": 1}]}, "an annotation names image 99"),
        ({"annotations": [{"image_id": 1}]}, "it lacks the key 'category_id'"),
        ({"images": [{"id": 1, "file_name": "../../etc/passwd"}]}, "is no plain name"),
        ({"images": [{"id": 1, "file_name": ".."}]}, "is no plain name"),
        ({"images": [{"id": 1, "file_name": 5}]}, "is no plain name"),
        ({"images": 5}, "not iterable"),
        ({"images": [[]]}, "list indices"),
        ({"annotations": [{"image_id": [], "category_id": 1}]}, "unhashable"),
    ],
)
def test_json_that_is_no_coco(root: Path, values: dict, found: str):
    change(root, **values)
    message = refusal(root)
    assert "holds no COCO annotations: " in message and found in message
    assert "Expected 'images' with 'id' and 'file_name'" in message


def test_a_json_list_is_refused(root: Path):
    annotations(root).write_text("[1, 2]")
    assert "it is a list instead of a mapping" in refusal(root)
