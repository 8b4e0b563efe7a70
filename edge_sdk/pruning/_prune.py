"""Prunes a network by a recipe."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor, nn

from edge_sdk.pruning._magnitude import weights_of, zero_smallest
from edge_sdk.pruning._recipe import Recipe
from edge_sdk.pruning._structured import ROUND_TO, parameters_of, remove_channels

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Pruned(Generic[M]):
    """A pruned network.

    Attributes:
        module: The network; the one it was made of is unchanged.
        recipe: How it was pruned.
        parameters_before: How many parameters that one has.
    """

    module: M
    recipe: Recipe
    parameters_before: int

    @property
    def parameters(self) -> int:
        """How many are left, those that are zero among them."""
        return parameters_of(self.module)

    @property
    def zeros(self) -> int:
        """How many weights are zero."""
        return sum(int((value == 0).sum()) for value in weights_of(self.module).values())


def prune(module: M, example_inputs: tuple[Tensor, ...], recipe: Recipe | str, round_to: int = ROUND_TO) -> Pruned[M]:
    """Prunes a copy of a network, whose inputs and outputs keep their widths.

    Args:
        module: Any network; for ``struct`` one that autograd can follow.
        example_inputs: Positional inputs of its ``forward``, with the batch dimension.
        recipe: Such as ``struct30+mag10``: see `Recipe`.
        round_to: Layers keep a multiple of so many channels where they lose any.

    Raises:
        UnsupportedError: The recipe is none, or the network does not allow it.
        MissingDependencyError: torch-pruning is not installed.
    """
    recipe = Recipe.parse(recipe) if isinstance(recipe, str) else recipe
    if recipe.channels:
        done = remove_channels(module, example_inputs, recipe.channels / 100, round_to)
    else:
        done = copy.deepcopy(module)
    if recipe.weights:
        zero_smallest(done, recipe.weights / 100)
    return Pruned(done, recipe, parameters_of(module))
