"""The convolutional encoder and decoder.

Made of what phones run whole and in INT8: convolutions, ReLU, sums, and moves of values. There is no
normalisation inside, and the one of the latents folds into the convolution before it.

Shapes: b batch size, c channels, h and w pixels, s stride.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edge_sdk.errors import ModelError

_BLOCKS = 2
_MOST_HALVINGS = 2  # of the channels, away from the latents


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels)
        self.conv2 = _conv(channels, channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """``[b, c, h, w]`` to the same shape."""
        return self.relu(x + self.conv2(self.relu(self.conv1(x))))


class SubPixel(nn.Module):
    """Doubles the size: a convolution gives four pixels for each, as channels, which are then put in place.

    Source: Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
    Convolutional Neural Network", CVPR 2016; the four start alike, against checkerboards: Aitken et al.,
    "Checkerboard artifact free sub-pixel convolution", 2017.
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv = _conv(channels_in, 4 * channels)
        with torch.no_grad():
            self.conv.weight.copy_(self.conv.weight[::4].repeat_interleave(4, dim=0))

    def forward(self, x: Tensor) -> Tensor:
        """``[b, channels_in, h, w]`` to ``[b, channels, 2 h, 2 w]``."""
        b, c, h, w = x.shape
        # Written out, for delegates know these moves and not the pixel shuffle.
        moved = self.conv(x).reshape(b, -1, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3)
        return moved.reshape(b, -1, 2 * h, 2 * w)


class Encoder(nn.Module):
    """From an image to latents of a fixed scale.

    Each channel of the latents is brought to a mean of 0 and a variance of ``1 / latent_dim`` by batch
    normalisation without parameters to learn: the squared length of a latent is near 1, so that the
    quantizer's penalty means the same for every network.

    Args:
        channels: Of the image.
        latent_dim: Width of a latent.
        hidden: Channels of the layers next to the latents.
        stride: Pixels of a side for each latent, a power of 2 from 2.

    Raises:
        ModelError: A size does not fit.
    """

    def __init__(self, channels: int, latent_dim: int, hidden: int, stride: int) -> None:
        super().__init__()
        widths = _widths(hidden, stride)
        layers: list[nn.Module] = []
        for before, after in zip([channels, *widths], widths, strict=False):
            layers += [_conv(before, after, 4, 2), nn.ReLU()]
        self.layers = nn.Sequential(*layers, *(ResidualBlock(hidden) for _ in range(_BLOCKS)))
        self.project = nn.Conv2d(hidden, latent_dim, 1)
        self.scale = nn.BatchNorm2d(latent_dim)
        nn.init.constant_(self.scale.weight, 1 / math.sqrt(latent_dim))
        self.scale.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, channels, h, w]`` to ``[b, latent_dim, h / s, w / s]``."""
        return self.scale(self.project(self.layers(x)))


class Decoder(nn.Module):
    """From latents back to an image; the mirror of `Encoder`.

    Args:
        channels: Of the image.
        latent_dim: Width of a latent.
        hidden: Channels of the layers next to the latents.
        stride: Pixels of a side for each latent, a power of 2 from 2.

    Raises:
        ModelError: A size does not fit.
    """

    def __init__(self, channels: int, latent_dim: int, hidden: int, stride: int) -> None:
        super().__init__()
        widths = _widths(hidden, stride)[::-1]
        layers: list[nn.Module] = [_conv(latent_dim, hidden), nn.ReLU()]
        layers += [ResidualBlock(hidden) for _ in range(_BLOCKS)]
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [SubPixel(before, after), nn.ReLU()]
        last = SubPixel(widths[-1], channels)
        nn.init.constant_(last.conv.bias, 0.5)  # type: ignore[arg-type]  # the middle of an image's values
        self.layers = nn.Sequential(*layers, last)

    def forward(self, z: Tensor) -> Tensor:
        """``[b, latent_dim, h / s, w / s]`` to ``[b, channels, h, w]``."""
        return self.layers(z)


def _widths(hidden: int, stride: int) -> list[int]:
    """The channels after each halving of the image, the last one ``hidden``."""
    halvings = stride.bit_length() - 1
    if stride < 2 or stride != 1 << halvings:
        raise ModelError(f"the stride is {stride}: give a power of 2, such as 8.")
    if hidden < 1 << _MOST_HALVINGS:
        raise ModelError(f"hidden is {hidden}: give at least {1 << _MOST_HALVINGS} channels.")
    return [hidden >> min(left, _MOST_HALVINGS) for left in range(halvings - 1, -1, -1)]


def _conv(channels_in: int, channels: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels, kernel, stride, padding=1)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
