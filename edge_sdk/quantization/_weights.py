"""What the quantizers of linear weights share: which layers they take and which they leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edge_sdk.errors import UnsupportedError
from edge_sdk.quantization._annotate import LAYERS, UNQUANTIZED_LAYERS, has_fixed_weight, layer_name, layers
from edge_sdk.schema.manifest import SkippedLayer

if TYPE_CHECKING:
    from torch.fx import Node

    from edge_sdk.pipeline.values import Captured

_LINEAR = torch.ops.aten.linear.default


def takes(node: Node, group: int = 1) -> bool:
    """Whether a layer is linear with a fixed weight and an input size that is a multiple of ``group``."""
    if node.target is not _LINEAR or not has_fixed_weight(node):
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


def _reason(method: str, node: Node, group: int) -> str:
    if node.target is not _LINEAR:
        return f"{method} takes linear layers only"
    return f"its input size is no multiple of {group}" if has_fixed_weight(node) else "its weight depends on the input"
