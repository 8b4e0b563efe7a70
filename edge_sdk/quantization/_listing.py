"""Which layers a static method leaves in float, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edge_sdk.quantization._annotate import UNQUANTIZED_LAYERS, is_integer_embedding, layer_name, layers, why_not
from edge_sdk.schema.manifest import SkippedLayer

if TYPE_CHECKING:
    from torch.fx import GraphModule


def skipped_layers(part: str, prepared: GraphModule, method: str, chosen: Mapping[str, str]) -> list[SkippedLayer]:
    """The layers of a prepared graph that stay in float.

    Args:
        part: The part's name.
        prepared: The graph with quantizers in it.
        method: The quantizer's name, for messages.
        chosen: Layers that were left in float on purpose, and why.
    """
    listed = []
    for node in layers(prepared):
        name = layer_name(node)
        if (reason := chosen.get(name) or why_not(node)) is not None:
            listed.append((f"{part}.{name}", node, reason))
    for node in layers(prepared, UNQUANTIZED_LAYERS):
        if is_integer_embedding(node):
            continue
        listed.append((f"{part}.{layer_name(node)}", node, f"{method} has no rule for this operator"))
    return [
        SkippedLayer(layer=name, op=str(node.target), precision="fp32", reason=reason) for name, node, reason in listed
    ]
