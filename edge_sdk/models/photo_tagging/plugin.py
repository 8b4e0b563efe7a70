"""Photo tagging: a ResNet with a logit for each of COCO's 80 categories, several of which may hold.

Without a checkpoint the weights are random: good for measuring size, speed and numerics, while the
tags mean nothing. With ``data``, a folder in COCO's layout, the tags are its categories, photos of its
train split calibrate, and those of its val split judge.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.errors import ModelError
from edge_sdk.models import _images, _photos
from edge_sdk.models._settings import checkpoint, choice, fraction, integer
from edge_sdk.models.base import Model, Part, Purpose, Sample, only_setting

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

    from edge_sdk.models.photo_tagging._data import TaggingData
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
_DATA_SETTINGS = ("eval_images", "calibration_images")


class PhotoTagging(Model):
    """Multi-label photo tagger: ResNet-18, 34 or 50.

    Args:
        **settings: ``variant`` (resnet18, resnet34, resnet50), ``num_classes`` (80: COCO's
            categories), ``checkpoint`` (path to a state dict), ``input_size`` in pixels (224),
            ``seed`` of the random weights where there is no checkpoint (0), ``threshold`` of a
            tag's probability (0.5), ``data`` (``embedded`` or a COCO folder, whose categories are
            then the tags), ``eval_images`` of its val split to judge with (200, 0 for all),
            ``calibration_images`` of its train split (64, 0 for all).
    """

    name = "photo_tagging"
    settings = {
        "variant": "resnet18",
        "num_classes": "80",
        "checkpoint": "",
        "input_size": "224",
        "seed": "0",
        "threshold": "0.5",
        "data": "",
        "eval_images": "200",
        "calibration_images": "64",
    }

    def __init__(self, /, **settings: str) -> None:
        only_setting(self.name, settings, tuple(self.settings))
        values = {**self.settings, **settings}
        self.variant = choice(self.name, "variant", values["variant"], _VARIANTS)
        self.num_classes = integer(self.name, "num_classes", values["num_classes"], 1, 100_000)
        self.input_size = integer(self.name, "input_size", values["input_size"], 32, 2048)
        self.seed = integer(self.name, "seed", values["seed"], 0, 2**63 - 1)
        self.threshold = fraction(self.name, "threshold", values["threshold"])
        self.checkpoint = checkpoint(self.name, values["checkpoint"])
        self.data = _data(self.name, values, settings)
        self.labels: Sequence[str] = _labels(self.num_classes)
        if self.data is not None:
            self.labels = self.data.categories
            self._take_classes(given="num_classes" in settings)

    def fingerprint(self) -> Mapping[str, str]:
        """The settings that shape the network, and hashes of the checkpoint, the photos and this code."""
        from edge_sdk._files import sha256_file
        from edge_sdk.models._fingerprint import source_hash

        weights = sha256_file(self.checkpoint) if self.checkpoint else f"random, seed {self.seed}"
        data = {} if self.data is None else {"data": self.data.identity()}
        return {
            **data,
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
        from edge_sdk.models.photo_tagging.resnet import ResNet, randomly_initialised

        assert self.variant is not None
        if self.checkpoint is None:
            _log.warning("photo_tagging has random weights: its tags mean nothing. Give it --set checkpoint=PATH.")
            return randomly_initialised(self.variant, self.num_classes, self.seed)
        state = read_state_dict(self.checkpoint)
        network = ResNet(self.variant, self.num_classes)
        fill(network, state, f"checkpoint {self.checkpoint}", self._advice(state))
        return network.eval()

    def samples(self, purpose: Purpose) -> list[Sample]:
        """Photos of ``data`` to calibrate and to judge with; without it packaged ones to calibrate with.

        Packaged photos are the reference in both cases: they may travel in a bundle.

        Raises:
            ModelError: The data lacks a split, or more than 1 % of the photos are damaged.
        """
        if self.data is not None and purpose == "evaluation":
            return self._evaluation[0]
        if self.data is not None and purpose == "calibration":
            return self._read(self.data.calibration_files(), f"{self.data.root}, photos to calibrate with")[0]
        if purpose == "calibration":
            photos = map(_images.read_photo, _photos.calibration_photos())
            return [self._sample(view) for photo in photos for view in _images.views(photo, self.input_size)]
        paths = _photos.reference_photos() if purpose == "reference" else []
        return [self.preprocess(path) for path in paths]

    def score(self, outputs: Sequence[Sample], fp32: Sequence[Sample]) -> dict[str, float] | None:
        """The metrics of tagging (see `edge_sdk.profiling.multilabel`), and how far the mAP is below FP32's."""
        if self.data is None:
            return None
        import numpy as np

        from edge_sdk.models._tags import sigmoid
        from edge_sdk.profiling.multilabel import metrics

        labels = self._evaluation[1]
        found, exact = (
            metrics(sigmoid(np.stack([_logits(one) for one in some])), labels, self.threshold)
            for some in (outputs, fp32)
        )
        return {**found, "map_fp32": exact["map"], "map_drop": exact["map"] - found["map"]}

    def preprocess(self, path: Path) -> Sample:
        """The middle of a photo as ``image``, with the mean and deviation of ImageNet's photos taken out."""
        return self._sample(_images.center_square(_images.read_photo(path), _SHARE, self.input_size))

    def postprocess(self, outputs: Sample) -> list[Tag]:
        """The tags with a probability of at least ``threshold``, at most five, best first."""
        from edge_sdk.models._tags import best_tags, sigmoid

        scores = sigmoid(_logits(outputs))
        return best_tags(scores, self.labels, most=_TAGS, threshold=self.threshold)

    def program_name(self, quantizer: str, delegate: str, program: str) -> str:
        """What an app calls the program, such as ``resnet18_multilabel_int8_xnnpack.pte``.

        Args:
            quantizer: The quantizer's name.
            delegate: What runs the program.
            program: The program's file in the bundle.
        """
        from edge_sdk.models.photo_tagging._names import program_name

        assert self.variant is not None
        return program_name(self.variant, quantizer, delegate, program)

    @cached_property
    def _evaluation(self) -> tuple[list[Sample], np.ndarray]:
        """The inputs to judge with and their labels; kept, for a budget asks for them more than once."""
        assert self.data is not None
        files, labels = self.data.evaluation_files()
        samples, places = self._read(files, f"{self.data.root}, photos to judge with")
        if not labels[places].any():
            raise ModelError(
                f"{self.data.root}: none of the {len(places)} photos to judge with has a category, so there is no "
                "metric. Give --set eval_images=0 to take all, or other data."
            )
        return samples, labels[places]

    def _read(self, files: Sequence[Path], what: str) -> tuple[list[Sample], list[int]]:
        """The photos that can be read, and their places."""
        from edge_sdk.models.photo_tagging._data import Skips, readable

        found = list(readable(files, self.preprocess, Skips(what, len(files))))
        return [sample for _, sample in found], [place for place, _ in found]

    def _take_classes(self, *, given: bool) -> None:
        """Sets the number of tags to that of the data, or refuses another that was asked for."""
        assert self.data is not None
        count = len(self.data.categories)
        if given and self.num_classes != count:
            raise ModelError(
                f"model '{self.name}': num_classes is {self.num_classes}, and {self.data.root} has {count} categories "
                f"({', '.join(self.data.categories[:3])}{', ...' if count > 3 else ''}). Leave num_classes out."
            )
        self.num_classes = count

    def _advice(self, state: Mapping[str, Tensor]) -> str:
        """What to set so that a checkpoint fits, or that it does not fit the data."""
        from edge_sdk.models.photo_tagging._advice import advice

        assert self.variant is not None
        classes = state["fc.weight"].shape[0] if "fc.weight" in state else None
        if self.data is None or classes in (None, self.num_classes):
            return advice(state, self.variant, self.num_classes)
        return (
            f"It holds {classes} classes, and {self.data.root} has {self.num_classes} categories. Give the checkpoint "
            "that was trained on this data, or the data that it was trained on."
        )

    def _sample(self, image: Image) -> Sample:
        return {"forward": {"image": _images.normalised(image, _MEAN, _STD)}}


def _logits(outputs: Sample) -> np.ndarray:
    return next(iter(outputs["forward"].values())).reshape(-1)


def _data(name: str, values: Mapping[str, str], given: Mapping[str, str]) -> TaggingData | None:
    """The data that the settings name; settings of data without data are refused."""
    if not values["data"]:
        for key in _DATA_SETTINGS:
            if key in given:
                raise ModelError(
                    f"model '{name}': {key} counts images of data, and none was given: --set data=embedded, "
                    "or the path of a COCO folder."
                )
        return None
    from edge_sdk.models.photo_tagging._data import TaggingData
    from edge_sdk.models.photo_tagging.embedded import data_root

    evaluation, calibration = (integer(name, key, values[key], 0, 10_000_000) for key in _DATA_SETTINGS)
    return TaggingData(data_root(values["data"]), calibration_images=calibration, eval_images=evaluation)


def _labels(num_classes: int) -> Sequence[str]:
    """COCO's category names where their number fits, else numbered ones."""
    coco = Path(__file__).with_name("labels.txt").read_text("utf-8").splitlines()
    return coco if num_classes == len(coco) else [f"class {index}" for index in range(num_classes)]
