"""Figures of a run as files of Weights & Biases: written offline, gone on with, and refused where it is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import yaml

from edge_sdk.errors import MissingDependencyError, ModelError
from edge_sdk.models.photo_tagging._task import TaggingTask
from edge_sdk.training import _tracking


@pytest.fixture
def wandb():
    return pytest.importorskip("wandb", reason="wandb is not installed: pip install 'edge-sdk[wandb]'")


def offline_files(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))


def test_a_run_writes_offline_files_that_a_resumed_one_goes_on_with(run, wandb, monkeypatch: pytest.MonkeyPatch):
    epoch_start = TaggingTask.on_train_epoch_start

    def stop_at_the_second(self: TaggingTask) -> None:
        if self.current_epoch == 1:
            raise RuntimeError("stopped by the test")
        epoch_start(self)

    with monkeypatch.context() as patch:
        patch.setattr(TaggingTask, "on_train_epoch_start", stop_at_the_second)
        pytest.raises(RuntimeError, run, "epochs=2", "trainer.wandb=offline")
    folder = run(resume=True)
    first, second = offline_files(folder)
    assert first.parent != second.parent and first.name == second.name, "both are one run"
    for file in (first, second):
        content = file.read_bytes()
        assert b"val/map" in content and b"optimizer" in content, "figures and settings"
    assert list((folder / "tensorboard").glob("events*")), "TensorBoard's files are written, too"
    assert wandb.run is None, "nothing is left open"
    assert yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["wandb"] == "offline"


def test_where_wandb_is_missing_nothing_is_begun(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else find_spec(name, *a))
    with pytest.raises(MissingDependencyError, match=r"trainer.wandb is offline, .* pip install 'edge-sdk\[wandb\]'"):
        run("epochs=1", "trainer.wandb=offline")
    assert not (tmp_path / "run").exists()


def test_a_run_that_wandb_does_not_take_is_told(run, wandb, monkeypatch: pytest.MonkeyPatch):
    def refuse(**_: object) -> None:
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(
        ModelError, match="takes no run: No API key configured. Log in .* or give trainer.wandb=offline"
    ):
        run("epochs=1", "trainer.wandb=online")


def test_by_default_and_with_an_unknown_word_nothing_goes_to_wandb(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_tracking, "_wandb_run", lambda *_: pytest.fail("wandb was asked"))
    assert not (run("epochs=1") / "wandb").exists()
    with pytest.raises(ModelError, match="trainer.wandb is 'sometimes'; input should be 'disabled', 'offline' or 'onl"):
        run("trainer.wandb=sometimes", out="other")
