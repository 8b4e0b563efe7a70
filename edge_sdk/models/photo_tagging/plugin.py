"""Photo tagging: a ResNet with a logit for each of COCO's 80 categories, several of which may hold.

Without a checkpoint the weights are random: good for measuring size, speed and numerics, while the
tags mean nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.errors import ModelError
from edge_sdk.models import _images, _photos
from edge_sdk.models._settings import choice, fraction, integer
from edge_sdk.models.base import Model, Part, Purpose, Sample, only_setting

if TYPE_CHECKING:
    from PIL.Image import Image

    from edge_sdk.models.photo_tagging.resnet import ResNet
    from edge_sdk.schema.report import Tag

_log = logging.getLogger(__name__)

# Statistics of ImageNet's training photos, pixels from 0 to 255.
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)
# The usual crop: 224 of a short side of 256.
_SHARE = 224 / 256
_TAGS = 5

_VARIANTS = ("resnet18", "resnet34", "resnet50")


class PhotoTagging(Model):
    """Multi-label photo tagger: ResNet-18, 34 or 50.

    Args:
        **settings: ``variant`` (resnet18, resnet34, resnet50), ``num_classes`` (80: COCO's
            categories), ``checkpoint`` (path to a state dict), ``input_size`` in pixels (224),
            ``seed`` of the random weights where there is no checkpoint (0), ``threshold`` of a
            tag's probability (0.5).
    """

    name = "photo_tagging"
    settings = {
        "variant": "resnet18",
        "num_classes": "80",
        "checkpoint": "",
        "input_size": "224",
        "seed": "0",
        "threshold": "0.5",
    }

    def __init__(self, /, **settings: str) -> None:
        only_setting(self.name, settings, tuple(self.settings))
        values = {**self.settings, **settings}
        self.variant = choice(self.name, "variant", values["variant"], _VARIANTS)
        self.num_classes = integer(self.name, "num_classes", values["num_classes"], 1, 100_000)
        self.input_size = integer(self.name, "input_size", values["input_size"], 32, 2048)
        self.seed = integer(self.name, "seed", values["seed"], 0, 2**63 - 1)
        self.threshold = fraction(self.name, "threshold", values["threshold"])
        self.checkpoint = Path(values["checkpoint"]).expanduser() if values["checkpoint"] else None
        if self.checkpoint is not None and not self.checkpoint.is_file():
            raise ModelError(f"model '{self.name}': there is no checkpoint at {self.checkpoint}.")
        self.labels: Sequence[str] = _labels(self.num_classes)

    def fingerprint(self) -> Mapping[str, str]:
        """The settings that shape the network, and hashes of the checkpoint, the photos and this code."""
        from edge_sdk._files import sha256_file
        from edge_sdk.models._fingerprint import source_hash

        weights = sha256_file(self.checkpoint) if self.checkpoint else f"random, seed {self.seed}"
        return {
            "variant": str(self.variant),
            "num_classes": str(self.num_classes),
            "input_size": str(self.input_size),
            "weights": weights,
            "photos": _photos.digest([*_photos.installed("calibration"), *_photos.reference_photos()]),
            "source": source_hash(Path(__file__).parent),
        }

    def parts(self) -> list[Part]:
        """One part: ``image`` float32 ``[1, 3, input_size, input_size]`` to ``logits`` float32 ``[1, num_classes]``.

        Raises:
            ModelError: The checkpoint cannot be read or does not fit.
        """
        import torch

        size = self.input_size
        example = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        return [Part("forward", self.network(), (example,), input_names=("image",), output_names=("logits",))]

    def network(self) -> ResNet:
        """The network in evaluation mode, with the checkpoint's weights or random ones.

        Raises:
            ModelError: The checkpoint cannot be read or does not fit.
        """
        from edge_sdk.models._checkpoint import fill, read_state_dict
        from edge_sdk.models.photo_tagging._advice import advice
        from edge_sdk.models.photo_tagging.resnet import ResNet, randomly_initialised

        assert self.variant is not None
        if self.checkpoint is None:
            _log.warning("photo_tagging has random weights: its tags mean nothing. Give it --set checkpoint=PATH.")
            return randomly_initialised(self.variant, self.num_classes, self.seed)
        state = read_state_dict(self.checkpoint)
        network = ResNet(self.variant, self.num_classes)
        fill(network, state, f"checkpoint {self.checkpoint}", advice(state, self.variant, self.num_classes))
        return network.eval()

    def samples(self, purpose: Purpose) -> list[Sample]:
        """Packaged photos to calibrate with and for reference; none to judge with, as none is labelled."""
        if purpose == "calibration":
            photos = map(_images.read_photo, _photos.calibration_photos())
            return [self._sample(view) for photo in photos for view in _images.views(photo, self.input_size)]
        paths = _photos.reference_photos() if purpose == "reference" else []
        return [self.preprocess(path) for path in paths]

    def preprocess(self, path: Path) -> Sample:
        """The middle of a photo as ``image``, with the mean and deviation of ImageNet's photos taken out."""
        return self._sample(_images.center_square(_images.read_photo(path), _SHARE, self.input_size))

    def postprocess(self, outputs: Sample) -> list[Tag]:
        """The tags with a probability of at least ``threshold``, at most five, best first."""
        from edge_sdk.models._tags import best_tags, sigmoid

        scores = sigmoid(next(iter(outputs["forward"].values())).reshape(-1))
        return best_tags(scores, self.labels, most=_TAGS, threshold=self.threshold)

    def _sample(self, image: Image) -> Sample:
        return {"forward": {"image": _images.normalised(image, _MEAN, _STD)}}


def _labels(num_classes: int) -> Sequence[str]:
    """COCO's category names where their number fits, else numbered ones."""
    coco = Path(__file__).with_name("labels.txt").read_text("utf-8").splitlines()
    return coco if num_classes == len(coco) else [f"class {index}" for index in range(num_classes)]
