"""Runs of token compression on a small CLIP and a few photos: what they write, keep, resume and refuse."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_clip import SMALL, write_clip, write_photos

from edge_sdk.errors import EdgeSdkError, UnsupportedError
from edge_sdk.models import _features, load_model
from edge_sdk.models._views import View
from edge_sdk.models.token_compression import losses, metrics
from edge_sdk.models.token_compression._command import main
from edge_sdk.models.token_compression._system import TokenCompressionSystem
from edge_sdk.models.token_compression._task import TokenCompressionTask, _unscaled
from edge_sdk.models.token_compression.encoders import load_encoder
from edge_sdk.training.config import compose
from edge_sdk.training.run import train

pytest.importorskip("transformers", reason="needs pip install 'edge-sdk[clip]'")

JUDGED = {"cosine", "relative_mse", "retrieval_agreement", "probe_agreement"}

Run = Callable[..., Path]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("imagenet"))


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_SDK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def run(photos: Path, clip: Path, tmp_path: Path) -> Run:
    """Trains, and gives the run's folder."""

    def start(*settings: str, out: str = "run", root: Path = photos, resume: bool = False) -> Path:
        given = (f"data.root={root}", f"model.clip.model_name={clip}", *SMALL, *settings)
        return train("token_compression", settings if resume else given, tmp_path / out, resume=resume).folder

    return start


@pytest.fixture
def task(photos: Path, clip: Path) -> Callable[..., TokenCompressionTask]:
    """Builds what is trained, without training it."""

    def build(*settings: str) -> TokenCompressionTask:
        system = TokenCompressionSystem()
        given = (f"data.root={photos}", f"model.clip.model_name={clip}", *SMALL, *settings)
        return system.task(system.config(compose(system.conf, given)), lambda _: None)  # type: ignore[return-value]

    return build


def epochs(folder: Path) -> list[dict]:
    """The epochs of a run without their times."""
    found = json.loads((folder / "metrics.json").read_text())["epochs"]
    return [{key: value for key, value in one.items() if key != "seconds"} for one in found]


def test_a_run_writes_its_weights_and_figures_beside_those_of_pooling(run: Run, clip: Path):
    folder = run()
    written = json.loads((folder / "metrics.json").read_text())
    assert written["tokens"] == {"encoder": 16, "compressed": 4}
    assert written["squares"] == {"train": 12, "val": 8}
    wanted = {"epoch", "loss", "lr", "critic_distance", *JUDGED, *(f"pooled_{name}" for name in JUDGED)}
    assert set(epochs(folder)[0]) == wanted
    kept = torch.load(folder / "best.pt", weights_only=True)
    assert kept["encoder"]["model_name"] == str(clip) and kept["encoder"]["grid"] == 4
    assert next((folder / "tensorboard").iterdir()).stat().st_size > 0
    assert (folder / "pictures" / "tokens.png").read_bytes().startswith(b"\x89PNG")


def test_the_weights_that_are_written_take_tokens_as_the_encoder_gives_them(task):
    trained = task()
    with torch.no_grad():
        for parameter in trained.network.parameters():
            parameter.normal_(0, 0.3)
    tokens = torch.randn(2, 16, 16)
    for name, decoder in (("compressor", False), ("decoder", True)):
        network = trained.network[name]
        compressed = tokens[:, :4] if decoder else tokens
        expected = network(compressed / trained.scale) * trained.scale
        network.load_state_dict(_unscaled(network, trained.scale))
        torch.testing.assert_close(network(compressed), expected, rtol=1e-4, atol=1e-4)


def test_training_brings_tokens_of_photos_that_it_knows_back_better_than_pooling_does(
    run: Run, photos: Path, tmp_path: Path
):
    for split in ("train", "val"):
        (tmp_path / "known" / split).parent.mkdir(exist_ok=True)
        (tmp_path / "known" / split).symlink_to(photos / "train")
    settings = ("training.epochs=15", "training.learning_rate=1e-2", "loss.weights.wgan=0")
    folder = run(
        *settings, "model.compressor.hidden_dim=32", "model.autoencoder.hidden_dim=32", root=tmp_path / "known"
    )
    best = json.loads((folder / "metrics.json").read_text())["best"]
    assert best["cosine"] > best["pooled_cosine"] + 0.02


def test_a_run_that_is_resumed_ends_as_one_that_never_stopped(run: Run, monkeypatch):
    whole = run("training.epochs=2", out="whole")

    class Stop(Exception):
        pass

    original = TokenCompressionTask.on_train_epoch_start

    def at_the_second(self) -> None:
        if self.current_epoch == 1:
            raise Stop
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(TokenCompressionTask, "on_train_epoch_start", at_the_second)
        pytest.raises(Stop, run, "training.epochs=2", out="broken")
    resumed = run(out="broken", resume=True)
    assert epochs(resumed) == epochs(whole)
    first, second = (torch.load(one / "last.ckpt", weights_only=True)["state_dict"] for one in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_encoder_runs_once(run: Run, monkeypatch):
    run(out="first")
    monkeypatch.setattr(_features, "_encoded", lambda *_: pytest.fail("the encoder ran again"))
    run("training.n_critic=1", out="second")


def test_encoding_that_was_broken_off_goes_on_where_it_was(task, photos: Path, clip: Path, monkeypatch):
    monkeypatch.setattr(_features, "_BATCH", 5)
    encoded, calls = _features._encoded, []

    def until_the_third(encoder, images):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encoded(encoder, images)

    monkeypatch.setattr(_features, "_encoded", until_the_third)
    pytest.raises(KeyboardInterrupt, task)
    found = task().tokens["train"]
    assert calls[:4] == [5, 5, 2, 2]  # the third piece again, and no other
    encoder = load_encoder(str(clip))
    first = sorted((photos / "train" / "n01440764").iterdir())[0]
    images = torch.from_numpy(_features.pixels(encoder, View.middle(first)))
    torch.testing.assert_close(torch.from_numpy(found[0]).float(), encoder(images)[0], rtol=1e-2, atol=1e-2)


def test_the_critic_learns_to_tell_compressed_tokens(task):
    trained = task("model.compressor.use_residual=false")
    trained.log_dict = lambda *_: None
    tokens = trained._tokens("train", np.arange(12))

    def distance() -> float:
        with torch.no_grad():
            real = losses.sampled(tokens, trained.grid, trained.output_grid, torch.Generator().manual_seed(1))
            return float((trained._score(real) - trained._score(trained.compressor(tokens))).mean())

    before, draw = distance(), torch.Generator().manual_seed(0)
    for _ in range(60):
        trained._train_critic(draw)
    assert distance() > before
    assert not any(parameter.requires_grad for parameter in trained.network["critic"].parameters())
    assert all(parameter.grad is None for parameter in trained.compressor.parameters())


@pytest.mark.parametrize("settings", [("model.autoencoder.use_attention=true",), ("loss.ae.type=perceptual",)])
def test_other_decoders_and_losses_train(run: Run, settings):
    assert epochs(run(*settings, "model.discriminator.multi_scale=true"))[0]["cosine"] > 0


def test_a_subset_takes_photos_of_all_classes(task):
    trained = task("data.use_subset=true", "data.subset_size=6")
    assert len(trained.tokens["train"]) == 6
    assert sorted(set(trained.labels.tolist())) == [0, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("model.compressor.output_grid_size=3",), "output_grid 3 does not divide the encoder's 4 x 4 tokens"),
        (("model.compressor.output_grid_size=8",), "that is no compression"),
        (("model.autoencoder.use_attention=true", "model.autoencoder.progressive=true"), "progressive goes without"),
        (("model.compressor.start=zero",), "model.compressor.start is 'zero'; input should be 'components' or 'avera"),
        (("model.clip.freeze=false",), "only frozen ones are trained with"),
        (("model.clip.layer=-4",), "layer is -4; expected -2 to -1"),
        (("training.batch_size=13",), "12 squares to train on, fewer than a batch: give training.batch_size=12"),
        (("trainer.devices=2",), "trains on one device: give 1"),
        (("training.n_critics=3",), "unknown setting 'training.n_critics'"),
        (("data.root=/nowhere",), "there is no folder /nowhere/train"),
        (("data.root=''",), "data.root is empty"),
        (("loss.ae.type=l1",), "loss.ae.type"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_encoded(task, monkeypatch, settings, message):
    monkeypatch.setattr(_features, "_encoded", lambda *_: pytest.fail("encoded"))
    with pytest.raises(EdgeSdkError, match=message):
        task(*settings)


def test_an_empty_folder_and_a_broken_photo_are_told(task, tmp_path: Path):
    (tmp_path / "train" / "cats").mkdir(parents=True)
    with pytest.raises(EdgeSdkError, match="holds no photos: expected a folder for each class"):
        task(f"data.root={tmp_path}")
    for split in ("train", "val"):
        (tmp_path / split / "cats").mkdir(parents=True, exist_ok=True)
        (tmp_path / split / "cats" / "1.jpg").write_bytes(b"no photo")
    with pytest.raises(EdgeSdkError, match="1.jpg is not an image"):
        task(f"data.root={tmp_path}", "training.batch_size=1")


def test_there_is_nothing_to_download(tmp_path: Path):
    with pytest.raises(UnsupportedError, match="no data to download"):
        TokenCompressionSystem().download(tmp_path, False, lambda _: None)


def test_training_starts_at_averages_or_above_them(task):
    averaging, started = task("model.compressor.start=average"), task()
    tokens = started._tokens("train", np.arange(12))
    torch.testing.assert_close(averaging.compressor(tokens)[:, 0], tokens.unflatten(1, (4, 4))[:, :2, :2].mean((1, 2)))
    errors = [
        float(metrics.relative_mse(one.network["decoder"](one.compressor(tokens)), tokens).mean())
        for one in (averaging, started)
    ]
    assert errors[1] < 0.9 * errors[0]


def test_the_seconds_of_encoding_and_of_each_epoch_are_kept(run: Run, monkeypatch):
    encoded = _features._encoded
    monkeypatch.setattr(_features, "_encoded", lambda *given: (time.sleep(0.5), encoded(*given))[1])
    first = json.loads((run("training.epochs=2") / "metrics.json").read_text())
    assert first["encoding_seconds"] > 1 and all(one["seconds"] > 0 for one in first["epochs"])
    again = json.loads((run(out="again") / "metrics.json").read_text())
    assert again["encoding_seconds"] < 0.5


def test_a_step_asks_each_network_once_for_a_whole_batch(task):
    trained = task("training.n_critic=3")
    trained.log_dict = lambda *_: None
    shapes: dict[str, list[tuple[int, ...]]] = {}
    for name, network in trained.network.items():
        network.register_forward_hook(
            lambda _, given, __, name=name: shapes.setdefault(name, []).append(given[0].shape)
        )
    trained._order = torch.arange(12)
    trained.loss(0, torch.Generator().manual_seed(0)).backward()
    assert shapes["compressor"] == [(4, 16, 16)] * 4, "one batch for each of the critic's steps, and its own"
    assert shapes["decoder"] == [(4, 4, 16)]
    assert shapes["critic"] == [(4, 4, 16)] * (3 * 3 + 1), "real, compressed and between; then compressed"


@pytest.fixture(scope="module")
def checkpoint(photos: Path, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run wrote that no test changes."""
    given = (f"data.root={photos}", f"model.clip.model_name={clip}", *SMALL)
    return train("token_compression", given, tmp_path_factory.mktemp("trained") / "run").weights


def test_a_checkpoint_is_deployed_in_parts_that_give_what_the_networks_give(checkpoint: Path, photos: Path, tmp_path):
    from edge_sdk.api import deploy

    report = deploy(
        "token_compression",
        "desktop-cpu",
        runtime="onnxruntime",
        settings={"checkpoint": str(checkpoint), "data": str(photos)},
        out=tmp_path,
    )
    assert report.numerics.cosine > 0.99999
    accuracy = report.accuracy
    assert accuracy is not None and accuracy["cosine_with_fp32"] > 0.99999
    assert accuracy["reconstruction"] == pytest.approx(accuracy["reconstruction_fp32"], abs=1e-4)


def test_the_whole_is_encoder_and_compressor_one_after_the_other(checkpoint: Path, photos: Path):
    settings = {"checkpoint": str(checkpoint), "data": str(photos)}
    encoder, compressor = load_model("token_compression", settings).parts()
    (whole,) = load_model("token_compression", {**settings, "whole": "true"}).parts()
    image = encoder.example_inputs[0]
    torch.testing.assert_close(whole.module(image), compressor.module(encoder.module(image)))
    assert load_model("token_compression", settings).facts()["compression"] == 4


def test_a_model_that_is_not_trained_pools_averages(clip: Path, photos: Path):
    settings = {"encoder": str(clip), "output_grid": "2", "data": str(photos)}
    model = load_model("token_compression", settings)
    encoder, compressor = model.parts()
    tokens = compressor.example_inputs[0]
    expected = tokens.reshape(1, 4, 4, 16)[0, :2, 2:].mean((0, 1))
    torch.testing.assert_close(compressor.module(tokens)[0, 1], expected)
    assert len(model.samples("evaluation")) == 16 and len(model.samples("reference")) == 4


def test_a_checkpoint_of_other_weights_and_settings_beside_one_are_refused(checkpoint: Path, tmp_path: Path):
    with pytest.raises(EdgeSdkError, match="leave hidden_dim, output_grid out: the checkpoint decides"):
        load_model("token_compression", {"checkpoint": str(checkpoint), "output_grid": "4", "hidden_dim": "8"})
    content = torch.load(checkpoint, weights_only=True)
    content["encoder"]["weights"] = "0" * 64
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(EdgeSdkError, match="whose weights are others than those on this disk"):
        load_model("token_compression", {"checkpoint": str(tmp_path / "other.pt")}).parts()
    torch.save({"state_dict": {}}, tmp_path / "none.pt")
    with pytest.raises(EdgeSdkError, match="does not hold compressor, decoder, settings, encoder"):
        load_model("token_compression", {"checkpoint": str(tmp_path / "none.pt")}).parts()


@pytest.fixture(scope="module")
def finer(photos: Path, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of sixteen tokens, as many as the encoder gives."""
    given = (f"data.root={photos}", f"model.clip.model_name={clip}", *SMALL, "model.compressor.output_grid_size=4")
    return train("token_compression", given, tmp_path_factory.mktemp("finer") / "run").weights


def test_the_command_compresses_a_photo_and_writes_tokens_and_a_picture(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys
):
    photo = photos / "val" / "n01440764" / "0.JPEG"
    given = ["--checkpoint", str(checkpoint), "--image", str(photo), "--out", str(tmp_path / "out")]
    assert main([*given, "--target", "jetson-agx-orin", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["tokens"], told["compressed_tokens"], told["ratio"]) == (16, 4, 4)
    assert (told["bytes"], told["compressed_bytes"]) == (16 * 16 * 2, 4 * 16 * 2)
    with np.load(tmp_path / "out" / "0.npz") as kept:
        compressed, grid = kept["compressed"], int(kept["grid"])
    model = load_model("token_compression", {"checkpoint": str(checkpoint)})
    sample = model.preprocess(photo)
    tokens = torch.from_numpy(sample["compressor"]["tokens"])
    encoder, compressor = (part.module for part in model.parts())
    torch.testing.assert_close(torch.from_numpy(compressed), compressor(tokens)[0])
    assert grid == 2 and (tmp_path / "out" / "0.png").read_bytes().startswith(b"\x89PNG")
    rebuilt = model.decoder(torch.from_numpy(compressed)[None])  # type: ignore[attr-defined]
    assert told["cosine"] == pytest.approx(float(metrics.cosine(rebuilt, tokens).mean()), abs=1e-5)
    bounds = told["language_model"]
    assert bounds["compressor_bound_ms"] > 0
    assert all(one["with_bound_ms"] < one["without_bound_ms"] for one in bounds["models"])
    assert main(given) == 0
    assert "16 as 4, 4 times fewer" in capsys.readouterr().out


def test_of_several_checkpoints_the_photo_decides(checkpoint: Path, finer: Path, photos: Path, capsys):
    given = ["--checkpoint", str(checkpoint), str(finer), "--image", str(photos / "val" / "n01440764" / "0.JPEG")]
    for tolerance, expected in (("1", 4), ("0", 16)):
        assert main([*given, "--tolerance", tolerance, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["compressed_tokens"] == expected


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (["--image", "no.jpg"], 1, "there is no photo at no.jpg"),
        (["--checkpoint", "no.pt"], 1, "there is no checkpoint at no.pt"),
        (["--target", "jetson"], 1, "jetson-agx-orin"),
        (["--target", "jetson-agx-orin", "--precision", "fp17"], 1, "unknown precision 'fp17'"),
        (["--tolerance", "2"], 2, "found '2', expected a number from 0 to 1"),
        (["--images", "x"], 2, "unrecognized arguments: --images"),
    ],
)
def test_what_the_command_cannot_do_is_one_line(checkpoint: Path, photos: Path, capsys, given, code, message):
    usual = ["--checkpoint", str(checkpoint), "--image", str(photos / "val" / "n01440764" / "0.JPEG")]
    assert main([*usual, *given]) == code
    told = capsys.readouterr().err.splitlines()
    assert message in told[-1] and told[-1].startswith("edge-sdk: error: ")


def test_checkpoints_of_different_encoders_are_refused(checkpoint: Path, finer: Path, photos: Path, tmp_path, capsys):
    content = torch.load(finer, weights_only=True)
    content["encoder"]["weights"] = "0" * 64
    torch.save(content, tmp_path / "other.pt")
    photo = photos / "val" / "n01440764" / "0.JPEG"
    assert main(["--checkpoint", str(checkpoint), str(tmp_path / "other.pt"), "--image", str(photo)]) == 1
    assert "tokens of different encoders" in capsys.readouterr().err


def test_a_checkpoint_whose_settings_are_damaged_is_told(checkpoint: Path, tmp_path: Path):
    content = torch.load(checkpoint, weights_only=True)
    content["settings"]["compressor"]["hidden"] = 3
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(EdgeSdkError, match="settings of the compressor: unknown setting hidden"):
        load_model("token_compression", {"checkpoint": str(tmp_path / "odd.pt")}).parts()
