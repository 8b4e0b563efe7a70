"""LSQ checkpoints: weights and steps by the names of layers, in plain tensors."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge_sdk._files import write_atomic
from edge_sdk.errors import EdgeSdkError, ModelError
from edge_sdk.models._checkpoint import load_plain, some
from edge_sdk.quantization.lsq._prepare import Prepared
from edge_sdk.quantization.lsq._recipe import Recipe

FORMAT = "edge-sdk-lsq-1"
_GROUPS = ("weights", "biases", "weight_steps", "activation_steps", "signed")

Facts = Mapping[str, str | int | float | bool]


@dataclass(frozen=True)
class LsqCheckpoint:
    """What LSQ training has found.

    Attributes:
        path: Where it was read.
        recipe: What was quantized to how many bits.
        weights: Layer to its weight, which is not rounded.
        biases: Layer to its bias.
        weight_steps: Layer to its steps, ``[channels]`` or ``[1]``.
        activation_steps: Name of a tensor to its step, ``[1]``.
        signed: Name of a tensor to whether it has values below zero.
        facts: What else was noted.
    """

    path: Path
    recipe: Recipe
    weights: Mapping[str, Tensor]
    biases: Mapping[str, Tensor]
    weight_steps: Mapping[str, Tensor]
    activation_steps: Mapping[str, Tensor]
    signed: Mapping[str, Tensor]
    facts: Facts

    def fill(self, prepared: Prepared) -> None:
        """Gives a prepared graph its weights and steps, every one of them and no other.

        Raises:
            ModelError: They are those of another network; the message lists the first few that differ.
        """
        faults: list[str] = []
        for kind in ("weights", "biases", "weight_steps", "activation_steps"):
            wanted, found = getattr(prepared, kind), getattr(self, kind)
            said = kind.replace("_", " ")
            for word, names in (("missing", set(wanted) - set(found)), ("unexpected", set(found) - set(wanted))):
                if names:
                    faults.append(f"{len(names)} {said} {word} ({some(sorted(names))})")
        if not faults:
            faults = [
                f"{name} is {list(value.shape)} instead of {list(prepared.weights[name].shape)}"
                for name, value in self.weights.items()
                if value.shape != prepared.weights[name].shape
            ][:3]
        if faults:
            raise ModelError(
                f"LSQ checkpoint {self.path} does not fit the model: {'; '.join(faults)}. Give the model the settings "
                f"that it was trained with{_told(self.facts)}."
            )
        for name, parameter in prepared.weights.items():
            # Training may keep weights in channels-last order, which a captured graph's constants are not to have.
            parameter.data = self.weights[name].clone(memory_format=torch.contiguous_format)
            prepared.biases[name].data = self.biases[name].clone()
        for name, step in prepared.weight_steps.items():
            step.step.data = self.weight_steps[name].clone()
        for name, step in prepared.activation_steps.items():
            step.step.data = self.activation_steps[name].clone()
            step.is_signed = self.signed[name].clone()


def save(path: Path, prepared: Prepared, recipe: Recipe, facts: Facts) -> None:
    """Writes a checkpoint, whole or not at all.

    Raises:
        EdgeSdkError: The disk is full.
    """
    content = {
        "format": FORMAT,
        "recipe": recipe.facts(),
        "facts": dict(facts),
        "weights": {name: value.detach().cpu().clone() for name, value in prepared.weights.items()},
        "biases": {name: value.detach().cpu().clone() for name, value in prepared.biases.items()},
        "weight_steps": {name: step.positive_step().detach().cpu() for name, step in prepared.weight_steps.items()},
        "activation_steps": {
            name: step.positive_step().detach().cpu() for name, step in prepared.activation_steps.items()
        },
        "signed": {name: torch.as_tensor(step.is_signed).cpu() for name, step in prepared.activation_steps.items()},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())


def load(path: Path) -> LsqCheckpoint:
    """Reads what `LsqNetwork.save` wrote.

    Raises:
        ModelError: It is no such file.
    """
    content = load_plain(path)
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise ModelError(
            f"{path} is no LSQ checkpoint of this version. Train one: edge-sdk train photo_tagging method=lsq "
            "lsq.checkpoint=FP32.pt."
        )
    try:
        recipe = Recipe(**content["recipe"])
        groups = {name: dict(content[name]) for name in _GROUPS}
    except (KeyError, TypeError, ValueError, EdgeSdkError) as error:
        raise ModelError(f"LSQ checkpoint {path} is damaged: {type(error).__name__}: {error}.") from error
    if not all(_is_plain(group) for group in groups.values()):
        raise ModelError(f"LSQ checkpoint {path} is damaged: it holds something else than numbers by name.")
    return LsqCheckpoint(path, recipe, **groups, facts=dict(content.get("facts", {})))


def _is_plain(group: Mapping[Any, Any]) -> bool:
    return all(
        isinstance(name, str) and isinstance(value, Tensor) and bool(torch.isfinite(value.float()).all())
        for name, value in group.items()
    )


def _told(facts: Facts) -> str:
    words = ", ".join(f"{name} {value}" for name, value in facts.items() if name in ("variant", "num_classes"))
    return f" ({words})" if words else ""
