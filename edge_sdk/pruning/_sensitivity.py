"""How much each layer bears to be pruned, by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from edge_sdk.pruning._magnitude import weights_of, zero_smallest
from edge_sdk.pruning._structured import groups_of

SHARES = (0.1, 0.3, 0.5, 0.7)


@dataclass(frozen=True)
class Sensitivity:
    """A figure for each layer and share.

    Attributes:
        figure: What was measured.
        unpruned: The figure of the whole network.
        shares: Shares of a layer that were pruned, from 0 to 1.
        channels: Layer to the figure without that share of its channels, and of all that go with them.
        weights: Layer to the figure with that share of its weights at zero.
    """

    figure: str
    unpruned: float
    shares: tuple[float, ...]
    channels: dict[str, tuple[float, ...]]
    weights: dict[str, tuple[float, ...]]

    def named(self, before: str) -> Sensitivity:
        """The same, with something before the layers' names."""
        channels, weights = (
            {before + name: row for name, row in rows.items()} for rows in (self.channels, self.weights)
        )
        return replace(self, channels=channels, weights=weights)

    def joined(self, other: Sensitivity) -> Sensitivity:
        """The layers of both, which were judged alike."""
        return replace(self, channels={**self.channels, **other.channels}, weights={**self.weights, **other.weights})

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def sensitivity(
    module: nn.Module,
    example_inputs: tuple[Tensor, ...],
    judge: Callable[[Any], float],
    figure: str,
    shares: Sequence[float] = SHARES,
) -> Sensitivity:
    """Prunes one layer after the other, by several shares, and judges each time.

    Args:
        module: The network; it is as before afterwards.
        example_inputs: Positional inputs of its ``forward``.
        judge: The figure of the network as it is when called.
        figure: What it is, for the picture.
        shares: Of a layer, from 0 to 1.

    Raises:
        UnsupportedError: The network cannot be followed.
        MissingDependencyError: torch-pruning is not installed.
    """
    unpruned = judge(module)
    channels = {
        group.name: tuple(
            _judged(
                module,
                judge,
                [one for one, *_ in group.members],
                lambda group=group, share=share: group.silence(round(share * len(group.importance))),
            )
            for share in shares
        )
        for group in groups_of(module, example_inputs)
    }
    weights = {}
    for name in weights_of(module):
        layer = module.get_submodule(name.rpartition(".")[0])
        weights[name.removesuffix(".weight")] = tuple(
            _judged(module, judge, [layer], lambda layer=layer, share=share: zero_smallest(layer, share))
            for share in shares
        )
    return Sensitivity(figure, unpruned, tuple(shares), channels, weights)


def _judged(
    module: nn.Module, judge: Callable[[Any], float], changed: Sequence[nn.Module], change: Callable[[], None]
) -> float:
    """The figure after a change of some layers, which is taken back."""
    before = [{name: value.clone() for name, value in layer.state_dict().items()} for layer in changed]
    change()
    try:
        return judge(module)
    finally:
        with torch.no_grad():
            for layer, values in zip(changed, before, strict=True):
                layer.load_state_dict(values)
