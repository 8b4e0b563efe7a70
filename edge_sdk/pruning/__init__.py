"""Pruning: networks with fewer channels, or with weights that are zero. It goes before quantization.

`prune` takes any network. A pruned one has lost accuracy until it is trained further: `Masks` keep zero weights zero
meanwhile, and `take_shapes` makes a network as small as the checkpoint that comes of it.

Everything is imported when it is first used, so that a recipe is read without PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

_WHERE = {
    "Masks": "_magnitude",
    "NothingToPrune": "_structured",
    "Pruned": "_prune",
    "Recipe": "_recipe",
    "Sensitivity": "_sensitivity",
    "check_installed": "_structured",
    "prune": "_prune",
    "sensitivity": "_sensitivity",
    "sensitivity_picture": "_picture",
    "take_shapes": "_shapes",
    "zero_smallest": "_magnitude",
}

__all__ = [
    "Masks",
    "NothingToPrune",
    "Pruned",
    "Recipe",
    "Sensitivity",
    "check_installed",
    "prune",
    "sensitivity",
    "sensitivity_picture",
    "take_shapes",
    "zero_smallest",
]

if TYPE_CHECKING:
    from edge_sdk.pruning._magnitude import Masks, zero_smallest
    from edge_sdk.pruning._picture import sensitivity_picture
    from edge_sdk.pruning._prune import Pruned, prune
    from edge_sdk.pruning._recipe import Recipe
    from edge_sdk.pruning._sensitivity import Sensitivity, sensitivity
    from edge_sdk.pruning._shapes import take_shapes
    from edge_sdk.pruning._structured import NothingToPrune, check_installed


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'edge_sdk.pruning' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(f"edge_sdk.pruning.{_WHERE[name]}"), name)
