"""What the quantizers of linear weights share: which layers they take and which they leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from edge_sdk.errors import UnsupportedError
from edge_sdk.quantization._annotate import LAYERS, UNQUANTIZED_LAYERS, has_fixed_weight, layer_name, layers
from edge_sdk.schema.manifest import SkippedLayer

if TYPE_CHECKING:
    from edge_sdk.pipeline.values import Captured

_LINEAR = torch.ops.aten.linear.default


def takes(node: Node, group: int = 1) -> bool:
    """Whether a layer is linear with a fixed weight and an input size that is a multiple of ``group``."""
    if node.target is not _LINEAR or not has_fixed_weight(node) or _is_constant(node):
        return False
    return node.args[1].meta["val"].shape[1] % group == 0  # type: ignore[union-attr]


def refuse_without_linear(method: str, captured: Captured, group: int = 1) -> None:
    """Refuses a model that the method would leave as it is.

    Raises:
        UnsupportedError: No part has a layer that the method takes.
    """
    if not any(takes(node, group) for graph in captured.graphs for node in layers(graph.torch)):  # type: ignore[arg-type]
        size = f" with an input size that is a multiple of {group}" if group > 1 else ""
        raise UnsupportedError(
            f"{method} quantizes linear layers only, and the model has none{size}; use int8-static or fp16."
        )


def skipped_layers(method: str, captured: Captured, group: int = 1) -> list[SkippedLayer]:
    """The layers with multiply-accumulates that the method leaves in FP32, each with the reason."""
    listed = []
    for graph in captured.graphs:
        assert graph.torch is not None
        for node in layers(graph.torch, LAYERS | UNQUANTIZED_LAYERS):
            if takes(node, group):
                continue
            reason = _reason(method, node, group)
            name = f"{graph.name}.{layer_name(node)}"
            listed.append(SkippedLayer(layer=name, op=str(node.target), precision="fp32", reason=reason))
    return listed


def _is_constant(node: Node) -> bool:
    """Whether a layer's input is a constant, as for embedded places: the runtimes compute it ahead of time."""
    return node.args[0].op == "get_attr"  # type: ignore[union-attr]


def _reason(method: str, node: Node, group: int) -> str:
    if node.target is not _LINEAR:
        return f"{method} takes linear layers only"
    if _is_constant(node):
        return "its input is a constant"
    return f"its input size is no multiple of {group}" if has_fixed_weight(node) else "its weight depends on the input"


def linear_modules(module: GraphModule, group: int = 1) -> set[str]:
    """Turns each linear operator that can be quantized into a module, as torchao wants them; their names.

    Args:
        module: A graph; it is edited in place.
        group: As in `takes`.
    """
    names = set()
    for index, node in enumerate([node for node in layers(module) if takes(node, group)]):
        weight, bias = (_value(module, argument) for argument in (node.args[1], (*node.args, None)[2]))
        assert weight is not None, "a linear operator has a weight"
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        layer.weight = torch.nn.Parameter(weight.detach(), requires_grad=False)
        if bias is not None:
            layer.bias = torch.nn.Parameter(bias.detach(), requires_grad=False)
        name = f"own_linear_{index}"
        module.add_submodule(name, layer)
        with module.graph.inserting_before(node):
            call = module.graph.call_module(name, (node.args[0],))
        node.replace_all_uses_with(call)
        module.graph.erase_node(node)
        names.add(name)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return names


def _value(module: GraphModule, argument: Any) -> torch.Tensor | None:
    """The value of an argument that depends on no input: of a parameter, or of what is computed from some."""
    if not isinstance(argument, Node):
        return argument
    if argument.op != "get_attr":
        args, kwargs = map_arg((argument.args, argument.kwargs), lambda node: _value(module, node))
        return argument.target(*args, **kwargs)  # type: ignore[operator]
    value: Any = module
    for step in str(argument.target).split("."):
        value = getattr(value, step)
    return value
