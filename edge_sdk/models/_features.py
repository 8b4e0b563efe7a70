"""What a frozen image encoder gives for squares of photos, kept on disk so that it runs once.

Shapes: i squares of photos, n tokens, d width of a token.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from edge_sdk._files import storage_error, write_atomic
from edge_sdk._paths import cache_dir
from edge_sdk.errors import ModelError
from edge_sdk.models import _images
from edge_sdk.models._views import View, identity

_BATCH = 16
_EVERY_S = 15.0


class Encoder(Protocol):
    """Turns images ``[b, 3, s, s]``, normalised, into a square grid of tokens ``[b, n, d]``, row by row.

    Attributes:
        name: What it is, for messages.
        image_size: Pixels of a side of the images.
        grid: Tokens of a side, the root of n.
        dim: Width of a token.
        mean: Of each channel, for pixels from 0 to 1.
        std: Likewise.
    """

    name: str
    image_size: int
    grid: int
    dim: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: torch.Tensor, /) -> torch.Tensor:
        """The tokens of images."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Its weights; a module has them."""
        ...


def features(encoder: Encoder, weights: str, chosen: Sequence[View], say: Callable[[str], None]) -> np.ndarray:
    """The tokens of squares of photos: read from the cache, or made and kept there.

    What was broken off goes on where it was.

    Args:
        encoder: Frozen.
        weights: Its `weights_identity`, which takes a while for a large one.
        chosen: The squares.
        say: Is told how far it is.

    Returns:
        float16 ``[i, n, d]``, mapped from the disk.

    Raises:
        ModelError: A photo cannot be read, or the encoder gives something else than numbers.
        StorageError: The disk is full or not ours.
    """
    shape = (len(chosen), encoder.grid**2, encoder.dim)
    told = [weights, encoder.image_size, getattr(encoder, "layer", None), identity(chosen), shape]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    path = cache_dir() / "features" / f"{key}.npy"
    if not path.is_file():
        _make(path, shape, encoder, chosen, say)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def weights_identity(encoder: nn.Module) -> str:
    """The SHA-256 over an encoder's weights, in hexadecimal."""
    total = hashlib.sha256()
    for name, value in encoder.state_dict().items():
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def pixels(encoder: Encoder, view: View) -> np.ndarray:
    """A square as the encoder takes it: float32 ``[1, 3, s, s]``."""
    mean, std = (tuple(255 * one for one in values) for values in (encoder.mean, encoder.std))
    return _images.normalised(view.read(encoder.image_size), mean, std)


def _make(
    path: Path,
    shape: tuple[int, int, int],
    encoder: Encoder,
    chosen: Sequence[View],
    say: Callable[[str], None],
) -> None:
    part, progress = path.with_suffix(".part"), path.with_suffix(".done")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        done = int(progress.read_text()) if part.is_file() and progress.is_file() else 0
        if not done:
            np.lib.format.open_memmap(part, "w+", np.float16, shape).flush()
        tokens = np.lib.format.open_memmap(part, "r+")
        spoken = time.monotonic()
        for begin in range(done, len(chosen), _BATCH):
            images = np.concatenate([pixels(encoder, view) for view in chosen[begin : begin + _BATCH]])
            tokens[begin : begin + len(images)] = _encoded(encoder, images)
            tokens.flush()
            write_atomic(progress, str(begin + len(images)))
            if time.monotonic() - spoken > _EVERY_S:
                spoken = time.monotonic()
                say(f"encoding: {begin + len(images)} of {len(chosen)} squares")
        del tokens
        part.replace(path)
        progress.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error


@torch.no_grad()
def _encoded(encoder: Encoder, images: np.ndarray) -> np.ndarray:
    device = next(encoder.parameters()).device
    tokens = encoder(torch.from_numpy(images).to(device)).float().cpu()
    largest = torch.finfo(torch.float16).max
    if not torch.isfinite(tokens).all() or tokens.abs().max() > largest:
        raise ModelError(
            f"{encoder.name} gives tokens that are not finite or above {largest:g}: its weights are damaged."
        )
    return tokens.numpy().astype(np.float16)
