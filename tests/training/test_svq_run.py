"""Runs of SVQ: both phases, going on where they stopped, the sweep over components, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
import torch
import yaml

from edge_sdk.errors import EdgeSdkError, UnsupportedError
from edge_sdk.models.svq._config import Config
from edge_sdk.models.svq._system import SvqSystem
from edge_sdk.models.svq._task import SvqTask
from edge_sdk.models.svq.network import SVQ
from edge_sdk.models.svq.quantizer import SemanticVectorQuantizer
from edge_sdk.training.config import compose
from edge_sdk.training.run import train

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'edge-sdk[train]'")
pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'edge-sdk[train]'")

TINY = (
    "device=cpu",
    "data.size=16",
    "data.num_samples=24",
    "data.val_samples=12",
    "data.batch_size=8",
    "data.max_shapes=2",
    "model.num_slots=3",
    "model.slot_size=16",
    "model.hidden_dim=16",
    "model.codebook_size=8",
    "model.code_dim=8",
    "model.num_codebooks=2",
    "prior.embed_dim=16",
    "prior.num_heads=2",
    "prior.num_layers=1",
    "epochs=2",
    "prior.epochs=2",
)


def config(*settings: str) -> Config:
    system = SvqSystem()
    return cast(Config, system.config(compose(system.conf, settings)))


def run(out: Path, *settings: str, resume: bool = False, say=lambda _: None) -> Path:
    return train("svq", settings if resume else (*TINY, *settings), out, resume=resume, say=say).folder


def epochs(folder: Path) -> list[dict]:
    """The epochs of a run without their times."""
    found = json.loads((folder / "metrics.json").read_text())["epochs"]
    return [{key: value for key, value in one.items() if key != "seconds"} for one in found]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "best.pt", weights_only=True)["state_dict"]


def refusal(call, *arguments, **options) -> str:
    with pytest.raises(EdgeSdkError) as caught:
        call(*arguments, **options)
    return str(caught.value)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that no test changes."""
    return run(tmp_path_factory.mktemp("svq") / "unbroken")


def test_a_run_writes_its_folder_and_generates_from_its_checkpoint(unbroken: Path):
    names = {"best.pt", "config.yaml", "last.ckpt", "metrics.json", "pictures", "tensorboard"}
    assert {path.name for path in unbroken.iterdir()} == names
    assert {path.name for path in (unbroken / "pictures").iterdir()} == {"masks.png", "codes.png", "generated.png"}
    written = json.loads((unbroken / "metrics.json").read_text())
    assert written["finished"] and [one["epoch"] for one in written["epochs"]] == [1, 2, 3, 4]
    wanted = {"psnr", "mse", "fg_ari", "ari", "miou", "perplexity", "usage", "perplexity_2", "usage_2"}
    assert wanted <= written["best"].keys() and written["codes"]["colour"].keys() >= {"accuracy", "majority"}
    assert written["parameters"] > 1000 and written["data"]["dataset_name"] == "shapes"
    model = SVQ.from_state(torch.load(unbroken / "best.pt", weights_only=True))
    assert model.generate(2).shape == (2, 3, 16, 16)


def test_tensorboard_holds_curves_pictures_and_the_use_of_codes(unbroken: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(unbroken / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"masks", "generated"} <= set(tags["images"])
    assert {"codes/codebook_1", "codes/codebook_2"} <= set(tags["histograms"])
    assert {"val/psnr", "val/fg_ari", "val/bits_per_image"} <= set(tags["scalars"])


def test_the_prior_learns_on_the_best_autoencoder_which_stays_as_it_is(unbroken: Path):
    found = epochs(unbroken)
    first, second = found[:2], found[2:]
    best = max(first, key=lambda one: one["psnr"])
    assert [one["psnr"] for one in second] == [best["psnr"]] * 2
    assert second[0]["loss"] > second[1]["loss"]
    written = json.loads((unbroken / "metrics.json").read_text())
    assert written["best"]["bits_per_image"] == min(one["bits_per_image"] for one in second)
    assert first[-1]["lr"] == pytest.approx(3e-4 / 3) and second[-1]["lr"] == pytest.approx(0)


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_resumed_run_gives_the_result_of_an_unbroken_one(
    epoch: int, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    loss = SvqTask.loss

    def stopped(self: SvqTask, batch, draw):
        if self.current_epoch == epoch and len(self._losses) == 1:
            raise KeyboardInterrupt
        return loss(self, batch, draw)

    with monkeypatch.context() as patch:
        patch.setattr(SvqTask, "loss", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "broken")
    broken = run(tmp_path / "broken", resume=True)
    assert epochs(broken) == epochs(unbroken)
    ours, theirs = weights(broken), weights(unbroken)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    codes = [json.loads((folder / "metrics.json").read_text())["codes"] for folder in (broken, unbroken)]
    assert codes[0] == codes[1]


def test_the_quantizer_is_warmed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    strengths = []
    monkeypatch.setattr(SemanticVectorQuantizer, "set_strength", lambda self, strength: strengths.append(strength))
    run(
        tmp_path / "run", "epochs=3", "prior.enabled=false", "training.quantizer_start=1", "training.quantizer_warmup=1"
    )
    assert strengths == [0, 0, 0, *(pytest.approx(share / 3) for share in (1, 2, 3, 3, 3, 3))]


def test_without_a_prior_or_a_quantizer(tmp_path: Path):
    folder = run(
        tmp_path / "run", "epochs=1", "prior.enabled=false", "model.quantize=none", "model.decoder=transformer"
    )
    (found,) = epochs(folder)
    assert "psnr" in found and "perplexity" not in found
    assert [path.name for path in (folder / "pictures").iterdir()] == ["masks.png"]
    saved = torch.load(folder / "best.pt", weights_only=True)
    assert saved["settings"]["prior"] is None and not any(name.startswith("prior") for name in saved["state_dict"])


def test_the_original_projects_overrides():
    found = config("data=shapes", "model.num_slots=6", "training.learning_rate=0.0002", "device=cuda")
    assert (found.model.num_slots, found.optimizer.lr, found.trainer.accelerator) == (6, 0.0002, "gpu")
    assert config().trainer.accelerator == "auto"
    assert config("optimizer.lr=0.1", "trainer.accelerator=cpu").optimizer.lr == 0.1


def test_a_sweep_trains_each_variant_once_and_writes_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "sweep"
    settings = ("ablation.enabled=true", "ablation.epochs=1", "ablation.only=[base,unquantized]", "prior.epochs=1")
    loss = SvqTask.loss

    def stopped(self: SvqTask, batch, draw):
        if self.settings.model.quantize == "none":
            raise KeyboardInterrupt
        return loss(self, batch, draw)

    with monkeypatch.context() as patch:
        patch.setattr(SvqTask, "loss", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(out, *settings)
    before = (out / "base" / "last.ckpt").stat().st_mtime_ns
    said: list[str] = []
    result = train("svq", (), out, resume=True, say=said.append)
    assert (out / "base" / "last.ckpt").stat().st_mtime_ns == before, "what is done is not done again"
    assert all(line.startswith("unquantized (2 of 2): ") for line in said) and said
    rows = json.loads((out / "ablation.json").read_text())
    assert rows == result.metrics["sweep"] and [row["variant"] for row in rows] == ["base", "unquantized"]
    assert rows[0]["perplexity"] > 0 and rows[1]["perplexity"] is None and rows[0]["seconds"] > 0
    head, _, first, second = (out / "ablation.md").read_text().splitlines()
    assert head.startswith("| variant | psnr | fg ari |") and first.startswith("| base | ") and "|  |" in second
    assert yaml.safe_load((out / "base" / "config.yaml").read_text())["epochs"] == 1
    assert result.weights == out / "base" / "best.pt"
    assert "holds a run already" in refusal(run, out, *settings)


def test_variants_change_one_component_each():
    variants = SvqSystem().variants(config("ablation.enabled=true"))
    assert list(variants) == ["base", "iterations", "codebooks", "prior", "decoder", "unquantized", "quantized_after"]
    base = variants["base"].model_dump()
    changed = {
        name: {key for key in base if found[key] != base[key]}
        for name, found in ((name, one.model_dump()) for name, one in variants.items())
    }
    assert changed == {
        "base": set(),
        "iterations": {"model"},
        "codebooks": {"model"},
        "prior": {"prior"},
        "decoder": {"model"},
        "unquantized": {"model", "prior"},
        "quantized_after": {"model"},
    }
    assert not SvqSystem().variants(config())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("device=tpu",), "device is 'tpu'; expected one of auto, cpu, cuda."),
        (("ablation.only=[bse]",), "unknown variant 'bse'. Did you mean 'base'? Known: base, codebooks, decoder,"),
        (("data=folder",), "root is empty; give data.root=PATH of a folder with images/ and masks/"),
        (("data.root=x",), "root is 'x', and shapes are made here; give data=folder, or no data.root"),
        (("data=shape",), "unknown data 'shape'. Did you mean 'shapes'?"),
        (
            ("model.quantize=none",),
            "leaves no codes for a prior to learn; give prior.enabled=false",
        ),
        (("early_stop.patience=3",), "would end the run before its prior is trained"),
        (("trainer.devices=2",), "trainer.devices is 2; svq trains on one device"),
        (("training.learning_rate=0",), "optimizer.lr is 0; input should be greater than 0"),
        (("model.num_slots=0", "model.num_iterations=0"), "model.num_iterations is 0"),
    ],
)
def test_settings_that_do_not_fit(settings: tuple[str, ...], message: str):
    assert message in refusal(config, *settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("data.size=20",), "image_size is 20; expected a multiple of 8"),
        (("model.slot_size=15",), "a slot of 15 does not divide"),
        (("data.batch_size=25",), "shapes has 24 images to train on, fewer than a batch: give data.batch_size=24"),
        (("data=folder", "data.root=nowhere"), "there is no folder nowhere/images"),
    ],
)
def test_sizes_and_folders_that_do_not_fit(settings: tuple[str, ...], message: str, tmp_path: Path):
    assert message in refusal(run, tmp_path / "run", *settings)


def test_a_loss_that_is_no_number_names_step_and_images(tmp_path: Path):
    said = refusal(
        run, tmp_path / "run", "training.learning_rate=1e30", "training.gradient_clip=0", "optimizer.warmup_epochs=0"
    )
    assert "the loss became " in said and "image " in said and "Lower optimizer.lr" in said


def test_there_is_nothing_to_download(tmp_path: Path):
    with pytest.raises(UnsupportedError, match="no data to download: shapes, dsprites and scenes are made here"):
        SvqSystem().download(tmp_path, False, lambda _: None)
