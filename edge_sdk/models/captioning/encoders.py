"""Image encoders that give the places of an image: EfficientNet-Lite0 with its ImageNet weights, and ResNets.

Shapes: b batch, s image size, g places of a side, p = g * g, c channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edge_sdk.errors import ModelError, unknown_name
from edge_sdk.models._checkpoint import fill, read_state_dict
from edge_sdk.models.photo_tagging.resnet import VARIANTS, randomly_initialised

EFFICIENTNET = "efficientnet_lite0"
ENCODERS = (EFFICIENTNET, *VARIANTS)
_STRIDE = 32
_CLASSES = 80

# Source: the means and deviations that networks with ImageNet's weights are trained with.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class PlacesEncoder(nn.Module):
    """The last map of a convolutional network, place by place.

    Args:
        name: One of `ENCODERS`.
        image_size: Pixels of a side, a multiple of 32.
        checkpoint: Of a ResNet: weights that ``edge-sdk train photo_tagging`` wrote; None for random ones, as for a
            network whose own weights follow.
        seed: Of the random weights.

    Raises:
        ModelError: The encoder is unknown, the size does not fit, or the checkpoint does not.
        MissingDependencyError: The package of EfficientNet-Lite0's weights is not installed.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __init__(
        self, name: str = EFFICIENTNET, image_size: int = 224, checkpoint: Path | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        if name not in ENCODERS:
            raise ModelError(unknown_name("encoder", name, ENCODERS))
        if image_size < _STRIDE or image_size % _STRIDE:
            raise ModelError(f"{name}: image_size is {image_size}; expected a multiple of {_STRIDE}, such as 224.")
        if name == EFFICIENTNET and checkpoint is not None:
            raise ModelError(f"{name} has its own weights; leave the encoder's checkpoint {checkpoint} out.")
        self.name, self.image_size, self.grid = name, image_size, image_size // _STRIDE
        self.layers, self.dim = _efficientnet() if name == EFFICIENTNET else _resnet(name, checkpoint, seed)
        self.mean, self.std = (3 * (127 / 255,), 3 * (128 / 255,)) if name == EFFICIENTNET else _IMAGENET
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> PlacesEncoder:
        """Stays in evaluation mode: its weights are frozen."""
        del mode
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[b, 3, s, s]``, normalised, to places ``[b, p, c]``, row by row.

        Raises:
            ModelError: The images are of another shape.
        """
        return self.map(images).flatten(2).transpose(1, 2)

    def map(self, images: Tensor) -> Tensor:
        """Likewise to ``[b, c, g, g]``.

        Raises:
            ModelError: The images are of another shape.
        """
        if images.dim() != 4 or tuple(images.shape[1:]) != (3, self.image_size, self.image_size):
            wanted = f"[batch, 3, {self.image_size}, {self.image_size}]"
            raise ModelError(f"{self.name}: images are {list(images.shape)}; expected {wanted}.")
        return self.layers(images)


def _efficientnet() -> tuple[nn.Module, int]:
    from edge_sdk.models.efficientnet_lite0.plugin import network

    whole: Any = network()
    layers = nn.Sequential(whole._conv_stem, whole._bn0, nn.ReLU6(), *whole._blocks)
    return layers, int(whole._blocks[-1]._bn2.num_features)


def _resnet(name: str, checkpoint: Path | None, seed: int) -> tuple[nn.Module, int]:
    if checkpoint is None:
        whole = randomly_initialised(name, _CLASSES, seed)
    else:
        state = read_state_dict(checkpoint)
        classes = state["fc.bias"].shape[0] if "fc.bias" in state else _CLASSES
        whole = randomly_initialised(name, classes, seed)
        fill(whole, state, f"the encoder's checkpoint {checkpoint}")
    stem = nn.Sequential(whole.conv1, whole.bn1, whole.relu, whole.maxpool)
    return nn.Sequential(stem, whole.layer1, whole.layer2, whole.layer3, whole.layer4), whole.fc.in_features
