"""Runs on a tiny data set: what they write, that they go on where they stopped, and what stops them."""

from __future__ import annotations

import json
import logging
import resource
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tiny_coco
import torch
import yaml

from edge_sdk.errors import EdgeSdkError
from edge_sdk.models import load_model
from edge_sdk.models.photo_tagging._system import PhotoTaggingSystem
from edge_sdk.models.photo_tagging._task import TaggingTask
from edge_sdk.profiling.multilabel import metrics

ONE = "epochs=1"


def epochs(folder: Path) -> list[dict]:
    """The epochs of a run without their times."""
    found = json.loads((folder / "metrics.json").read_text())["epochs"]
    return [{key: value for key, value in one.items() if key != "seconds"} for one in found]


def same_weights(one: Path, other: Path) -> bool:
    first, second = (torch.load(path, weights_only=True) for path in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_a_run_writes_its_folder_and_its_weights_evaluate(run, coco: Path):
    said: list[str] = []
    folder = run("epochs=2", say=said.append)
    assert {path.name for path in folder.iterdir()} == {
        "best.pt",
        "config.yaml",
        "last.ckpt",
        "metrics.json",
        "tensorboard",
    }
    assert list((folder / "tensorboard").glob("events*"))
    assert yaml.safe_load((folder / "config.yaml").read_text())["epochs"] == 2
    written = json.loads((folder / "metrics.json").read_text())
    assert written["finished"] and [one["epoch"] for one in written["epochs"]] == [1, 2]
    assert written["best"] == max(written["epochs"], key=lambda one: one["map"])
    assert written["categories"] == list(tiny_coco.SUBJECTS) and written["skipped"] == {"train": [], "val": []}
    assert written["epochs"][1]["lr"] == pytest.approx(0)
    assert any(line.startswith("epoch 1 of 2: loss ") and "map 0." in line for line in said)
    model = load_model(
        "photo_tagging",
        {"data": str(coco), "checkpoint": str(folder / "best.pt"), "input_size": "32", "eval_images": "0"},
    )
    (part,) = model.parts()
    images = np.concatenate([sample["forward"]["image"] for sample in model.samples("evaluation")])
    with torch.no_grad():
        probabilities = torch.sigmoid(part.module(torch.from_numpy(images))).numpy()
    found = metrics(probabilities, model.data.val.labels)  # type: ignore[attr-defined]
    assert found["map"] == pytest.approx(written["best"]["map"], abs=1e-6), "the plugin sees what training saw"


def test_training_learns(run):
    folder = run("epochs=6", "augment.scale=[0.8,1]", "optimizer.lr=0.05")
    losses = [one["loss"] for one in epochs(folder)]
    assert losses[-1] < 0.75 * losses[0]
    state = torch.load(folder / "best.pt", weights_only=True)
    assert state["bn1.num_batches_tracked"] > 2, "batch norms learn their statistics"


def test_the_same_seed_gives_the_same_run_and_another_another(run):
    first, again, other = run(ONE, out="a"), run(ONE, out="b"), run(ONE, "seed=1", out="c")
    assert epochs(first) == epochs(again) != epochs(other)
    assert same_weights(first / "best.pt", again / "best.pt")


def stop_in(epoch: int, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Interrupts a run at the second step of an epoch."""
    loss = TaggingTask.loss

    def stopped(self: TaggingTask, batch, draw):
        if self.current_epoch == epoch and len(self._losses) == 1:
            raise KeyboardInterrupt
        return loss(self, batch, draw)

    monkeypatch.setattr(TaggingTask, "loss", stopped)
    return monkeypatch


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_a_resumed_run_gives_the_result_of_an_unbroken_one(epoch: int, run, monkeypatch: pytest.MonkeyPatch):
    settings = ("epochs=3", "early_stop.patience=3")
    unbroken = run(*settings, out="unbroken")
    said: list[str] = []
    with monkeypatch.context() as patch:
        stop_in(epoch, patch)
        with pytest.raises(KeyboardInterrupt):
            run(*settings, out="broken", say=said.append)
    assert ("with --resume" in said[-1]) == (epoch > 0)
    broken = run(out="broken", resume=True)
    assert epochs(broken) == epochs(unbroken)
    assert same_weights(broken / "best.pt", unbroken / "best.pt")
    states = [torch.load(folder / "last.ckpt", weights_only=True) for folder in (broken, unbroken)]
    assert all(torch.equal(states[0]["state_dict"][key], value) for key, value in states[1]["state_dict"].items())
    assert states[0]["callbacks"].keys() == states[1]["callbacks"].keys()


def test_a_finished_run_is_not_trained_again(run):
    folder = run(ONE)
    before = (folder / "last.ckpt").stat().st_mtime_ns
    assert run(resume=True) == folder
    assert (folder / "last.ckpt").stat().st_mtime_ns == before


def test_early_stopping_ends_a_run_for_good(run):
    folder = run("epochs=20", "early_stop.patience=1", "early_stop.min_delta=0.9")
    assert len(epochs(folder)) == 2 and json.loads((folder / "metrics.json").read_text())["finished"]
    assert len(epochs(run(resume=True))) == 2


@pytest.mark.parametrize(
    "settings", [("loss.name=focal",), ("loss.name=asymmetric",), ("trainer.precision=bf16-mixed",)]
)
def test_other_losses_and_mixed_precision_train(run, settings: tuple[str, ...]):
    (one,) = epochs(run(ONE, *settings))
    assert 0 < one["loss"] < 2 and 0 < one["map"] <= 1


def test_weights_to_start_from(run):
    first = run(ONE, out="first")
    (found,) = epochs(run(ONE, f"checkpoint={first / 'best.pt'}", "optimizer.lr=1e-6", out="second"))
    (before,) = epochs(first)
    assert found["loss"] < before["loss"]


def test_weight_decay_spares_biases_and_scales(task):
    network = task()
    decayed, spared = network._groups(0.1, network.parameters())
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert len(decayed["params"]) + len(spared["params"]) == len(list(network.parameters()))
    assert min(one.ndim for one in decayed["params"]) == 2 and max(one.ndim for one in spared["params"]) == 1


# Bad input


def refusal(call, *arguments, **options) -> str:
    with pytest.raises(EdgeSdkError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def test_a_folder_that_holds_a_run(run, tmp_path: Path):
    folder = run(ONE)
    before = (folder / "best.pt").read_bytes()
    assert refusal(run, ONE) == f"{folder} holds a run already: give --resume to go on with it, or another folder."
    assert (folder / "best.pt").read_bytes() == before


def test_resuming_what_is_no_run_or_with_other_settings(run, coco: Path):
    from edge_sdk.training.run import train

    assert "holds no run to resume: it has no config.yaml" in refusal(run, resume=True)
    folder = run(ONE)
    message = refusal(train, "photo_tagging", ["epochs=9"], folder, resume=True)
    assert "leave out 'epochs=9'. Only data.root, data.workers, data.cache_mib, trainer may change." in message
    train("photo_tagging", [f"data.root={coco}", "trainer.devices=1"], folder, resume=True)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint_of_a_run(content: bytes | None, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        stop_in(1, patch)
        with pytest.raises(KeyboardInterrupt):
            run("epochs=2")
    last = tmp_path / "run" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000] if content is None else content)
    said = refusal(run, resume=True)
    assert f"the run's checkpoint {last} cannot be read" in said and "Start again without --resume" in said


@pytest.mark.parametrize(
    ("variant", "classes", "message"),
    [
        ("resnet34", 4, "It holds a resnet34 with 4 classes: give model=resnet34."),
        ("resnet18", 80, "It holds a resnet18 with 80 classes, and the data has 4: give weights"),
    ],
)
@pytest.mark.parametrize("key", ["checkpoint", "lsq.checkpoint"])
def test_a_checkpoint_of_another_variant_or_class_count(key, variant, classes, message, run, tmp_path: Path):
    from edge_sdk.models.photo_tagging.resnet import ResNet

    torch.save(ResNet(variant, classes).state_dict(), tmp_path / "other.pt")
    method = ("method=lsq",) if key == "lsq.checkpoint" else ()
    said = refusal(run, ONE, f"{key}={tmp_path / 'other.pt'}", *method)
    assert f"checkpoint {tmp_path / 'other.pt'} does not fit the model" in said and message in said


def test_a_missing_checkpoint(run):
    assert "there is no checkpoint at nowhere.pt" in refusal(run, ONE, "checkpoint=nowhere.pt")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tiny_coco.write_coco(tmp_path / "own", 120, 110)


def damage(root: Path, split: str, *numbers: int) -> None:
    for number in numbers:
        path = root / f"{split}2017" / f"{number:012d}.jpg"
        path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize("cache", [0, 100])
def test_few_damaged_images_are_skipped_counted_and_named(cache: int, run, own: Path, caplog):
    damage(own, "train", 7)
    damage(own, "val", 3)
    with caplog.at_level(logging.WARNING, "edge_sdk"):
        folder = run(ONE, f"data.cache_mib={cache}", root=own)
    written = json.loads((folder / "metrics.json").read_text())
    assert written["skipped"] == {"train": ["000000000007.jpg"], "val": ["000000000003.jpg"]}
    assert caplog.text.count("000000000007.jpg cannot be read") == 1


@pytest.mark.parametrize("cache", [0, 100])
def test_more_than_one_percent_of_damaged_images_fails(cache: int, run, own: Path):
    damage(own, "train", 7, 8)
    said = refusal(run, ONE, f"data.cache_mib={cache}", root=own)
    assert "2 of 120 images cannot be read, which is more than 1%" in said
    assert "000000000007.jpg" in said and "000000000008.jpg" in said


def test_a_loss_that_is_no_number_stops_with_step_and_files(run):
    said = refusal(run, "epochs=3", "optimizer.lr=1e30", "optimizer.momentum=0", "optimizer.nesterov=false")
    assert "the loss became " in said and " at step 2, in epoch 1;" in said
    assert said.count(".jpg") == 8 and "Lower optimizer.lr" in said


def test_images_without_any_category(run, own: Path):
    path = own / "annotations" / "instances_val2017.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": []}))
    assert "no image to val has any category" in refusal(run, ONE, root=own)


def test_a_full_disk_leaves_the_last_good_checkpoint(run, coco: Path, tmp_path: Path, monkeypatch):
    """The disk fills up after the first epoch; with space again, the run goes on as if nothing had been."""
    from edge_sdk.training.run import train

    unbroken = run("epochs=2", out="unbroken")
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=190m", "tmpfs", disk], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        with monkeypatch.context() as patch:
            loss = TaggingTask.loss

            def filling(self: TaggingTask, batch, draw):
                if self.current_epoch == 1 and not (disk / "filler").exists():
                    (disk / "filler").write_bytes(b"x" * 30_000_000)
                return loss(self, batch, draw)

            patch.setattr(TaggingTask, "loss", filling)
            said = refusal(run, "epochs=2", out="disk/run")
        assert said.startswith(f"cannot write {disk / 'run'}") and "the disk is full; free some space" in said
        folder = disk / "run"
        state = torch.load(folder / "last.ckpt", weights_only=True)
        assert state["epoch"] == 0 and len(epochs(folder)) == 1
        torch.load(folder / "best.pt", weights_only=True)
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
        (disk / "filler").unlink()
        subprocess.run(["mount", "-o", "remount,size=400m", disk], check=True)
        train("photo_tagging", [], folder, resume=True)
        assert epochs(folder) == epochs(unbroken)
        assert same_weights(folder / "best.pt", unbroken / "best.pt")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_limit_on_the_size_of_files(run):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        said = refusal(run, ONE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "best.pt: a file would be larger than the system allows" in said


def test_devices_that_are_not_there(run):
    said = refusal(run, ONE, "trainer.strategy=nonsense")
    assert said.startswith("the trainer's settings do not fit this machine: ")


def test_an_unknown_system(tmp_path: Path):
    from edge_sdk.training.run import train

    said = refusal(train, "photo_taging", [], tmp_path / "out")
    assert said.startswith("unknown system to train 'photo_taging'. Did you mean 'photo_tagging'?")


def test_the_system_names_its_settings():
    assert (PhotoTaggingSystem.conf / "config.yaml").is_file()
