"""``edge-sdk train`` as a process: its help, its faults in one line, Ctrl-C and going on, several devices."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_coco
from _commands import Edge, edge_in

for _library in ("torch", "lightning", "hydra", "tensorboard"):
    pytest.importorskip(_library, reason=f"{_library} is not installed: pip install 'edge-sdk[train]'")

SETTINGS = ("data.size=32", "data.batch_size=8", "data.workers=0", "optimizer.lr=0.02", "trainer.accelerator=cpu")
HEAVY = ("torch", "numpy", "pydantic", "rich", "lightning", "hydra")


@pytest.fixture
def edge(capsys, tmp_path, monkeypatch) -> Edge:
    return edge_in(tmp_path, capsys, monkeypatch)


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_coco.write_coco(tmp_path_factory.mktemp("coco") / "coco", 24, 16)


def test_help_imports_no_library():
    probe = (
        "import sys\nfrom edge_sdk.cli import main\nassert main(['train', '--help']) == 0\n"
        f"assert not set({HEAVY!r}) & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "edge-sdk train photo_tagging data=embedded --out runs/fp32" in done.stdout
    assert "KEY=VALUE" in done.stdout and "--resume" in done.stdout and "--val-only" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("photo_tagging",), 2, "expected either --out DIR or --download DIR, found neither"),
        (("photo_tagging", "--out", "a", "--download", "b"), 2, "found both"),
        (("photo_tagging", "epochs=1", "--download", "b"), 2, "--download takes no settings"),
        (("photo_tagging", "--config", "c", "--download", "b"), 2, "--download takes no settings"),
        (("photo_tagging", "--config", "c", "--resume", "--out", "b"), 2, "leave out --config"),
        (("photo_tagging", "--config", "c", "--out", "b"), 1, "c, which should hold settings, cannot be read"),
        (("photo_tagging", "--val-only", "--out", "b"), 2, "--val-only goes with --download"),
        (("photo_taging", "--out", "a"), 1, "unknown system to train 'photo_taging'. Did you mean 'photo_tagging'?"),
        (("photo_tagging", "epoch=1", "--out", "a"), 1, "unknown setting 'epoch'. Did you mean 'epochs'?"),
        (("photo_tagging", "--out", "a", "epochs=0", "data.root=x"), 1, "epochs is 0; input should be greater"),
        (("photo_tagging", "--out", "a"), 1, "data.root is empty; give data.root=PATH of a COCO folder"),
        (("photo_tagging", "data.root=nowhere", "--out", "a"), 1, "the COCO folder nowhere is not there"),
        (("photo_tagging", "--resume", "--out", "a"), 1, "a holds no run to resume"),
    ],
)
def test_faults_are_one_line(edge: Edge, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str):
    found, said = edge("train", *arguments)
    assert found == code and said.startswith("edge-sdk: error: ") and "\n" not in said
    assert message in said


def test_a_run_gives_one_json_document(cli, coco: Path, tmp_path: Path):
    done = cli("train", "photo_tagging", "--json", f"data.root={coco}", "--out", "run", "epochs=1", *SETTINGS)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["folder"], document["weights"]) == ("run", "run/best.pt")
    assert document["best"]["epoch"] == 1 and document["finished"] and (tmp_path / "run" / "best.pt").is_file()
    said = done.stderr.splitlines()
    assert all(line.startswith("[") for line in said), "progress, and nothing of the libraries"
    assert any("epoch 1 of 1: loss " in line for line in said)
    shown = cli("train", "photo_tagging", "--resume", "--out", "run")
    assert shown.returncode == 0
    assert "Best epoch: 1 of 1. Weights: run/best.pt" in shown.stdout and "map " in shown.stdout


def outcome(folder: Path) -> list[dict]:
    found = json.loads((folder / "metrics.json").read_text())["epochs"]
    return [{key: value for key, value in one.items() if key != "seconds"} for one in found]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_resume_give_the_result_of_an_unbroken_run(number: int, cli, coco: Path, tmp_path: Path):
    import torch

    command = ["train", "photo_tagging", f"data.root={coco}", *SETTINGS, "epochs=6"]
    assert cli(*command, "--out", "unbroken").returncode == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_sdk", *command, "--out", "broken"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line.rstrip("\n"))
        if "epoch 2 of 6" in line:
            time.sleep(0.3)
            process.send_signal(number)
    assert process.wait(60) == 128 + number
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert said[-1] == f"edge-sdk: {word}; nothing was left half written"
    assert "stopped; the run goes on after its last whole epoch with --resume" in said[-2]
    assert 1 <= len(outcome(tmp_path / "broken")) < 6
    done = cli("train", "photo_tagging", "--resume", "--out", "broken")
    assert done.returncode == 0 and "going on from broken/last.ckpt" in done.stderr
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "unbroken")
    first, second = (torch.load(tmp_path / name / "best.pt", weights_only=True) for name in ("broken", "unbroken"))
    assert all(torch.equal(first[key], second[key]) for key in second)


@pytest.mark.slow
def test_two_devices_share_a_run(cli, coco: Path, tmp_path: Path):
    """Two processes on this processor, by Lightning's strategy; one of them speaks for both."""
    several = ("trainer.devices=2", "trainer.strategy=ddp", "epochs=2")
    done = cli("train", "photo_tagging", "--json", f"data.root={coco}", "--out", "run", *SETTINGS, *several)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [one["epoch"] for one in document["epochs"]] == [1, 2] and document["finished"]
    assert done.stderr.count("epoch 1 of 2: loss ") == 1
