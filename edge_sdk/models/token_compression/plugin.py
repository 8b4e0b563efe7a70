"""Vision token compression: an image encoder and the compressor of its tokens, as two parts or as one.

Without a checkpoint the compressor starts as average pooling beside random layers that add nothing:
good for measuring size and speed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import ModelError
from edge_sdk.models import _images
from edge_sdk.models._settings import checkpoint, choice, integer
from edge_sdk.models.base import Fact, Model, Part, Purpose, Sample, only_setting

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from edge_sdk.models.token_compression.compressor import TokenCompressor
    from edge_sdk.models.token_compression.decoders import AttentionDecoder, ConvDecoder
    from edge_sdk.models.token_compression.encoders import TokenEncoder
    from edge_sdk.training.config import AnyConfig

_log = logging.getLogger(__name__)

_SIZES = {"output_grid": (1, 256), "num_layers": (1, 16), "hidden_dim": (1, 8192)}
_REFERENCE = 4
_VIEWS = 2  # squares of each photo


class TokenCompression(Model):
    """The parts ``encoder`` and ``compressor``, or with ``whole=true`` both as one.

    Args:
        **settings: ``checkpoint`` that training wrote, which decides the encoder and all sizes; without it
            ``encoder`` (``efficientnet_lite0``, or a CLIP by name or folder), ``output_grid`` (6),
            ``num_layers`` (3), ``hidden_dim`` (256) and ``seed`` are taken. ``whole`` (false). ``data`` to
            calibrate and to judge with: ``embedded``, or a folder with ``train/CLASS/`` and ``val/CLASS/``;
            ``eval_images`` (32) and ``calibration_images`` (32), at most.
    """

    name = "token_compression"
    settings = {
        "checkpoint": "",
        "encoder": "efficientnet_lite0",
        "output_grid": "6",
        "num_layers": "3",
        "hidden_dim": "256",
        "seed": "0",
        "whole": "false",
        "data": "embedded",
        "eval_images": "32",
        "calibration_images": "32",
    }

    def __init__(self, /, **settings: str) -> None:
        only_setting(self.name, settings, tuple(self.settings))
        values = {**self.settings, **settings}
        self.checkpoint = checkpoint(self.name, values["checkpoint"])
        if self.checkpoint is not None and (given := sorted({"encoder", *_SIZES} & settings.keys())):
            raise ModelError(f"model '{self.name}': leave {', '.join(given)} out: the checkpoint decides.")
        self.sizes: dict[str, Any] = {
            key: integer(self.name, key, values[key], *limits) for key, limits in _SIZES.items()
        }
        self.encoder_name, self.data = values["encoder"], values["data"]
        self.seed = integer(self.name, "seed", values["seed"], 0, 2**32 - 1)
        self.is_whole = choice(self.name, "whole", values["whole"], ("true", "false")) == "true"
        self.counts = {
            purpose: integer(self.name, f"{key}_images", values[f"{key}_images"], 1, 10_000_000)
            for purpose, key in (("evaluation", "eval"), ("calibration", "calibration"))
        }
        for key in ("encoder", "data"):
            if not values[key]:
                raise ModelError(f"model '{self.name}': {key} is empty.")

    def fingerprint(self) -> Mapping[str, str] | None:
        """The settings, and hashes of the checkpoint, the photos and this code; None for a CLIP of another place."""
        from edge_sdk._files import sha256_file
        from edge_sdk.models._fingerprint import source_hash
        from edge_sdk.models._views import identity
        from edge_sdk.models.token_compression.encoders import EFFICIENTNET

        if self.checkpoint is None and self.encoder_name != EFFICIENTNET:
            return None
        chosen = [view for purpose in ("calibration", "evaluation") for view in self._views(purpose)]
        return {
            **{key: str(value) for key, value in self.sizes.items()},
            "weights": sha256_file(self.checkpoint) if self.checkpoint else f"random, seed {self.seed}",
            "whole": str(self.is_whole),
            "photos": identity(chosen),
            "source": source_hash(Path(__file__).parent),
        }

    def parts(self) -> list[Part]:
        """``encoder``: ``image`` float32 ``[1, 3, s, s]``, normalised, to ``tokens`` ``[1, n, d]``.

        ``compressor``: these to ``compressed`` ``[1, m, d]``. With ``whole=true`` ``forward`` from ``image`` to
        ``compressed``.

        Raises:
            EdgeSdkError: Weights are missing or do not fit.
        """
        import torch
        from torch import nn

        size = self.encoder.image_size
        image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
        if self.is_whole:
            both = nn.Sequential(self.encoder, self.compressor).eval()
            return [Part("forward", both, (image,), ("image",), ("compressed",))]
        with torch.no_grad():
            tokens = self.encoder(image).contiguous()
        return [
            Part("encoder", self.encoder, (image,), ("image",), ("tokens",)),
            Part("compressor", self.compressor, (tokens,), ("tokens",), ("compressed",)),
        ]

    def facts(self) -> Mapping[str, Fact]:
        """The encoder, and how many tokens become how many."""
        before, after = self.encoder.grid**2, self.compressor.output_grid**2
        return {
            "encoder": self.encoder.name,
            "tokens": before,
            "compressed_tokens": after,
            "token_width": self.encoder.dim,
            "compression": before / after,
        }

    def samples(self, purpose: Purpose) -> list[Sample]:
        """Squares of photos; those that travel in a bundle and those that judge were never trained on.

        Raises:
            EdgeSdkError: There are no photos, or they cannot be read.
        """
        from edge_sdk.models._features import pixels

        wanted = "evaluation" if purpose == "reference" else purpose
        chosen = self._views(wanted, embedded=purpose == "reference")
        return [
            self._sample(pixels(self.encoder, view))
            for view in chosen[: _REFERENCE if purpose == "reference" else None]
        ]

    def score(self, outputs: Sequence[Sample], fp32: Sequence[Sample]) -> dict[str, float] | None:
        """The mean cosine similarity of compressed tokens with FP32's, through all parts.

        With a checkpoint, whose decoder gives the encoder's tokens back, also that of what it gives with FP32's
        tokens, beside what FP32's compressed ones give: ``reconstruction`` and ``reconstruction_fp32``.
        """
        import torch
        import torch.nn.functional as F

        exact = torch.cat([_tensor(one, "forward" if self.is_whole else "compressor") for one in fp32])
        with torch.no_grad():
            found = torch.cat([self._chained(*pair) for pair in zip(outputs, fp32, strict=True)])
            scores = {"cosine_with_fp32": float(F.cosine_similarity(found, exact, dim=2).mean())}
            if self.decoder is None or self.is_whole:
                return scores
            tokens = torch.cat([_tensor(one, "encoder") for one in fp32])
            for name, compressed in (("", found), ("_fp32", exact)):
                rebuilt = self.decoder(compressed)
                scores[f"reconstruction{name}"] = float(F.cosine_similarity(rebuilt, tokens, dim=2).mean())
        return scores

    def preprocess(self, path: Path) -> Sample:
        """The middle of a photo, and FP32's tokens of it."""
        from edge_sdk.models._features import pixels
        from edge_sdk.models._views import View

        return self._sample(pixels(self.encoder, View.middle(path)))

    @cached_property
    def encoder(self) -> TokenEncoder:
        """The encoder, in evaluation mode.

        Raises:
            EdgeSdkError: Its weights are missing, or others than those that the checkpoint was trained with.
        """
        from edge_sdk.models._features import weights_identity
        from edge_sdk.models.token_compression.encoders import load_encoder

        if self._saved is None:
            return load_encoder(self.encoder_name)
        told = self._saved["encoder"]
        encoder = load_encoder(told["model_name"], layer=told["layer"])
        if weights_identity(encoder) != told["weights"]:
            raise ModelError(
                f"checkpoint {self.checkpoint} was trained on tokens of {told['name']}, whose weights are others than "
                "those on this disk: train it again, or bring those weights."
            )
        return encoder

    @property
    def encoder_told(self) -> str:
        """Name and weights of the encoder that the checkpoint names."""
        told = self._saved["encoder"] if self._saved is not None else {"name": self.encoder_name, "weights": ""}
        return f"{told['name']} {str(told['weights'])[:12]}".strip()

    @cached_property
    def compressor(self) -> TokenCompressor:
        """The compressor, in evaluation mode.

        Raises:
            ModelError: The checkpoint does not fit.
        """
        import torch

        from edge_sdk.models._checkpoint import fill
        from edge_sdk.models.token_compression._config import Compressor
        from edge_sdk.models.token_compression._networks import compressor_of
        from edge_sdk.models.token_compression.compressor import TokenCompressor

        encoder = self.encoder
        if self._saved is None:
            _log.warning("token_compression is not trained: it pools averages. Give it --set checkpoint=PATH.")
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                found = TokenCompressor(encoder.dim, encoder.grid, **self.sizes)
            return found.eval().requires_grad_(False)
        chosen = self._chosen("compressor", Compressor)
        found = compressor_of(chosen, encoder.dim, encoder.grid)
        fill(found, self._saved["compressor"], f"the compressor of checkpoint {self.checkpoint}")
        return found.eval().requires_grad_(False)

    @cached_property
    def decoder(self) -> ConvDecoder | AttentionDecoder | None:
        """What gives the encoder's tokens back, in evaluation mode; None without a checkpoint.

        Raises:
            ModelError: The checkpoint does not fit.
        """
        from edge_sdk.models._checkpoint import fill
        from edge_sdk.models.token_compression._config import Autoencoder
        from edge_sdk.models.token_compression._networks import decoder_of

        if self._saved is None:
            return None
        chosen = self._chosen("autoencoder", Autoencoder)
        found = decoder_of(chosen, self.encoder.dim, self.encoder.grid, self.compressor.output_grid)
        fill(found, self._saved["decoder"], f"the decoder of checkpoint {self.checkpoint}")
        return found.eval().requires_grad_(False)

    def _chosen(self, name: str, kind: type[AnyConfig]) -> AnyConfig:
        """The settings of a network that the checkpoint holds."""
        from edge_sdk.training.config import checked

        assert self._saved is not None
        try:
            return checked(kind, self._saved["settings"][name])
        except (KeyError, ModelError) as error:
            raise ModelError(f"checkpoint {self.checkpoint}, settings of the {name}: {error}") from error

    @cached_property
    def _saved(self) -> Mapping[str, Any] | None:
        """What the checkpoint holds, None where there is none."""
        from edge_sdk.models._checkpoint import load_plain

        if self.checkpoint is None:
            return None
        content = load_plain(self.checkpoint)
        wanted = ("compressor", "decoder", "settings", "encoder")
        if not isinstance(content, Mapping) or not all(isinstance(content.get(key), Mapping) for key in wanted):
            raise ModelError(
                f"checkpoint {self.checkpoint} does not hold {', '.join(wanted)}; expected what "
                "'edge-sdk train token_compression' wrote."
            )
        return content

    def _views(self, purpose: str, embedded: bool = False) -> list[Any]:
        from edge_sdk.models.token_compression._data import EMBEDDED, views

        split = "train" if purpose == "calibration" else "val"
        chosen = views(EMBEDDED if embedded else self.data, split, _VIEWS, seed=0)
        return [chosen[place] for place in _images.spread(len(chosen), self.counts[purpose])]

    def _sample(self, image: Any) -> Sample:
        import torch

        if self.is_whole:
            return {"forward": {"image": image}}
        with torch.no_grad():
            tokens = self.encoder(torch.from_numpy(image)).contiguous()
        return {"encoder": {"image": image}, "compressor": {"tokens": tokens.numpy()}}

    def _chained(self, found: Sample, exact: Sample) -> Tensor:
        """The compressed tokens that parts give one after the other, but for products of their errors."""
        if self.is_whole:
            return _tensor(found, "forward")
        onwards = self.compressor(_tensor(found, "encoder"))
        return onwards + _tensor(found, "compressor") - _tensor(exact, "compressor")


def _tensor(outputs: Sample, part: str) -> torch.Tensor:
    import torch

    return torch.from_numpy(next(iter(outputs[part].values())))
