"""SVQ: an image to the discrete codes of its objects, the codes to an image, and the prior's next code.

The encoder comes in two parts. Its convolutions may be quantized; slot attention stays in FP32, since
rounding errors grow from iteration to iteration and the nearest code then is another. So does the prior.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import ModelError
from edge_sdk.models._settings import checkpoint, choice, integer
from edge_sdk.models.base import Fact, Model, Part, Purpose, Sample, only_setting

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from edge_sdk.models.svq.data import LabelledImages
    from edge_sdk.models.svq.network import SVQ

_log = logging.getLogger(__name__)

_SLOTS_KEEP_FLOAT = "slot attention repeats its rounding errors in each iteration, and the nearest code then is another"
_PRIOR_KEEPS_FLOAT = "with INT8 activations the prior needs about twice the bits for a code"
_DATA = ("shapes", "dsprites", "scenes", "folder")
_SIZES = {
    "num_slots": (1, 64),
    "num_iterations": (1, 16),
    "slot_size": (1, 1024),
    "hidden_dim": (1, 1024),
    "num_codebooks": (1, 64),
    "codebook_size": (2, 65_536),
    "code_dim": (2, 1024),
}
_CHOICES = {"decoder": ("cnn", "transformer"), "quantize": ("inside", "after")}
_REFERENCE = 4
_BATCH = 64


class Svq(Model):
    """Semantic vector quantization: the parts ``features``, ``slots``, ``decoder`` and ``prior_step``.

    Args:
        **settings: ``checkpoint`` that training wrote, which decides all sizes; without it the weights
            are random, and these are taken: ``input_size`` in pixels (64), ``num_slots`` (5),
            ``num_iterations`` (3), ``slot_size`` (64), ``hidden_dim`` (64), ``num_codebooks`` (4),
            ``codebook_size`` (64), ``code_dim`` (16), ``decoder`` (cnn, transformer), ``quantize``
            (inside, after), ``prior`` (true, false) and ``seed``. ``data`` to calibrate and to judge
            with: ``shapes``, ``dsprites``, ``scenes`` or ``folder`` with ``root``, by default that of
            training; ``eval_images`` of its val split (200), ``calibration_images`` of its train split (64).
    """

    name = "svq"
    settings = {
        "checkpoint": "",
        "data": "",
        "root": "",
        "eval_images": "200",
        "calibration_images": "64",
        "input_size": "64",
        "num_slots": "5",
        "num_iterations": "3",
        "slot_size": "64",
        "hidden_dim": "64",
        "num_codebooks": "4",
        "codebook_size": "64",
        "code_dim": "16",
        "decoder": "cnn",
        "quantize": "inside",
        "prior": "true",
        "seed": "0",
    }

    def __init__(self, /, **settings: str) -> None:
        only_setting(self.name, settings, tuple(self.settings))
        values = {**self.settings, **settings}
        self.checkpoint = checkpoint(self.name, values["checkpoint"])
        self.sizes: dict[str, Any] = {"image_size": integer(self.name, "input_size", values["input_size"], 16, 512)}
        for key, (smallest, largest) in _SIZES.items():
            self.sizes[key] = integer(self.name, key, values[key], smallest, largest)
        for key, known in _CHOICES.items():
            self.sizes[key] = choice(self.name, key, values[key], known)
        self.has_prior = choice(self.name, "prior", values["prior"], ("true", "false")) == "true"
        self.seed = integer(self.name, "seed", values["seed"], 0, 2**32 - 1)
        self.data = choice(self.name, "data", values["data"], _DATA) if values["data"] else ""
        self.root = values["root"]
        if (self.data == "folder") != bool(self.root) and (self.data or self.checkpoint is None):
            raise ModelError(
                f"model '{self.name}': data is '{self.data}' and root '{self.root}'; give --set data=folder --set "
                "root=PATH together, or neither."
            )
        self.eval_images = integer(self.name, "eval_images", values["eval_images"], 1, 10_000_000)
        self.calibration_images = integer(self.name, "calibration_images", values["calibration_images"], 1, 10_000_000)
        if self.checkpoint is not None and "prior" in settings:
            raise ModelError(f"model '{self.name}': leave prior out: the checkpoint has one or has none.")
        self._given = {"image_size" if key == "input_size" else key for key in settings} & set(self.sizes)

    def fingerprint(self) -> Mapping[str, str]:
        """The settings that shape the network, and hashes of the checkpoint, the images and this code."""
        from edge_sdk._files import sha256_file
        from edge_sdk.models._fingerprint import source_hash

        here = Path(__file__).parent
        return {
            **{key: str(value) for key, value in self.sizes.items()},
            "prior": str(self.has_prior),
            "weights": sha256_file(self.checkpoint) if self.checkpoint else f"random, seed {self.seed}",
            "data": " ".join(map(str, self._data.values())),
            "images": f"{self.calibration_images} {self.eval_images} {self._files_identity()}",
            "source": f"{source_hash(here)} {source_hash(here / 'data')}",
        }

    def parts(self) -> list[Part]:
        """Encoder in two parts, decoder, and a step of the prior where there is one.

        ``features``: ``image`` float32 ``[1, 3, s, s]`` to ``features`` ``[1, c, s / 4, s / 4]``. ``slots``: these
        to ``codes`` int64 ``[1, slots, codebooks]``. ``decoder``: codes to ``image`` and ``masks``
        ``[1, slots, 1, s, s]``. ``prior_step``: ``token`` and ``position`` int64 ``[1]`` and ``cache`` to ``logits``
        and ``next_cache``.

        Raises:
            ModelError: The checkpoint cannot be read or does not fit, or its network has no codes.
        """
        import torch

        from edge_sdk.models.svq._parts import ImageToFeatures
        from edge_sdk.models.svq.network import DecoderFromCodes, PriorStep

        network, slots = self.network, self._slots
        size = network.image_size
        image = torch.rand(1, network.in_channels, size, size, generator=torch.Generator().manual_seed(0))
        convolutions = ImageToFeatures(network)
        with torch.no_grad():
            features = convolutions(image)
            codes = slots(features).contiguous()
        parts = [
            Part("features", convolutions, (image,), ("image",), ("features",)),
            Part("slots", slots, (features,), ("features",), ("codes",), keeps_float=_SLOTS_KEEP_FLOAT),
            Part("decoder", DecoderFromCodes(network), (codes,), ("codes",), ("image", "masks")),
        ]
        if network.prior is not None:
            example = (codes[:, 0, 0], torch.zeros(1, dtype=torch.int64), network.prior.empty_cache(1))
            inputs, outputs = ("token", "position", "cache"), ("logits", "next_cache")
            step = PriorStep(network)
            parts.append(Part("prior_step", step, example, inputs, outputs, keeps_float=_PRIOR_KEEPS_FLOAT))
        return parts

    @cached_property
    def network(self) -> SVQ:
        """The network in evaluation mode, with the checkpoint's weights or random ones.

        Raises:
            ModelError: The checkpoint cannot be read or does not fit.
        """
        import torch

        from edge_sdk.models.svq.network import SVQ

        if self.checkpoint is None:
            _log.warning("svq has random weights: its codes mean nothing. Give it --set checkpoint=PATH.")
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                network = SVQ(**self.sizes)
                if self.has_prior:
                    network.init_prior(embed_dim=128)
            return network.eval()
        network = SVQ.from_state(self._saved, f"checkpoint {self.checkpoint}")
        for key in sorted(self._given):
            if network.settings[key] != self.sizes[key]:
                shown = "input_size" if key == "image_size" else key
                raise ModelError(
                    f"model '{self.name}': {shown} is {self.sizes[key]}, and checkpoint {self.checkpoint} has "
                    f"{network.settings[key]}. Leave {shown} out: the checkpoint decides."
                )
        return network

    def samples(self, purpose: Purpose) -> list[Sample]:
        """Images of the train split to calibrate with, of the val split otherwise, and what FP32 makes of them.

        Raises:
            EdgeSdkError: The data is missing or does not fit.
        """
        calibration, evaluation = self._splits
        if purpose == "calibration":
            return self._samples(calibration)
        return self._evaluation if purpose == "evaluation" else self._samples(evaluation, _REFERENCE)

    def score(self, outputs: Sequence[Sample], fp32: Sequence[Sample]) -> dict[str, float] | None:
        """How many slots keep all of their codes, and what the decoder's images and masks are worth.

        ``same_codes`` counts a slot where the ``slots`` part gives FP32's codes, and where FP32's slot attention gives
        them for what the ``features`` part found. ``fg_ari`` (of images with two or more objects), ``fg_ari_all``
        and ``psnr`` judge the decoder by the truth, ``bits_per_code`` the prior by the code that comes next.
        Images without a truth of the kind leave its figure out.
        """
        import numpy as np
        import torch

        from edge_sdk.models.svq.metrics import fg_ari

        same = []
        for found, exact in zip(outputs, fp32, strict=True):
            codes = exact["slots"]["codes"]
            with torch.no_grad():
                onwards = self._slots(torch.from_numpy(found["features"]["features"])).numpy()
            same.append(((found["slots"]["codes"] == codes) & (onwards == codes)).all(-1))
        truth = self._splits[1]
        masks = np.concatenate([one["decoder"]["masks"] for one in outputs])[:, :, 0]
        labels = torch.from_numpy(truth.labels).long()
        index = fg_ari(labels, torch.from_numpy(masks.argmax(1)))
        judged = {"fg_ari": index[labels.flatten(1).amax(1) > 1], "fg_ari_all": index}
        psnr, psnr_fp32 = (self._psnr(some, truth) for some in (outputs, fp32))
        found = {
            "same_codes": float(np.mean(same)),
            **{name: float(some.nanmean()) for name, some in judged.items() if not some.isnan().all()},
            "psnr": psnr,
            "psnr_fp32": psnr_fp32,
            "psnr_drop": psnr_fp32 - psnr,
        }
        if self.network.prior is None:
            return found
        return found | {"bits_per_code": self._bits(outputs), "bits_per_code_fp32": self._bits(fp32)}

    def preprocess(self, path: Path) -> Sample:
        """The middle of a photo, and what FP32 makes of it."""
        import numpy as np

        from edge_sdk.models import _images

        size = self.network.image_size
        image = np.asarray(_images.center_square(_images.read_photo(path), 1.0, size))
        return self._samples_of(_scaled(image[None]))[0]

    def facts(self) -> Mapping[str, Fact]:
        """Sizes, and the bits that the codes of an image take when each is stored as it is."""
        network = self.network
        bits = network.num_slots * network.num_codebooks * math.log2(network.codebook_size)
        return {
            "slots": network.num_slots,
            "iterations": network.encoder.num_iterations,
            "codebooks": network.num_codebooks,
            "codes_per_codebook": network.codebook_size,
            "bits_per_image": bits,
        }

    @cached_property
    def _saved(self) -> Mapping[str, Any]:
        """What the checkpoint holds."""
        from edge_sdk.models._checkpoint import load_plain

        assert self.checkpoint is not None
        content = load_plain(self.checkpoint)
        if not isinstance(content, Mapping):
            raise ModelError(
                f"checkpoint {self.checkpoint} holds a {type(content).__name__}; "
                "expected what edge-sdk train svq wrote."
            )
        return content

    @cached_property
    def _slots(self) -> torch.nn.Module:
        """From features to codes."""
        from edge_sdk.models.svq._parts import FeaturesToCodes

        return FeaturesToCodes(self.network).eval()

    @cached_property
    def _splits(self) -> tuple[LabelledImages, LabelledImages]:
        """Images to calibrate with, and images to judge with."""
        from edge_sdk.models.svq.data import get_data_sets

        size = self.network.image_size
        return get_data_sets(
            num_samples=self.calibration_images, val_samples=self.eval_images, image_size=size, **self._data
        )

    @cached_property
    def _data(self) -> dict[str, Any]:
        """Which images, as `get_data_sets` takes it: those of training unless others are named."""
        chosen: dict[str, Any] = {"dataset_name": "shapes", "max_shapes": 4, "seed": self.seed, "root": ""}
        trained = self._saved.get("data") if self.checkpoint else None
        if isinstance(trained, Mapping):
            chosen |= {key: trained[key] for key in chosen if key in trained}
        if self.data:
            chosen |= {"dataset_name": self.data, "root": self.root}
        elif self.root:
            chosen["root"] = self.root
        return chosen

    def _files_identity(self) -> str:
        """A hash over the files that images are read from, empty where they are drawn."""
        import hashlib

        from edge_sdk.models import _fashion, _photos

        if self._data["dataset_name"] == "scenes":
            photos = [*_fashion.background_photos("calibration"), *_fashion.background_photos("evaluation")]
            return _photos.digest([*photos, *_fashion.files()])
        if self._data["dataset_name"] != "folder":
            return ""
        total = hashlib.sha256()
        for path in sorted(Path(self._data["root"]).expanduser().rglob("*")):
            facts = path.stat()
            total.update(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
        return total.hexdigest()

    @cached_property
    def _evaluation(self) -> list[Sample]:
        """Kept, for a budget asks for them more than once."""
        return self._samples(self._splits[1])

    def _samples(self, images: LabelledImages, most: int | None = None) -> list[Sample]:
        pixels = images.images[:most]
        begins = range(0, len(pixels), _BATCH)
        return [one for begin in begins for one in self._samples_of(_scaled(pixels[begin : begin + _BATCH]))]

    def _samples_of(self, images: Tensor) -> list[Sample]:
        """Inputs of every part for images ``[b, 3, s, s]``."""
        import torch

        with torch.no_grad():
            features = self.network.encoder.convolve(images)
            codes = self._slots(features).contiguous()
            priors = self._prior_inputs(codes)
        samples = []
        for place in range(len(images)):
            one = slice(place, place + 1)
            sample = {
                "features": {"image": images[one].numpy()},
                "slots": {"features": features[one].numpy()},
                "decoder": {"codes": codes[one].numpy()},
            }
            samples.append({**sample, "prior_step": priors[place]} if priors else sample)
        return samples

    def _prior_inputs(self, codes: Tensor) -> list[dict[str, Any]]:
        """A step of the prior for each image, at other places of its codes, with what came before."""
        import torch

        prior = self.network.prior
        if prior is None:
            return []
        flat, cache = codes.flatten(1), prior.empty_cache(len(codes))
        inputs: list[dict[str, Any]] = [{} for _ in codes]
        for position in range(prior.num_tokens):
            place, token = torch.tensor([position]), flat[:, max(position - 1, 0)]
            for image in range(position, len(codes), prior.num_tokens):
                before = cache[:, :, image : image + 1].numpy().copy()
                inputs[image] = {"token": token[image : image + 1].numpy(), "position": place.numpy(), "cache": before}
            _, cache = prior.step(token, place, cache)
        return inputs

    def _psnr(self, outputs: Sequence[Sample], truth: LabelledImages) -> float:
        import numpy as np

        images = np.concatenate([one["decoder"]["image"] for one in outputs]).clip(0, 1)
        errors = np.square(images - _scaled(truth.images).numpy()).mean((1, 2, 3))
        return float(-10 * np.log10(errors.clip(1e-10)).mean())

    def _bits(self, outputs: Sequence[Sample]) -> float:
        """The prior's mean cross-entropy of the code at the place that it was asked for."""
        import torch
        from torch.nn.functional import cross_entropy

        logits = torch.cat([torch.from_numpy(one["prior_step"]["logits"]) for one in outputs])
        codes = [one["decoder"]["codes"].ravel()[one["prior_step"]["position"][0]] for one in self._evaluation]
        return float(cross_entropy(logits.double(), torch.tensor(codes))) / math.log(2)


def _scaled(images: Any) -> Tensor:
    """Bytes ``[n, s, s, 3]`` as float32 ``[n, 3, s, s]`` from 0 to 1."""
    import torch

    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2).contiguous().float() / 255
