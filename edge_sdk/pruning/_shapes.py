"""Makes a network's layers as large as those of a pruned one, whose weights it is to get."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_SIZES: dict[type[nn.Module], tuple[str, ...]] = {
    nn.modules.conv._ConvNd: ("out_channels", "in_channels"),
    nn.Linear: ("out_features", "in_features"),
    nn.Embedding: ("num_embeddings", "embedding_dim"),
    nn.modules.batchnorm._BatchNorm: ("num_features",),
}
"""Kind of layer to its names for the first dimensions of its weight."""


def take_shapes(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Resizes convolutions, linear layers, embeddings and batch normalisations to the weights that they are to get.

    Their weights are undefined afterwards where the size changed. Other layers stay as they are.

    Args:
        module: Is changed.
        state: Weights by name; those that do not tell a size are left to whoever fills them in.
    """
    for path, layer in module.named_modules():
        sizes = next((sizes for kind, sizes in _SIZES.items() if isinstance(layer, kind)), ())
        weight = state.get(f"{path}.weight" if path else "weight")
        if not sizes or weight is None or weight.ndim != layer.weight.ndim or weight.shape == layer.weight.shape:
            continue
        _resize(layer, path, state)
        found = list(weight.shape)
        if isinstance(layer, nn.modules.conv._ConvNd):
            if layer.groups > 1:  # depthwise: a group for each channel that comes in
                layer.groups = found[0] * layer.groups // layer.out_channels
            found[1] *= layer.groups
        for name, size in zip(sizes, found, strict=False):
            setattr(layer, name, size)


def _resize(layer: nn.Module, path: str, state: Mapping[str, Tensor]) -> None:
    for name, value in list(layer.state_dict(keep_vars=True).items()):
        given = state.get(f"{path}.{name}" if path else name)
        if given is None or given.shape == value.shape:
            continue
        empty = torch.empty(given.shape, dtype=value.dtype)
        if isinstance(value, nn.Parameter):
            setattr(layer, name, nn.Parameter(empty, requires_grad=value.requires_grad))
        else:
            setattr(layer, name, empty)
