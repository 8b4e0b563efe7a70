"""What TensorRT makes of a graph: which layers compute in the precision that was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from edge_sdk.quantization.base import STATIC_INT8
from edge_sdk.schema.manifest import EngineLayer, Fallback, Partition, Rewrite

if TYPE_CHECKING:
    import onnx

    from edge_sdk.pipeline.values import Quantized

_CONVERTS = {"QuantizeLinear", "DequantizeLinear", "Cast", "Constant", "Identity"}
_PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def report(
    models: Mapping[str, onnx.ModelProto],
    layers: Iterable[EngineLayer],
    quantized: Quantized,
    delegate: str,
    rewrites: list[Rewrite],
) -> Partition:
    """The partition report of all parts together.

    TensorRT takes a whole graph or refuses it. What falls back in an INT8 engine is a product between quantizers that
    no layer computes from integers; before an engine is built nobody knows.

    Args:
        models: Part name to its model.
        layers: Of the engines, none where the device builds them.
        quantized: What the models were made of.
        delegate: The delegate's name.
        rewrites: The rewrites so far.
    """
    kept = {graph.name for graph in quantized.graphs if graph.keeps_float}
    of_node: dict[tuple[str, str], list[EngineLayer]] = {}
    for layer in layers:
        for name in layer.nodes:
            of_node.setdefault((layer.part, name), []).append(layer)
    delegated = 0
    left: Counter[tuple[str, str]] = Counter()
    for part, model in models.items():
        integers = quantized.quantization.method in STATIC_INT8 and part not in kept
        dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
        for node in model.graph.node:
            if node.op_type in _CONVERTS:
                continue
            delegated += 1
            if not integers or node.op_type not in _PRODUCTS or not set(node.input[:2]) <= dequantized:
                continue
            ours = of_node.get((part, node.name), [])
            if ours and not any("int8" in layer.inputs for layer in ours):
                types = "/".join(sorted({kind for layer in ours for kind in layer.inputs}))
                left[node.op_type, f"TensorRT computes it from {types}, not from INT8"] += 1
    fallback = [Fallback(op=op, count=count, reason=reason) for (op, reason), count in left.most_common()]
    delegated -= sum(left.values())
    there = "the engine is built on the device when it first runs there; its layers are in the report"
    return Partition(
        delegate=delegate,
        delegated=delegated,
        pieces=len(models),
        fallback=fallback,
        rewrites=rewrites,
        warnings=[] if of_node else [there],
    )
