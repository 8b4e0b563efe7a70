"""A model's parts, pruned: what goes between them keeps its width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_sdk.errors import UnsupportedError
from edge_sdk.schema.manifest import Pruning

if TYPE_CHECKING:
    from edge_sdk.models.base import Model, Part
    from edge_sdk.pruning import Recipe
    from edge_sdk.quantization.base import Quantizer


def check(model: Model, recipe: Recipe, quantizer: Quantizer) -> None:
    """Refuses what cannot be pruned, before any work.

    Raises:
        UnsupportedError: The model is an ONNX file, or its integers were trained for the network as it is.
        MissingDependencyError: torch-pruning is needed and not installed.
    """
    if model.onnx:
        raise UnsupportedError(f"--prune {recipe} takes PyTorch models, not ONNX files: prune before exporting.")
    if quantizer.name == "int8-lsq":
        raise UnsupportedError(
            f"--prune {recipe} cannot go before int8-lsq, whose checkpoint was trained for the whole network: take "
            "int8-static."
        )
    if recipe.channels:
        from edge_sdk.pruning import check_installed

        check_installed()


def pruned_parts(parts: Sequence[Part], recipe: Recipe) -> tuple[list[Part], Pruning]:
    """Each part pruned by a recipe. A part where no channel can go stays as it is.

    Raises:
        UnsupportedError: No part can be pruned, or so much of one cannot go.
    """
    from edge_sdk.pruning import NothingToPrune, prune

    done: list[Part] = []
    before = after = zeros = 0
    whole: dict[str, str] = {}
    for part in parts:
        count = sum(parameter.numel() for parameter in part.module.parameters())
        before += count
        try:
            found = prune(part.module, part.example_inputs, recipe)
        except NothingToPrune as error:
            whole[part.name] = str(error)
            after += count
            done.append(part)
            continue
        except UnsupportedError as error:
            raise UnsupportedError(f"part '{part.name}': {error}") from error
        after, zeros = after + found.parameters, zeros + found.zeros
        done.append(replace(part, module=found.module))
    if len(whole) == len(parts):
        raise UnsupportedError(f"--prune {recipe} finds nothing to prune: {'; '.join(whole.values())}")
    return done, Pruning(recipe=str(recipe), parameters_before=before, parameters=after, zeros=zeros, whole=whole)
