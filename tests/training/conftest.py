"""What the tests of training share: the libraries, one thread, a tiny data set and a run on it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_coco

for _library in ("torch", "lightning", "hydra", "tensorboard"):
    pytest.importorskip(_library, reason=f"{_library} is not installed: pip install 'edge-sdk[train]'")

import torch  # noqa: E402

SMALL = ("data.size=32", "data.batch_size=8", "data.workers=0", "optimizer.lr=0.02", "trainer.accelerator=cpu")

Run = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """One thread of torch is quick enough here, and does not wait for others on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def quiet():
    """Lightning's own lines are not of interest."""
    logging.getLogger("lightning").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that no test changes."""
    return tiny_coco.write_coco(tmp_path_factory.mktemp("coco") / "coco", 24, 16)


@pytest.fixture
def run(coco: Path, tmp_path: Path) -> Run:
    """Trains on the tiny set, and gives the run's folder."""
    from edge_sdk.training.run import train

    def start(*settings: str, out: str = "run", root: Path = coco, say=lambda _: None, resume: bool = False) -> Path:
        given = settings if resume else (f"data.root={root}", *SMALL, *settings)
        return train("photo_tagging", given, tmp_path / out, resume=resume, say=say).folder

    return start


@pytest.fixture
def task(coco: Path):
    """Builds what is trained, without training it."""
    from edge_sdk.models.photo_tagging._system import PhotoTaggingSystem
    from edge_sdk.training.config import compose

    def build(*settings: str):
        system = PhotoTaggingSystem()
        return system.task(
            system.config(compose(system.conf, (f"data.root={coco}", *SMALL, *settings))), lambda _: None
        )

    return build
