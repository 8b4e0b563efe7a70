"""Runs of Soft Convex Quantization on a few photos: what they write, that they resume, and what stops them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_sdk.errors import EdgeSdkError, UnsupportedError
from edge_sdk.models.scq._loader import collate, floats
from edge_sdk.models.scq._reference_vq import as_plain
from edge_sdk.models.scq._system import ScqSystem
from edge_sdk.models.scq._task import ScqTask
from edge_sdk.models.scq.autoencoder import SCQAutoencoder
from edge_sdk.training.config import compose
from edge_sdk.training.run import train
from edge_sdk.training.seeds import generator

ONE = "epochs=1"
SMALL = (
    *("data.size=32", "data.batch_size=4", "data.patches=16", "data.val_patches=10", "network.latent_dim=8"),
    *("network.hidden=8", "codebook.num_codes=12", "optimizer.lr=5e-3", "trainer.accelerator=cpu"),
    "solver=relaxed",
)
OF_IMAGES = {"mse", "psnr", "ssim", "quantization_error", "bits_per_pixel"}
OF_CODES = {"perplexity", "usage", "support_size", "gap", "psnr_coded"}
ALWAYS = {"epoch", "loss", "lr"}

Run = Callable[..., Path]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photos that no test changes: soft blobs of colour."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for number in range(6):
        small = Image.fromarray(draw.integers(0, 256, (6, 6, 3)).astype(np.uint8))
        small.resize((96, 72), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def run(photos: Path, tmp_path: Path) -> Run:
    """Trains on the folder, and gives the run's folder."""

    def start(*settings: str, out: str = "run", root: Path = photos, resume: bool = False) -> Path:
        given = settings if resume else (f"data.root={root}", *SMALL, *settings)
        return train("scq", given, tmp_path / out, resume=resume).folder

    return start


@pytest.fixture(scope="session")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with the exact solver, which no test changes."""
    settings = (f"data.root={photos}", *SMALL, "epochs=2", "solver=exact", "data.patches=40")
    return train("scq", settings, tmp_path_factory.mktemp("trained") / "run").folder


@pytest.fixture
def task(photos: Path) -> Callable[..., ScqTask]:
    """Builds what is trained, without training it."""

    def build(*settings: str) -> ScqTask:
        system = ScqSystem()
        config = system.config(compose(system.conf, (f"data.root={photos}", *SMALL, *settings)))
        return system.task(config, lambda _: None)  # type: ignore[return-value]

    return build


def epochs(folder: Path) -> list[dict]:
    """The epochs of a run without their times."""
    found = json.loads((folder / "metrics.json").read_text())["epochs"]
    return [{key: value for key, value in one.items() if key != "seconds"} for one in found]


def same(one: Path, other: Path, key: str | None = None) -> bool:
    first, second = (torch.load(path, weights_only=True) for path in (one, other))
    first, second = (first[key], second[key]) if key else (first, second)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def refusal(call, *arguments, **options) -> str:
    with pytest.raises(EdgeSdkError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def test_a_run_writes_its_folder_its_pictures_and_tensorboard(trained: Path):
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = trained
    names = {"best.pt", "config.yaml", "last.ckpt", "metrics.json", "pictures", "tensorboard"}
    assert {path.name for path in folder.iterdir()} == names
    written = json.loads((folder / "metrics.json").read_text())
    assert written["finished"] and written["score"] == "psnr" and written["quantizer"] == "scq"
    assert written["photos"] == {"train": 5, "val": 1} and written["skipped"] == {"train": {}, "val": {}}
    assert set(epochs(folder)[0]) == ALWAYS | OF_IMAGES | OF_CODES
    best = written["best"]
    assert best["gap"] < 1e-5 and 0 < best["usage"] <= 1 and 1 <= best["support_size"] <= 12
    assert 0 < best["bits_per_pixel"] < 2 and abs(best["psnr_coded"] - best["psnr"]) < 0.5
    with Image.open(folder / "pictures" / "reconstructions.png") as picture:
        assert picture.width > picture.height > 200
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"histograms": 0})
    events.Reload()
    assert len(events.Images("val/reconstructions")) == 2 and len(events.Histograms("val/code_use")) == 2
    assert {"train/loss", "train/reconstruction", "train/commitment", "val/psnr"} <= set(events.Tags()["scalars"])


def test_the_written_weights_give_the_figures_that_were_written(trained: Path, task: Callable[..., ScqTask]):
    from edge_sdk.models.scq.statistics import psnr

    again = task("solver=exact")
    again.network.load_state_dict(torch.load(trained / "best.pt", weights_only=True)["state_dict"])
    patches = again.val_patches.patches
    images = floats(collate(list(enumerate(patches)))["images"])
    with torch.no_grad():
        found = again.network.eval()(images)[0]
    written = json.loads((trained / "metrics.json").read_text())["best"]
    assert written["psnr"] == pytest.approx(float(psnr(found, images).mean()), abs=1e-4)
    assert written["mse"] == pytest.approx(float((found.clamp(0, 1) - images).square().mean()), rel=1e-4)


def test_training_learns(task: Callable[..., ScqTask]):
    built = task()
    batch = collate([built.train_patches[0, number] for number in range(4)])
    optimizer = torch.optim.AdamW(built.parameters(), 1e-2)
    losses = []
    for step in range(40):
        loss = built.loss(batch, generator(0, step))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.parametrize("quantizer", ["vq", "vq_reference", "none"])
def test_other_quantizers_train(quantizer: str, run: Run, task: Callable[..., ScqTask]):
    if quantizer == "vq_reference":
        pytest.importorskip("vector_quantize_pytorch", reason="pip install 'edge-sdk[reference]'")
    folder = run(ONE, f"quantizer={quantizer}")
    (found,) = epochs(folder)
    assert set(found) == ALWAYS | OF_IMAGES | (set() if quantizer == "none" else OF_CODES)
    plain = "vq" if quantizer == "vq_reference" else quantizer
    task(f"quantizer={plain}").network.load_state_dict(torch.load(folder / "best.pt", weights_only=True)["state_dict"])
    if quantizer == "none":
        assert found["quantization_error"] == 0 and found["bits_per_pixel"] == 32 * 8 / 64
    else:
        assert found["support_size"] == 1 and found["psnr_coded"] == found["psnr"] and found["bits_per_pixel"] < 0.06


def test_the_reference_quantizer_is_kept_as_a_plain_one_that_quantizes_alike(task: Callable[..., ScqTask]):
    pytest.importorskip("vector_quantize_pytorch", reason="pip install 'edge-sdk[reference]'")
    trained = task("quantizer=vq_reference")
    batch = collate([trained.train_patches[0, number] for number in range(4)])
    for step in range(3):
        trained.loss(batch, generator(0, step))
    reference = trained.network.eval()
    plain = SCQAutoencoder(latent_dim=8, num_codes=12, hidden=8, quantizer="vq").eval()
    plain.load_state_dict(as_plain(reference))
    images = floats(batch["images"])
    with torch.no_grad():
        torch.testing.assert_close(plain(images)[0], reference(images)[0])


@pytest.mark.parametrize(
    "settings", [("codebook.num_codes=40", "solver=exact"), ("codebook.ema_decay=null", "quantizer=vq")]
)
def test_a_resumed_run_gives_the_result_of_an_unbroken_one(
    settings: tuple[str, ...], run: Run, monkeypatch: pytest.MonkeyPatch
):
    settings = ("epochs=3", *settings)
    unbroken = run(*settings, out="unbroken")
    loss = ScqTask.loss

    def stopped(self: ScqTask, batch, draw):
        if self.current_epoch == 1 and len(self._losses) == 1:
            raise KeyboardInterrupt
        return loss(self, batch, draw)

    with monkeypatch.context() as patch:
        patch.setattr(ScqTask, "loss", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(*settings, out="broken")
    torch.manual_seed(99)
    broken = run(out="broken", resume=True)
    assert epochs(broken) == epochs(unbroken)
    assert same(broken / "best.pt", unbroken / "best.pt", "state_dict")
    assert same(broken / "last.ckpt", unbroken / "last.ckpt", "state_dict")


def test_the_seed_decides_weights_and_patches_but_not_those_to_judge_with(task: Callable[..., ScqTask]):
    first, again, other = task(), task(), task("seed=1")
    weights = [next(one.network.parameters()) for one in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert np.array_equal(first.train_patches[0, 0][1], again.train_patches[0, 0][1])
    assert not np.array_equal(first.train_patches[0, 0][1], other.train_patches[0, 0][1])
    assert np.array_equal(first.val_patches.patches, other.val_patches.patches)


def test_patches_differ_from_epoch_to_epoch_and_devices_share_them(task: Callable[..., ScqTask]):
    from edge_sdk.models.scq._loader import Order

    patches = task().train_patches
    first, again, later = patches[0, 3][1], patches[0, 3][1], patches[1, 3][1]
    assert np.array_equal(first, again) and not np.array_equal(first, later)
    orders = [list(Order(7, 2, rank)) for rank in range(2)]
    assert [len(one) for one in orders] == [4, 4]
    assert {number for one in orders for _, number in one} == set(range(7))


def test_no_weight_decay_for_codes_that_are_learned_by_gradient(task: Callable[..., ScqTask]):
    trained = task("codebook.ema_decay=null")
    codes = trained.network.quantizer.codebook.codes  # type: ignore[union-attr]
    assert [parameter is codes for parameter in trained.undecayed()] == [True]


def test_both_tasks_build_on_packaged_photos(task: Callable[..., ScqTask]):
    pytest.importorskip("skimage", reason="scikit-image is not installed: pip install 'edge-sdk[train]'")
    for name in ("food_ar", "nav_ar"):
        built = task(f"task={name}", "data.root=embedded", "data.photos=2")
        assert built.settings.task == name and built.about()["photos"]["train"] in (1, 2)


# Bad input


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("task=fod_ar", "unknown task 'fod_ar'. Did you mean 'food_ar'? Known: food_ar, nav_ar."),
        ("scq_lambda=0", "scq_lambda is 0; input should be greater than 0."),
        ("scq_lambda=-1", "scq_lambda is -1; input should be greater than 0."),
        (
            "data.size=60",
            "data.size is 60 and network.stride 8; expected a size that the stride divides, such as 56.",
        ),
        ("solver=cvxpylayers", "solver is 'cvxpylayers'; input should be 'exact' or 'relaxed'."),
        ("data.patches=0", "data.patches is 0; input should be greater than or equal to 1."),
        (
            "data.root=",
            "data.root is empty; give data.root=PATH of a folder of photos, or data=embedded.",
        ),
        ("data.sise=64", "unknown setting 'data.sise'. Did you mean 'data.size'?"),
    ],
)
def test_settings_that_do_not_fit_are_told_before_a_folder_is_made(setting: str, told: str, run: Run, tmp_path: Path):
    assert refusal(run, setting).startswith(told)
    assert not (tmp_path / "run").exists()


def test_the_reference_quantizer_without_a_decay(run: Run):
    said = refusal(run, "quantizer=vq_reference", "codebook.ema_decay=null")
    assert said == "codebook.ema_decay is null; with quantizer=vq_reference codes follow, so give a decay."


def test_photos_that_do_not_fit_are_told_before_training(run: Run, tmp_path: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"there is no photo in {empty}: it is empty or not there" in refusal(run, ONE, root=empty, out="a")
    (empty / "a.jpg").write_bytes(b"no photo")
    (empty / "b.jpg").write_bytes(b"no photo")
    assert "1 of 1 photos cannot be used" in refusal(run, ONE, root=empty, out="b")
    assert "has 96 x 72 pixels; a patch takes at least 80 x 80" in refusal(run, ONE, "data.size=80", out="c")
    assert not list(tmp_path.glob("*/best.pt"))


def test_there_is_nothing_to_download(tmp_path: Path):
    with pytest.raises(UnsupportedError, match="scq has no data to download: its photos come with packages"):
        ScqSystem().download(tmp_path, False, lambda _: None)
