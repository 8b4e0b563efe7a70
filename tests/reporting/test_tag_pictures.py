"""The pictures of an evaluation: drawn whatever the classes are called, and of a size that fits what they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_coco

from edge_sdk.errors import StorageError
from edge_sdk.evaluation.result import Evaluation, Judged, MapDifference, Metrics
from edge_sdk.profiling.multilabel import average_precisions, metrics
from edge_sdk.reporting.tag_pictures import draw_pictures

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'edge-sdk[report]'")
Image = pytest.importorskip("PIL.Image")

NAMES = ["a name that is far too long for half a photo", "$x_2$ and $", "\x1b[31mred", "colon: two"]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    root = tiny_coco.write_coco(tmp_path_factory.mktemp("coco") / "coco", train=1, val=20)
    return sorted((root / "val2017").iterdir())


def evaluation(labels: np.ndarray, scores: list[np.ndarray], names: list[str]) -> Evaluation:
    judged = [
        Judged(
            name=name,
            kind="bundle",
            path="x.edge",
            sha256="0" * 64,
            size_bytes=1,
            method=None,
            runtime="executorch",
            device="local",
            input_size=[64, 64],
            metrics=Metrics(**metrics(one, labels)),
            average_precision={
                label: None if np.isnan(area) else float(area)
                for label, area in zip(names, average_precisions(one, labels), strict=True)
            },
        )
        for name, one in zip(("int8-static", "FP32"), scores, strict=False)
    ]
    two = len(judged) > 1
    return Evaluation(
        created="now",
        data="/data/coco",
        data_sha256="0" * 64,
        split="val",
        images=len(labels),
        skipped=[],
        threshold=0.5,
        judged=judged[0],
        against=judged[1] if two else None,
        difference=MapDifference(value=-0.01, ci95=(-0.02, 0.001), resamples=10, seed=0) if two else None,
    )


def drawn(files: list[Path], folder: Path, taggers: int = 2, classes: int = 4, images: int = 20, tags: int = 2):
    """The sizes of both pictures, and how much of each is not white."""
    random = np.random.default_rng(0)
    labels = np.zeros((images, classes), np.uint8)
    for row in labels:
        row[random.choice(classes, tags, replace=False)] = 1
    scores = [np.clip(labels * 0.4 + random.random(labels.shape) * 0.7, 0, 1) for _ in range(taggers)]
    names = [NAMES[place] if place < len(NAMES) else f"class {place}" for place in range(classes)]
    draw_pictures(evaluation(labels, scores, names), files[:images], labels, scores, folder)
    found = {}
    for path in folder.iterdir():
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L"))
            found[path.name] = (image.size, float((pixels < 250).mean()))
    return found


def test_both_pictures_are_drawn(files, tmp_path):
    found = drawn(files, tmp_path)
    assert set(found) == {"tags.png", "precision_recall.png"}
    (width, height), ink = found["tags.png"]
    assert width == pytest.approx(1512, abs=2) and height > 1.05 * width and ink > 0.3


def test_one_tagger_has_one_panel(files, tmp_path):
    both, one = drawn(files, tmp_path / "both"), drawn(files, tmp_path / "one", taggers=1)
    assert one["precision_recall.png"][0][0] == pytest.approx(both["precision_recall.png"][0][0] / 2, abs=2)


def test_few_photos_and_many_tags(files, tmp_path):
    few, many = drawn(files, tmp_path / "few", images=3), drawn(files, tmp_path / "many", classes=80, images=3, tags=20)
    assert few["tags.png"][0][1] < many["tags.png"][0][1] < 900  # a row, with at most six tags and a word of the rest


def test_many_decisions_are_thinned(files, tmp_path):
    assert drawn(files * 30, tmp_path, classes=8, images=600)["precision_recall.png"][1] > 0.02


def test_a_folder_that_cannot_be_written_is_said(files, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a file stands where a folder should be"):
        drawn(files, tmp_path / "file")
