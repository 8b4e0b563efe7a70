"""Parts that stay in FP32 whatever the quantizer, because the model says so: quantizers never see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_sdk.errors import UnsupportedError
from edge_sdk.pipeline.values import Captured, Quantized
from edge_sdk.schema.manifest import SkippedLayer

if TYPE_CHECKING:
    from edge_sdk.models.base import Sample
    from edge_sdk.quantization.base import Budget


def without(captured: Captured, method: str) -> Captured:
    """The parts that a quantizer may change.

    Raises:
        UnsupportedError: All parts stay in FP32.
    """
    graphs = tuple(graph for graph in captured.graphs if not graph.keeps_float)
    if not graphs:
        why = "; ".join(f"'{graph.name}': {graph.keeps_float}" for graph in captured.graphs)
        raise UnsupportedError(f"{method} has nothing to quantize: every part stays in FP32 ({why}). Use fp32.")
    return replace(captured, graphs=graphs)


def merged(captured: Captured, done: Quantized) -> Quantized:
    """What was quantized, with the parts that stay in FP32 in their places and listed."""
    by_name = {graph.name: graph for graph in done.graphs}
    skipped = [*done.quantization.skipped, *layers_of(captured)]
    return replace(
        done,
        graphs=tuple(by_name.get(graph.name, graph) for graph in captured.graphs),
        quantization=done.quantization.model_copy(update={"skipped": skipped}),
    )


def layers_of(captured: Captured) -> list[SkippedLayer]:
    """The layers of the parts that stay in FP32, or the part itself where it has none."""
    from edge_sdk.quantization._annotate import LAYERS, UNQUANTIZED_LAYERS, layer_name, layers

    listed = []
    for graph in captured.graphs:
        if not graph.keeps_float:
            continue
        assert graph.torch is not None
        found = layers(graph.torch, LAYERS | UNQUANTIZED_LAYERS)
        # A layer that is called several times is one layer.
        named = dict((f"{graph.name}.{layer_name(node)}", str(node.target)) for node in found) or {graph.name: "part"}
        listed += [
            SkippedLayer(layer=name, op=op, precision="fp32", reason=graph.keeps_float) for name, op in named.items()
        ]
    return listed


def with_outputs(budget: Budget, captured: Captured) -> Budget:
    """A budget that also judges the parts that stay in FP32, whose outputs are always the same."""
    from edge_sdk.quantization._sensitivity import outputs_of

    parts = replace(captured, graphs=tuple(graph for graph in captured.graphs if graph.keeps_float))
    if not parts.graphs:
        return budget
    modules = {graph.name: graph.torch for graph in parts.graphs}
    own = outputs_of(parts, modules, budget.samples)

    def drop(outputs: Sequence[Sample], fp32: Sequence[Sample]) -> float:
        return budget.drop(*([{**a, **b} for a, b in zip(some, own, strict=True)] for some in (outputs, fp32)))

    return replace(budget, drop=drop)
