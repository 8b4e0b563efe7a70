"""What goes into a user's module and what comes out: tensors by name, in order."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn


def input_tensors(module: nn.Module, inputs: Any, where: str) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    """Names and example tensors of a module's positional inputs.

    Args:
        module: The module.
        inputs: A tensor, a tuple or list of tensors, or tensors by the name of ``forward``'s parameter.
        where: What gave them, for the message.

    Raises:
        ModelError: They are something else, or do not fit ``forward``.
    """
    import torch

    by_name = isinstance(inputs, Mapping)
    given = (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs.values()) if by_name else inputs
    if not isinstance(given, tuple | list) or not given:
        raise ModelError(
            f"{where}: example_inputs is a {type(inputs).__name__}; "
            "expected a tensor, a tuple of tensors, or a dict of tensors by name."
        )
    for index, value in enumerate(given):
        if not isinstance(value, torch.Tensor):
            label = list(inputs)[index] if by_name else index
            raise ModelError(
                f"{where}: example input {label} is a {type(value).__name__}; expected a torch.Tensor. "
                "Keep constants in the module."
            )
    parameters = inspect.signature(module.forward).parameters
    try:
        bound = inspect.signature(module.forward).bind(*(() if by_name else given), **(inputs if by_name else {}))
    except TypeError as error:
        raise ModelError(
            f"{where}: example_inputs do not fit {type(module).__name__}.forward({', '.join(parameters)}): {error}."
        ) from error
    if bound.kwargs:
        raise ModelError(
            f"{where}: forward can take {', '.join(bound.kwargs)} by keyword only, and a compiled program takes its "
            "inputs by position. Make the parameter positional and leave out none before it."
        )
    tensors = tuple(tensor.detach().cpu() for tensor in bound.args)
    return _input_names(bound), tensors


def output_names(outputs: Any, where: str) -> tuple[str, ...]:
    """A name for each tensor of a result, in the order in which export flattens it.

    Tensors of a dict keep their keys; others are ``output``, or ``output_0`` and so on.

    Raises:
        ModelError: The result holds something else than tensors, or nothing.
    """
    import torch
    from torch.utils import _pytree as pytree

    leaves = pytree.tree_leaves(outputs)
    for leaf in leaves:
        if not isinstance(leaf, torch.Tensor):
            raise ModelError(
                f"{where}: the module returns a {type(leaf).__name__}; only tensors can leave a compiled program."
            )
    if not leaves:
        raise ModelError(f"{where}: the module returns no tensor.")
    if isinstance(outputs, Mapping) and len(outputs) == len(leaves):
        names = tuple(re.sub(r"\W+", "_", str(key)) or "output" for key in outputs)
        if len(set(names)) == len(names):
            return names
    return ("output",) if len(leaves) == 1 else tuple(f"output_{index}" for index in range(len(leaves)))


def _input_names(bound: inspect.BoundArguments) -> tuple[str, ...]:
    """The parameters' names; numbered ones for ``*args``."""
    names: list[str] = []
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        many = kind is inspect.Parameter.VAR_POSITIONAL
        names += [f"{name}_{index}" for index in range(len(value))] if many else [name]
    return tuple(names)
