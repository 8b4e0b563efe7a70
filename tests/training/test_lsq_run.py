"""LSQ from a checkpoint that training in FP32 gave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from edge_sdk.quantization.lsq import load

ONE = "epochs=1"


@pytest.fixture
def fp32(run) -> Path:
    return run("epochs=2", out="fp32") / "best.pt"


def lsq(fp32: Path, *settings: str) -> tuple[str, ...]:
    return ("method=lsq", f"lsq.checkpoint={fp32}", "optimizer.lr=0.01", *settings)


def epochs(folder: Path) -> list[dict]:
    found = json.loads((folder / "metrics.json").read_text())["epochs"]
    return [{key: value for key, value in one.items() if key != "seconds"} for one in found]


def test_it_writes_an_lsq_checkpoint_close_to_fp32(run, fp32: Path):
    folder = run(*lsq(fp32, ONE), out="lsq")
    assert not (folder / "best.pt").exists()
    found = load(folder / "best.lsq.pt")
    assert (found.recipe.weight_bits, found.recipe.activation_bits, found.recipe.per_channel) == (8, 8, True)
    (best,) = epochs(folder)
    assert found.facts == {"variant": "resnet18", "num_classes": 4, "input_size": 32, "epoch": 1, "map": best["map"]}
    before = epochs(fp32.parent)
    assert best["loss"] < before[0]["loss"], "it starts from the weights that were trained"
    assert json.loads((folder / "metrics.json").read_text())["weights"] == "best.lsq.pt"


def test_bits_edges_and_channels_are_settable(run, fp32: Path):
    settings = ("lsq.weight_bits=4", "lsq.activation_bits=5", "lsq.edges=same", "lsq.per_channel=false")
    found = load(run(*lsq(fp32, ONE, *settings), out="lsq") / "best.lsq.pt")
    assert found.recipe.facts() == {
        "weight_bits": 4,
        "activation_bits": 5,
        "edges": "same",
        "per_channel": False,
        "start": "range",
        "outputs": "float",
    }
    assert all(step.numel() == 1 for step in found.weight_steps.values())


def test_steps_get_no_weight_decay(task, fp32: Path):
    network = task(*lsq(fp32))
    decayed, spared = ({id(one) for one in group["params"]} for group in network._groups(0.1, network.parameters()))
    steps = {id(step) for step in network.network.steps()}  # type: ignore[operator]
    assert steps and steps <= spared and not steps & decayed


def test_distillation_is_the_share_of_the_loss_that_the_fp32_network_decides(task, fp32: Path):
    def loss(share: float, flipped: bool) -> float:
        built = task(*lsq(fp32, f"lsq.distillation={share}"))
        photos = built.photos["train"]
        batch = photos.collate([photos[0, number] for number in range(8)])
        batch["labels"] = 1 - batch["labels"] if flipped else batch["labels"]
        return float(built.loss(batch, torch.Generator().manual_seed(0)).detach())

    assert loss(1, False) == loss(1, True), "the labels decide nothing"
    assert loss(0, False) != loss(0, True)
    assert loss(0.25, False) == pytest.approx(0.25 * loss(1, False) + 0.75 * loss(0, False), rel=1e-5)


@pytest.mark.slow
def test_a_resumed_run_gives_the_result_of_an_unbroken_one(run, fp32: Path, monkeypatch: pytest.MonkeyPatch):
    from edge_sdk.models.photo_tagging._task import TaggingTask

    unbroken = run(*lsq(fp32, "epochs=2"), out="unbroken")
    with monkeypatch.context() as patch:
        loss = TaggingTask.loss

        def stopped(self: TaggingTask, batch, draw):
            if self.current_epoch == 1 and len(self._losses) == 1:
                raise KeyboardInterrupt
            return loss(self, batch, draw)

        patch.setattr(TaggingTask, "loss", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(*lsq(fp32, "epochs=2"), out="broken")
    broken = run(out="broken", resume=True)
    assert epochs(broken) == epochs(unbroken)
    first, second = load(broken / "best.lsq.pt"), load(unbroken / "best.lsq.pt")
    for group in ("weights", "biases", "weight_steps", "activation_steps"):
        found, expected = getattr(first, group), getattr(second, group)
        assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)
