"""Soft convex quantization: an image autoencoder whose latents are mixtures of codes, in three parts.

``encoder`` makes latents of an image, ``quantizer`` replaces them by mixtures of codes, and ``decoder``
makes an image of those. Without a checkpoint the weights are random: good for measuring size, speed and
numerics, while the images mean nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import ModelError
from edge_sdk.models import _images
from edge_sdk.models._settings import checkpoint, choice, integer
from edge_sdk.models.base import Fact, Model, Part, Purpose, Sample, only_setting

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from edge_sdk.models.scq.autoencoder import SCQAutoencoder

_log = logging.getLogger(__name__)

_LIMITS = {"latent_dim": (1, 4096), "num_codes": (2, 65_536), "hidden": (4, 4096), "stride": (2, 32)}
_CHOICES = {"quantizer": ("scq", "vq", "none"), "anchor": ("vq", "none")}
_TASKS = ("food_ar", "nav_ar")
_PATCHES = {"calibration": 64, "evaluation": 64, "reference": 4}
# The solver's step sizes to choose from, and how many latents decide.
_STEPS = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
_LATENTS = 2048
_BATCH = 16

_KEEPS_FLOAT = {
    "scq": "INT8 rounding in every iteration would exceed the distance from the optimum that is stated",
    "vq": "INT8 rounding would change which code is the nearest",
}


class Scq(Model):
    """Autoencoder with soft convex quantization, or for comparison with vector quantization or none.

    Args:
        **settings: ``checkpoint`` (path to a state dict, whose tensors then decide the sizes),
            ``input_size`` in pixels (64), ``latent_dim`` (128), ``num_codes`` (256), ``scq_lambda`` (1e-3),
            ``quantizer`` (scq, vq, none), ``anchor`` (vq, none), ``hidden`` channels (128), ``stride`` in
            pixels (8), ``iterations`` of the deployed solver (60), ``seed`` of the random weights where there
            is no checkpoint (0), ``data`` (``embedded`` or a folder of photos) and ``task`` (food_ar, nav_ar:
            which of the embedded photos) to calibrate and to judge with: those of training, or without a
            checkpoint ``embedded`` and ``food_ar``.
    """

    name = "scq"
    settings = {
        "checkpoint": "",
        "input_size": "64",
        "latent_dim": "128",
        "num_codes": "256",
        "scq_lambda": "1e-3",
        "quantizer": "scq",
        "anchor": "vq",
        "hidden": "128",
        "stride": "8",
        "iterations": "60",
        "seed": "0",
        "data": "",
        "task": "",
    }

    def __init__(self, /, **settings: str) -> None:
        only_setting(self.name, settings, tuple(self.settings))
        values = {**self.settings, **settings}
        self.network_settings: dict[str, Any] = {
            **{key: integer(self.name, key, values[key], *limits) for key, limits in _LIMITS.items()},
            **{key: choice(self.name, key, values[key], known) for key, known in _CHOICES.items()},
            "scq_lambda": _positive(self.name, "scq_lambda", values["scq_lambda"]),
        }
        self.given = frozenset(settings)
        self.input_size = integer(self.name, "input_size", values["input_size"], 2, 4096)
        self.iterations = integer(self.name, "iterations", values["iterations"], 1, 10_000)
        self.seed = integer(self.name, "seed", values["seed"], 0, 2**63 - 1)
        if values["task"]:
            choice(self.name, "task", values["task"], _TASKS)
        self._photos = {key: values[key] for key in ("data", "task")}
        self.checkpoint = checkpoint(self.name, values["checkpoint"])

    @property
    def data(self) -> str:
        """``embedded`` or a folder of photos."""
        return self._photos["data"] or self._trained_on.get("data", "embedded")

    @property
    def task(self) -> str:
        """Which of the embedded photos."""
        return self._photos["task"] or self._trained_on.get("task", "food_ar")

    def fingerprint(self) -> Mapping[str, str]:
        """The settings, and hashes of the checkpoint, the photos and this code."""
        from edge_sdk._files import sha256_file
        from edge_sdk.models._fingerprint import source_hash
        from edge_sdk.models.scq._data import identity

        here = Path(__file__).parent
        asked = {key: str(value) for key, value in self.network_settings.items()}
        return {
            **asked,
            "given": " ".join(sorted(self.given & asked.keys())),
            "input_size": str(self.input_size),
            "iterations": str(self.iterations),
            "weights": sha256_file(self.checkpoint) if self.checkpoint else f"random, seed {self.seed}",
            "photos": " ".join(identity(root, self.task) for root in dict.fromkeys([self.data, "embedded"])),
            "source": source_hash(here) + source_hash(here / "solvers"),
        }

    def parts(self) -> list[Part]:
        """``encoder``, ``quantizer`` unless there is none, and ``decoder``, each for one image.

        With s the stride and n = ``input_size``: ``image`` float32 ``[1, 3, n, n]`` from 0 to 1, ``z`` and
        ``z_q`` float32 ``[1, latent_dim, n / s, n / s]``.

        Raises:
            ModelError: The checkpoint cannot be read or does not fit, or the stride does not divide ``input_size``.
            MissingDependencyError: The photos that the quantizer's step size is chosen with are not installed.
        """
        import torch

        size = self.input_size
        image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        z, z_q = self._through(image)
        parts = [Part("encoder", self._network.encoder, (image,), input_names=("image",), output_names=("z",))]
        if self._quantizer is not None:
            reason = _KEEPS_FLOAT[self._kind]
            parts.append(Part("quantizer", self._quantizer, (z,), ("z",), ("z_q",), keeps_float=reason))
        parts.append(Part("decoder", self._decoder, (z_q,), input_names=("z_q",), output_names=("image",)))
        return parts

    def facts(self) -> Mapping[str, Fact]:
        """The quantizer's sizes, and how far what its deployed form gives is from the optimum on unseen photos."""
        from edge_sdk.models.scq.layer import SCQLayer
        from edge_sdk.models.scq.nearest import VQLayer

        facts: dict[str, Fact] = {"quantizer": self._kind}
        layer = self._network.quantizer
        if isinstance(layer, SCQLayer | VQLayer):
            latents = self._latents("val")
            if isinstance(layer, SCQLayer):
                found = layer.distance(latents, self.iterations, self._step)
                facts |= {"penalty": layer.scq_lambda, "anchor": layer.anchor}
                facts |= {"solver_iterations": self.iterations, "solver_step": self._step}
            else:
                found = layer.distance(latents)
            facts |= {"num_codes": len(layer.codebook.codes), "z_q_error_latents": len(latents)}
            facts |= {f"z_q_error_{name}": value for name, value in found.items()}
        return facts

    def samples(self, purpose: Purpose) -> list[Sample]:
        """Patches of photos, with what the network makes of them as the inputs of the later parts.

        Those that calibrate come from the photos of ``data`` to train on, those that judge from its other
        ones. Embedded photos are the reference in all cases: they may travel in a bundle.

        Raises:
            EdgeSdkError: There are no photos, or they cannot be read.
        """
        return [self._sample(image[None]) for image in self._images(purpose)]

    def score(self, outputs: Sequence[Sample], fp32: Sequence[Sample]) -> dict[str, float] | None:
        """PSNR in dB of the reconstructions, how far it is below FP32's, and SSIM where torchmetrics is installed.

        Each part was run on FP32 inputs; the errors of all of them are carried through the FP32 network to
        the image and added, as they add up in a chain up to products of errors.
        """
        import torch

        from edge_sdk.models.scq.statistics import psnr, ssim

        images = self._images("evaluation")
        if len(outputs) != len(images):
            raise ModelError(
                f"model '{self.name}' is judged on {len(images)} patches, and {len(outputs)} outputs came."
            )
        with torch.no_grad():
            exact = torch.cat([_tensor(one, "decoder") for one in fp32])
            found = torch.cat([self._chained(*pair) for pair in zip(outputs, fp32, strict=True)])
            best, reached = float(psnr(exact, images).mean()), float(psnr(found, images).mean())
            scores = {"psnr": reached}
            if find_spec("torchmetrics") is not None and self.input_size >= 16:
                scores["ssim"] = float(ssim(found, images))
        return {**scores, "psnr_fp32": best, "psnr_drop": best - reached}

    def preprocess(self, path: Path) -> Sample:
        """The middle of a photo as ``image``, with what the network makes of it for the later parts."""
        import numpy as np
        import torch

        square = _images.center_square(_images.read_photo(path), 1.0, self.input_size)
        return self._sample(_as_images(torch.from_numpy(np.array(square))[None]))

    @cached_property
    def _trained_on(self) -> Mapping[str, str]:
        """What the checkpoint says of the photos that it was trained on."""
        from edge_sdk.models._checkpoint import load_plain

        content = load_plain(self.checkpoint) if self.checkpoint else {}
        told = content.get("trained_on") if isinstance(content, Mapping) else None
        return told if isinstance(told, Mapping) else {}

    @cached_property
    def _network(self) -> SCQAutoencoder:
        """The network in evaluation mode, with the checkpoint's weights or random ones."""
        from edge_sdk.models._checkpoint import fill, read_state_dict
        from edge_sdk.models.scq.autoencoder import SCQAutoencoder, randomly_initialised, sizes

        settings = self.network_settings
        if self.checkpoint is None:
            _log.warning("scq has random weights: its images mean nothing. Give it --set checkpoint=PATH.")
            network = randomly_initialised(self.seed, **settings)
        else:
            state = read_state_dict(self.checkpoint)
            found = sizes(state)
            for key in self.given & settings.keys() & found.keys():
                if settings[key] != found[key]:
                    raise ModelError(
                        f"model '{self.name}': {key} is {settings[key]}, and the checkpoint {self.checkpoint} has "
                        f"{found[key]}. Leave {key} out."
                    )
            network = SCQAutoencoder(**{**settings, **found})
            hint = "Give one that 'edge-sdk train scq' wrote, such as RUN/best.pt."
            fill(network, state, f"checkpoint {self.checkpoint}", hint)
        if self.input_size % network.stride:
            raise ModelError(
                f"model '{self.name}': input_size is {self.input_size}, and the network's stride is {network.stride}: "
                f"give a multiple, such as {max(1, self.input_size // network.stride) * network.stride}."
            )
        return network.eval().requires_grad_(False)

    @property
    def _kind(self) -> str:
        from edge_sdk.models.scq.layer import SCQLayer
        from edge_sdk.models.scq.nearest import VQLayer

        names = {SCQLayer: "scq", VQLayer: "vq"}
        return names.get(type(self._network.quantizer), "none")

    @cached_property
    def _step(self) -> float:
        """The solver's step size that is best on latents of photos to train on."""
        from edge_sdk.models.scq.layer import SCQLayer

        layer = self._network.quantizer
        assert isinstance(layer, SCQLayer)
        return layer.best_step(self._latents("train"), self.iterations, _STEPS)

    @cached_property
    def _quantizer(self) -> nn.Module | None:
        from edge_sdk.models.scq.layer import SCQLayer
        from edge_sdk.models.scq.nearest import VQLayer

        layer = self._network.quantizer
        if isinstance(layer, SCQLayer):
            return layer.deployed(self.iterations, self._step).eval()
        return layer.deployed().eval() if isinstance(layer, VQLayer) else None

    @cached_property
    def _decoder(self) -> nn.Module:
        """The decoder, which in a bundle cuts values off to those of an image."""
        from torch import nn

        return nn.Sequential(self._network.decoder, nn.Hardtanh(0.0, 1.0)).eval()

    @cached_property
    def _read(self) -> dict[str, Tensor]:
        """Images by purpose; kept, for a budget asks for them more than once."""
        return {}

    def _images(self, purpose: Purpose) -> Tensor:
        """Patches for one purpose, float32 ``[n, 3, size, size]`` from 0 to 1."""
        if purpose not in self._read:
            root = "embedded" if purpose == "reference" else self.data
            split = "train" if purpose == "calibration" else "val"
            self._read[purpose] = self._cut(root, split, _PATCHES[purpose])
        return self._read[purpose]

    def _cut(self, root: str, split: Any, count: int) -> Tensor:
        import torch

        from edge_sdk.models.scq._data import patches

        return _as_images(torch.from_numpy(patches(root, self.task, split, self.input_size, count, seed=0)))

    def _latents(self, split: str) -> Tensor:
        """At most `_LATENTS` latents of photos, evenly spread, ``[n, d]``."""
        import torch

        images = self._images("calibration" if split == "train" else "evaluation")
        with torch.no_grad():
            z = torch.cat([self._network.encoder(batch) for batch in images.split(_BATCH)])
        rows = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        return rows[:: math.ceil(len(rows) / _LATENTS)]

    def _through(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The latents of an image, and the quantized ones."""
        import torch

        with torch.no_grad():
            z = self._network.encoder(image)
            return z, z if self._quantizer is None else self._quantizer(z).contiguous()

    def _sample(self, image: Tensor) -> Sample:
        z, z_q = self._through(image)
        middle = {} if self._quantizer is None else {"quantizer": {"z": z.numpy()}}
        return {"encoder": {"image": image.numpy()}, **middle, "decoder": {"z_q": z_q.numpy()}}

    def _chained(self, found: Sample, exact: Sample) -> Tensor:
        """The image that parts give one after the other, but for products of their errors."""
        z_q = _tensor(found, "encoder")
        if self._quantizer is not None:
            z_q = self._quantizer(z_q) + _tensor(found, "quantizer") - _tensor(exact, "quantizer")
        return self._decoder(z_q) + _tensor(found, "decoder") - _tensor(exact, "decoder")


def _tensor(outputs: Sample, part: str) -> Tensor:
    import torch

    array: np.ndarray = next(iter(outputs[part].values()))
    return torch.from_numpy(array)


def _as_images(pixels: Tensor) -> Tensor:
    """uint8 ``[n, h, w, 3]`` as float32 ``[n, 3, h, w]`` from 0 to 1."""
    return pixels.permute(0, 3, 1, 2).contiguous().float() / 255


def _positive(model: str, key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ModelError(f"model '{model}': {key} is '{text}'; expected a finite number above 0.")
    return value
