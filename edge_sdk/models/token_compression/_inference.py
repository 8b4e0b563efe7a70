"""One photo through encoder, compressor and decoder.

Shapes: n tokens, m compressed tokens, d width of a token.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from edge_sdk._files import write_atomic
from edge_sdk.errors import ModelError
from edge_sdk.models._features import pixels
from edge_sdk.models._views import View
from edge_sdk.models.token_compression import metrics
from edge_sdk.models.token_compression._pictures import draw_tokens
from edge_sdk.models.token_compression.compressor import DynamicTokenCompressor, TokenCompressor
from edge_sdk.models.token_compression.plugin import TokenCompression

_BYTES = 2  # of a number: tokens are kept in 16 bits
_PIXELS = 384  # of the photo in the picture


@dataclass(frozen=True)
class Inference:
    """What became of a photo's tokens.

    Attributes:
        encoder: Its name.
        tokens: Of the encoder.
        compressed: Of the compressor.
        width: Of a token.
        complexity: The share of the tokens' variance that averages over the compressor's grid lose.
        cosine: Of the encoder's tokens with what the decoder gave back.
        relative_mse: The squared error of these, as a share of the tokens' squares.
        pooled_cosine: Of the encoder's tokens with as many averages, repeated.
        compressor: What was applied.
        checkpoint: Where it came from.
        files: What was written.
    """

    encoder: str
    tokens: int
    compressed: int
    width: int
    complexity: float
    cosine: float
    relative_mse: float
    pooled_cosine: float
    compressor: TokenCompressor
    checkpoint: Path
    files: list[Path]

    @property
    def ratio(self) -> float:
        """Tokens of the encoder for each compressed one."""
        return self.tokens / self.compressed

    def size_bytes(self, tokens: int) -> int:
        """Bytes of so many tokens, in 16 bits."""
        return tokens * self.width * _BYTES


@torch.no_grad()
def compress_photo(
    checkpoints: Sequence[Path], photo: Path, out: Path | None, tolerance: float, say: Callable[[str], None]
) -> Inference:
    """Compresses the middle of a photo.

    Args:
        checkpoints: What training wrote. Of several, the one of the smallest grid that is fine enough is taken.
        photo: A photo's file.
        out: The folder for ``NAME.npz``, the compressed tokens, and ``NAME.png``, a picture; None writes neither.
        tolerance: See `DynamicTokenCompressor`; of a single checkpoint it means nothing.
        say: Is told what is begun.

    Raises:
        ModelError: A checkpoint or the photo cannot be read, or the checkpoints do not fit each other.
        StorageError: The disk is full or not ours.
    """
    say("loading the checkpoint" if len(checkpoints) == 1 else f"loading {len(checkpoints)} checkpoints")
    models = [TokenCompression(checkpoint=str(path)) for path in checkpoints]
    _check_encoders(models)
    encoder = models[0].encoder
    view = View.middle(photo)
    tokens = encoder(torch.from_numpy(pixels(encoder, view)))
    choice = DynamicTokenCompressor([one.compressor for one in models], tolerance)
    grid = int(choice.choose(tokens))
    chosen = next(one for one in models if one.compressor.output_grid == grid)
    assert chosen.decoder is not None and chosen.checkpoint is not None
    compressed = chosen.compressor(tokens)
    rebuilt = chosen.decoder(compressed)
    found = {
        "cosine": metrics.cosine(rebuilt, tokens),
        "relative_mse": metrics.relative_mse(rebuilt, tokens),
        "pooled_cosine": metrics.cosine(metrics.pooled(tokens, encoder.grid, grid), tokens),
        "complexity": choice.left(tokens)[choice.grids.index(grid)],
    }
    figures = {name: float(value) for name, value in found.items()}
    files: list[Path] = []
    if out is not None:
        say(f"writing to {out}")
        buffer = io.BytesIO()
        np.savez(buffer, compressed=compressed[0].numpy(), grid=np.int64(grid))
        files = [out / f"{photo.stem}.npz", out / f"{photo.stem}.png"]
        write_atomic(files[0], buffer.getvalue())
        title = f"{photo.name}: cosine {figures['cosine']:.3f}, of averages {figures['pooled_cosine']:.3f}"
        draw_tokens(files[1], np.asarray(view.read(_PIXELS))[None], tokens, compressed, rebuilt, title)
    return Inference(
        encoder=encoder.name,
        tokens=tokens.shape[1],
        compressed=compressed.shape[1],
        width=tokens.shape[2],
        compressor=chosen.compressor,
        checkpoint=chosen.checkpoint,
        files=files,
        **figures,
    )


def _check_encoders(models: Sequence[TokenCompression]) -> None:
    names = {one.encoder_told for one in models}
    if len(names) > 1:
        raise ModelError(
            f"the checkpoints were trained on tokens of different encoders ({'; '.join(sorted(names))}): give those "
            "of one."
        )
