"""An encoder small enough to be pruned and trained in a test."""

from __future__ import annotations

from itertools import pairwise


def small_resnet(*_):
    """Some thousand random weights, always the same, in a ResNet's place: layers, and the width of their last map."""
    import torch
    from torch import nn

    widths = (3, 16, 24, 32, 24, 16)
    blocks = [
        nn.Sequential(nn.Conv2d(before, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        for before, width in pairwise(widths)
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for block in blocks:
            nn.init.kaiming_normal_(block[0].weight)
    return nn.Sequential(*blocks), widths[-1]
