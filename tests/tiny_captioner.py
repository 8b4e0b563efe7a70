"""A captioner small enough to be compiled in a test: random weights, images of 32 pixels, a dozen words."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import pytest

WORDS = ("a", "dog", "cat", "on", "grass", "red", "cup", "of", "tea", "near", "water", "two")
SIZE = 32


@cache
def content(seed: int = 2, words: tuple[str, ...] = WORDS) -> bytes:
    """What ``edge-sdk train captioning`` would write of it."""
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'edge-sdk[onnxruntime]'")
    from edge_sdk.models.captioning.decoder import AttentionDecoder
    from edge_sdk.models.captioning.encoders import PlacesEncoder
    from edge_sdk.models.captioning.network import Captioner
    from edge_sdk.models.captioning.vocabulary import SPECIAL, Vocabulary

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = PlacesEncoder("resnet18", SIZE, seed=seed)
        vocabulary = Vocabulary([*SPECIAL, *words])
        decoder = AttentionDecoder(len(vocabulary), encoder.dim, 8, 8, 16, 0.0)
        # Weights as they are drawn say the same word without end; these say a few, other ones of other images.
        for weight, times in ((decoder.fc.weight, 8), (decoder.decode_step.weight_hh, 4), (decoder.init_h.weight, 4)):
            weight.data.mul_(times)
        decoder.embedding.weight.data.mul_(2)
    buffer = io.BytesIO()
    torch.save({**Captioner(encoder, decoder, vocabulary).checkpoint(), "data": "embedded"}, buffer)
    return buffer.getvalue()


def checkpoint(path: Path, seed: int = 2) -> Path:
    """Writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content(seed))
    return path
