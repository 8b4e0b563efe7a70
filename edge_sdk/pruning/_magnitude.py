"""Sets the smallest weights to zero, and keeps them there. Files and latencies stay as they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.Embedding, nn.RNNBase, nn.RNNCellBase)


def zero_smallest(module: nn.Module, share: float) -> None:
    """Sets a share of each weight matrix to zero, the smallest values; biases and scales stay.

    Args:
        module: Is changed.
        share: From 0 to 1.
    """
    with torch.no_grad():
        for weight in weights_of(module).values():
            count = int(share * weight.numel())
            smallest = weight.abs().flatten().topk(count, largest=False).indices
            weight.view(-1)[smallest] = 0.0


def weights_of(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that magnitude pruning is about: those with two dimensions or more, by name."""
    return {name: value for name, value in module.named_parameters() if value.ndim > 1}


class Masks:
    """Which weights of a module are zero, and stay so.

    Args:
        module: Pruned.
    """

    def __init__(self, module: nn.Module) -> None:
        self._kept: dict[str, Tensor] = {
            name: kept for name, value in weights_of(module).items() if not (kept := value.detach() != 0).all()
        }

    def __len__(self) -> int:
        return sum(int((~kept).sum()) for kept in self._kept.values())

    def apply(self, module: nn.Module) -> None:
        """Sets them to zero again, after a step of training. The module's weights are those of the one before."""
        weights = weights_of(module)
        with torch.no_grad():
            for name, kept in self._kept.items():
                weights[name].mul_(kept.to(weights[name].device))
