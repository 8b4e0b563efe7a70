"""``edge-sdk evaluate``: its documents, its table, and how what fails ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_coco

SIZE = f"input_size={tiny_coco.SIZE}"


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    return tiny_coco.write_coco(tmp_path_factory.mktemp("coco") / "coco")


@pytest.fixture(scope="module")
def checkpoint(coco, tmp_path_factory) -> Path:
    return tiny_coco.write_tagger(coco, tmp_path_factory.mktemp("tagger") / "best.pt")


def test_two_checkpoints_side_by_side_with_pictures(cli, coco, checkpoint, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'edge-sdk[report]'")
    other = tiny_coco.write_tagger(coco, tmp_path / "other.pt", seed=1, train=12)
    options = ("--data", coco, "--set", SIZE, "--against", checkpoint, "--pictures", "pictures", "--out", "out")
    done = cli("evaluate", other, *options)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split(None, 2)[:2] == ["FP32,", "other.pt"]
    assert lines[1].startswith("mAP") and lines[1].rstrip().endswith("points") and lines[1].count("%") == 2
    assert "95 % interval" in done.stdout and "Skipped      no image" in done.stdout
    assert "FP32, other.pt on local: 48 of 48 images" in done.stderr
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"tags.png", "precision_recall.png"}
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["difference"]["value"] == pytest.approx(
        written["judged"]["metrics"]["map"] - written["against"]["metrics"]["map"]
    )


def test_the_document(cli, coco, checkpoint):
    arguments = ("evaluate", checkpoint, "--data", coco, "--set", SIZE, "--limit", 10, "--threshold", 0.25, "--json")
    done = cli(*arguments)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert list(document) == [
        "schema_version",
        "created",
        "data",
        "data_sha256",
        "split",
        "images",
        "skipped",
        "threshold",
        "judged",
        "against",
        "difference",
    ]
    assert (document["images"], document["threshold"], document["against"]) == (10, 0.25, None)
    assert list(document["judged"]["metrics"]) == ["map", "precision", "recall", "f1", "best_threshold", "best_f1"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("best.pt",), 2, "the following arguments are required: --data"),
        (("best.pt", "--data", "x", "--limit", "0"), 2, "found '0', expected a whole number from 1"),
        (("best.pt", "--data", "x", "--threshold", "2"), 2, "found '2', expected a number from 0 to 1"),
        (("best.pt", "--data", "nowhere"), 1, "the COCO folder nowhere is not there"),
    ],
)
def test_what_is_wrong_is_said(cli, arguments, code, message):
    done = cli("evaluate", *arguments)
    assert done.returncode == code
    assert message in done.stderr
