"""ResNet-18, 34 and 50 for multi-label tagging.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016. ResNet-50 strides in
the 3x3 convolution, as the published ImageNet weights do; parameter names are the usual ones, so
that such weights fit.

Shapes: b batch, c channels, h height, w width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    expansion = 1

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels_in, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(channels_in, channels * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, channels_in, h, w]`` to ``[b, channels, h / stride, w / stride]``."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut; four times as many channels leave as pass the middle."""

    expansion = 4

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels_in, channels, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = _conv(channels, channels * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(channels_in, channels * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, channels_in, h, w]`` to ``[b, 4 * channels, h / stride, w / stride]``."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + self.downsample(x))


@dataclass(frozen=True)
class Variant:
    """The block of a ResNet and how many of them each of the four stages has."""

    block: type[BasicBlock] | type[Bottleneck]
    blocks: tuple[int, int, int, int]


VARIANTS = {
    "resnet18": Variant(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Variant(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Variant(Bottleneck, (3, 4, 6, 3)),
}


class ResNet(nn.Module):
    """A residual network with one logit for each tag.

    Args:
        variant: Key of `VARIANTS`.
        num_classes: Number of tags.
    """

    def __init__(self, variant: str, num_classes: int) -> None:
        super().__init__()
        block, blocks = VARIANTS[variant].block, VARIANTS[variant].blocks
        self.conv1 = _conv(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _stage(block, 64, 64, blocks[0], 1)
        self.layer2 = _stage(block, 64 * block.expansion, 128, blocks[1], 2)
        self.layer3 = _stage(block, 128 * block.expansion, 256, blocks[2], 2)
        self.layer4 = _stage(block, 256 * block.expansion, 512, blocks[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * block.expansion, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, 3, h, w]`` to logits ``[b, num_classes]``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def randomly_initialised(variant: str, num_classes: int, seed: int) -> ResNet:
    """A network with random weights whose activations have the range of a trained network's.

    He initialisation alone lets them grow from block to block, for batch normalisation's running
    statistics are still an identity. So each branch is scaled down by the depth, and one pass over
    noise sets the statistics, as the first steps of training would. PyTorch's own random state is
    left alone.

    Source: De and Smith, "Batch Normalization Biases Residual Blocks Towards the Identity Function
    in Deep Networks", NeurIPS 2020, for the scale of the branches.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ResNet(variant, num_classes)
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        _scale_branches(network)
        _set_running_statistics(network)
    return network.eval()


def _scale_branches(network: ResNet) -> None:
    """Lets each block's branch add the share ``1 / number of blocks`` of variance to its shortcut."""
    blocks = [layer for layer in network.modules() if isinstance(layer, BasicBlock | Bottleneck)]
    for block in blocks:
        last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
        nn.init.constant_(last.weight, len(blocks) ** -0.5)


def _set_running_statistics(network: ResNet) -> None:
    """Sets each batch normalisation's running mean and variance to those of one batch of noise."""
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the cumulative average, so that one pass sets it
    with torch.no_grad():
        network.train()(_photo_like_noise(8))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _photo_like_noise(count: int) -> Tensor:
    """Noise with as much variance in each octave of scale, as photos have: ``[count, 3, 224, 224]``."""
    octaves = [torch.randn(count, 3, size, size) for size in (1, 7, 14, 28, 56, 112, 224)]
    enlarged = [nn.functional.interpolate(octave, size=(224, 224), mode="bilinear") for octave in octaves]
    return torch.stack(enlarged).sum(0) / len(octaves) ** 0.5


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    if stride == 1 and channels_in == channels_out:
        return nn.Identity()
    return nn.Sequential(_conv(channels_in, channels_out, 1, stride), nn.BatchNorm2d(channels_out))


def _stage(
    block: type[BasicBlock] | type[Bottleneck], channels_in: int, channels: int, count: int, stride: int
) -> nn.Sequential:
    first = block(channels_in, channels, stride)
    rest = [block(channels * block.expansion, channels, 1) for _ in range(count - 1)]
    return nn.Sequential(first, *rest)
