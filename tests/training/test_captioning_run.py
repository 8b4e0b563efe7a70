"""Runs of captioning on a few pictures in COCO's format: what they learn, write, resume and refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from _captioners import small_resnet

from edge_sdk.errors import EdgeSdkError, ModelError, UnsupportedError
from edge_sdk.models._checkpoint import load_plain
from edge_sdk.models.captioning._data import captioned, scenes
from edge_sdk.models.captioning._prune import prune_captioner
from edge_sdk.models.captioning._system import CaptioningSystem
from edge_sdk.models.captioning.network import Captioner
from edge_sdk.models.captioning.plugin import Captioning
from edge_sdk.models.captioning.vocabulary import SPECIAL, Vocabulary
from edge_sdk.pruning import Recipe
from edge_sdk.training.run import train

SMALL = (
    *("data=coco", "data.batch_size=4", "data.least_count=1", "data.views=1", "trainer.accelerator=cpu"),
    *("encoder.name=resnet18", "encoder.image_size=64", "optimizer.lr=1e-2", "optimizer.weight_decay=0"),
    *("decoder.embed_dim=12", "decoder.attention_dim=12", "decoder.decoder_dim=48", "decoder.dropout=0"),
)
COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "white": (240, 240, 240)}

Run = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_SDK_CACHE", str(tmp_path / "cache"))


def write(folder: Path, split: str, copies: int) -> None:
    """Pictures of one color, as COCO lays them and their captions out."""
    from PIL import Image

    (folder / f"{split}2017").mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    draw = np.random.default_rng(len(split))
    for number, color in enumerate(sorted(COLORS) * copies):
        name = f"{number:012}.png"
        noisy = np.asarray(COLORS[color]) + draw.integers(-12, 13, (40, 48, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{split}2017" / name)
        images.append({"id": number, "file_name": name, "height": 40, "width": 48})
        for caption in (f"A {color} picture.", f"a picture in {color}"):
            annotations.append({"id": len(annotations), "image_id": number, "caption": caption})
    content = {"info": {}, "licenses": [], "images": images, "annotations": annotations}
    (folder / "annotations" / f"captions_{split}2017.json").write_text(json.dumps(content))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "coco"
    write(folder, "train", 4)
    write(folder, "val", 1)
    return folder


@pytest.fixture
def run(photos: Path, tmp_path: Path) -> Run:
    """Trains, and gives the run's folder."""

    def start(*settings: str, out: str = "run", root: Path | str = photos, resume: bool = False) -> Path:
        given = (*SMALL, f"data.root={root}", *settings)
        return train("captioning", settings if resume else given, tmp_path / out, resume=resume).folder

    return start


def epochs(folder: Path) -> list[dict]:
    found = json.loads((folder / "metrics.json").read_text())["epochs"]
    return [{key: value for key, value in one.items() if key != "seconds"} for one in found]


def test_it_learns_to_name_colors_and_its_checkpoint_says_them(run: Run, photos: Path):
    folder = run("epochs=45", "seed=2")
    found = epochs(folder)
    assert set(found[0]) == {"epoch", "lr", "loss", "cider", "bleu_1", "bleu_4", "nats_per_word"}
    assert found[-1]["cider"] > 3 and found[-1]["nats_per_word"] < found[0]["nats_per_word"]
    captioner = Captioner.from_state(load_plain(folder / "best.pt"), "best.pt")
    assert captioner.vocabulary.words[: len(SPECIAL)] == SPECIAL
    from edge_sdk.models._features import pixels

    images = torch.cat(
        [torch.from_numpy(pixels(captioner.encoder, one.view)) for one in captioned(str(photos), "val", 1, 0)]
    )
    for beams in (1, 3):
        said = captioner.caption(images, beams)
        assert [next(color for color in COLORS if color in one) for one in said] == sorted(COLORS)
    assert (folder / "pictures" / "captions.png").stat().st_size > 10_000
    assert next((folder / "tensorboard").iterdir()).stat().st_size > 0


def test_a_run_that_was_broken_off_ends_as_one_that_was_not(run: Run, monkeypatch: pytest.MonkeyPatch):
    from edge_sdk.models.captioning._task import CaptioningTask

    whole = run("epochs=3", out="whole")
    step = CaptioningTask.loss

    def broken(self, batch, draw):
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return step(self, batch, draw)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CaptioningTask, "loss", broken)
        run("epochs=3", out="parts")
    parts = run(out="parts", resume=True)
    assert epochs(parts) == epochs(whole)


def test_a_checkpoint_of_another_vocabulary_or_encoder_is_refused(run: Run):
    content = load_plain(run("epochs=1") / "best.pt")
    with pytest.raises(ModelError, match="belongs to another checkpoint"):
        Captioner.from_state({**content, "vocabulary": content["vocabulary"][:-1]}, "it")
    with pytest.raises(ModelError, match="was trained with another encoder"):
        Captioner.from_state({**content, "encoder": {"name": "resnet50", "image_size": 64}}, "it")
    with pytest.raises(ModelError, match="does not hold state_dict, vocabulary and encoder"):
        Captioner.from_state({"state_dict": {}}, "it")


@pytest.fixture
def small_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of some thousand weights in a ResNet's place, so that training it takes no time."""
    from edge_sdk.models.captioning import encoders

    monkeypatch.setattr(encoders, "_resnet", small_resnet)


@pytest.fixture
def whole(small_encoder, tmp_path: Path) -> Path:
    """The checkpoint of a captioner that has learned nothing yet."""
    from edge_sdk.models.captioning.decoder import AttentionDecoder
    from edge_sdk.models.captioning.encoders import PlacesEncoder

    pytest.importorskip("torch_pruning", reason="torch-pruning is not installed: pip install 'edge-sdk[train]'")
    torch.manual_seed(0)
    vocabulary, encoder = Vocabulary((*SPECIAL, "a", "in", "picture", *sorted(COLORS))), PlacesEncoder("resnet18", 64)
    decoder = AttentionDecoder(len(vocabulary), encoder.dim, embed_dim=12, attention_dim=16, decoder_dim=24)
    path = tmp_path / "whole.pt"
    torch.save({**Captioner(encoder, decoder, vocabulary).checkpoint(), "data": "", "facts": {}}, path)
    return path


def test_a_pruned_captioner_is_trained_on_and_its_zeros_stay(run: Run, whole: Path):
    pruned = ("method=prune", f"prune.checkpoint={whole}", "prune.recipe=struct30+mag20", "optimizer.lr=1e-3")
    folder = run(*pruned, "epochs=2", "prune.calibration_squares=8", "prune.sensitivity=true")
    found = Captioner.from_state(load_plain(folder / "best.pt"), "best.pt")
    before = Captioner.from_state(load_plain(whole), "best.pt")
    sizes = [sum(value.numel() for value in one.parameters()) for one in (found, before)]
    about = json.loads((folder / "metrics.json").read_text())["pruning"]
    assert about["recipe"] == load_plain(folder / "best.pt")["facts"]["pruned"] == "struct30+mag20"
    assert Captioning(checkpoint=str(folder / "best.pt")).facts()["pruned"] == "struct30+mag20"
    assert sizes == [about["parameters"], about["parameters_before"]] and sizes[0] <= 0.7 * sizes[1]
    zeros = sum(int((value == 0).sum()) for value in found.parameters() if value.ndim > 1)
    assert zeros == about["zeros"] > 0.18 * sizes[0]
    start = prune_captioner(before, Recipe(30, 20)).captioner.encoder.state_dict()
    learned = found.encoder.state_dict()
    moved = [name for name, value in start.items() if value.ndim > 1 and not torch.equal(value, learned[name])]
    assert moved and all(not learned[name][start[name] == 0].any() for name in moved)
    assert (folder / "pictures" / "sensitivity.png").stat().st_size > 10_000
    assert json.loads((folder / "pictures" / "sensitivity.json").read_text())["unpruned"] == 1
    assert epochs(folder)[-1]["loss"] < epochs(folder)[0]["loss"]


def test_a_pruned_run_that_was_broken_off_ends_as_one_that_was_not(
    run: Run, whole: Path, monkeypatch: pytest.MonkeyPatch
):
    from edge_sdk.models.captioning._prune_task import PruningTask

    pruned = ("method=prune", f"prune.checkpoint={whole}", "prune.recipe=struct30+mag20", "epochs=2")
    unbroken = run(*pruned, out="unbroken")
    step = PruningTask.loss

    def broken(self, batch, draw):
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return step(self, batch, draw)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PruningTask, "loss", broken)
        run(*pruned, out="parts")
    assert epochs(run(out="parts", resume=True)) == epochs(unbroken)


def test_the_packaged_captions_are_five_of_each_scene_and_the_last_is_no_other(photos):
    assert len(scenes()) > 50
    for captions in scenes().values():
        assert len(set(captions)) == 5
    learned = {caption for photo in captioned("embedded", "train", 1, 0) for caption in photo.captions}
    judged = {caption for photo in captioned("embedded", "val", 1, 0) for caption in photo.captions}
    assert judged and not learned & judged


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "{", "is no file of COCO's captions"),
        (lambda text: text.replace('"image_id": 0', '"image_id": 99'), "captions of 1 images that it does not list"),
        (lambda text: text.replace("000000000000.png", "../x.png"), "which is not a file of"),
        (lambda text: '{"images": [], "annotations": []}', "has no captions"),
    ],
)
def test_damaged_annotations_are_told_before_training(run: Run, photos: Path, change, said: str):
    path = photos / "annotations" / "captions_train2017.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(ModelError, match=said):
        run("epochs=1")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("data.root=",), "data.root is empty"),
        (("data.root=/nowhere",), "there is no /nowhere/annotations"),
        (("data.batch_size=99",), "give data.batch_size=16 or less"),
        (("data.least_count=1000",), "no word of the captions comes 1000 times"),
        (("encoder.name=vgg",), "encoder.name"),
        (("encoder.image_size=50",), "expected a multiple of 32"),
        (("encoder.checkpoint=/nowhere.pt",), "no checkpoint at /nowhere.pt"),
        (("decoder.dropout=1",), "decoder.dropout"),
        (("decoder.depth=3",), "decoder.depth"),
        (("method=prune",), "prune.checkpoint is empty"),
        (("method=prune", "prune.checkpoint=/nowhere.pt"), "there is no checkpoint at /nowhere.pt"),
        (("method=prune", "prune.checkpoint=x", "prune.recipe=half"), "'half' is no way to prune"),
        (("method=shrink",), "unknown method 'shrink'"),
    ],
)
def test_wrong_settings_are_told_before_training(run: Run, settings: tuple[str, ...], said: str):
    with pytest.raises(EdgeSdkError, match=said):
        run(*settings)


def test_there_is_nothing_to_download(tmp_path: Path):
    with pytest.raises(UnsupportedError, match="captioning downloads nothing"):
        CaptioningSystem().download(tmp_path, False, lambda _: None)
