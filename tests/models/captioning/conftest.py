"""Captioners small enough for tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from _captioners import small_resnet

TINY = {"encoder": "resnet18", "image_size": "64", "embed_dim": "12", "attention_dim": "16", "decoder_dim": "24"}


@pytest.fixture(scope="module", autouse=True)
def small_encoder():
    """A network of some thousand weights in a ResNet's place."""
    pytest.importorskip("torch")
    from edge_sdk.models.captioning import encoders

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "_resnet", small_resnet)
        yield


@pytest.fixture(scope="module")
def tiny_captioner(small_encoder):
    """Random weights, which say the same each time."""
    from edge_sdk.models.captioning.plugin import Captioning

    return Captioning(**TINY).captioner


@pytest.fixture(scope="module")
def tiny_checkpoint(tiny_captioner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as training writes it."""
    import torch

    path = tmp_path_factory.mktemp("captioning") / "best.pt"
    torch.save({**tiny_captioner.checkpoint(), "data": "embedded", "facts": {}}, path)
    return path
