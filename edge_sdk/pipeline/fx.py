"""What every module that edits PyTorch graphs needs."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

_aten = torch.ops.aten


def arguments(node: Node) -> tuple[Any, ...]:
    """A node's positional arguments, whose types only its operator knows."""
    return node.args


def calls(module: GraphModule, targets: set) -> list[Node]:
    """The calls of some operators, in order, in a list that survives edits."""
    return [node for node in module.graph.nodes if node.op == "call_function" and node.target in targets]


def constant(module: GraphModule, argument: object) -> torch.Tensor | None:
    """The value of an argument that is a parameter or buffer, None where it is computed or absent."""
    if not isinstance(argument, Node) or argument.op != "get_attr":
        return None
    value: object = module
    for step in str(argument.target).split("."):
        value = getattr(value, step)
    return value.detach() if isinstance(value, torch.Tensor) else None


def pads_zeros(node: Node) -> bool:
    """Whether a padding operator brings in nothing but zeros."""
    mode, value = (*arguments(node)[2:], None, None)[:2]
    if node.target is _aten.constant_pad_nd.default:
        mode, value = "constant", mode
    return mode in (None, "constant") and not value
