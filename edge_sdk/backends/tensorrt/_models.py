"""From a part's graph to the strongly typed ONNX model that TensorRT takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx

from edge_sdk.backends._onnx_export import export
from edge_sdk.backends.onnxruntime import _rewrites
from edge_sdk.quantization._onnx import nothing_to_quantize, to_fp16
from edge_sdk.quantization.base import STATIC_INT8, Data

if TYPE_CHECKING:
    from edge_sdk.pipeline.values import Graph, Quantized
    from edge_sdk.schema.manifest import Rewrite, SkippedLayer
    from edge_sdk.schema.target import RuntimeRule

OPSET = 19
"""The first whose Q/DQ operators take FP16, and one that TensorRT 10.0 knows."""
_BF16_OPSET = 22
"""The first whose convolutions take BF16."""
_ON_ONNX = frozenset({"fold_padding"})


def prepare(
    graph: Graph, quantized: Quantized, rule: RuntimeRule
) -> tuple[onnx.ModelProto, list[Rewrite], list[SkippedLayer]]:
    """The model of a part, the rewrites that were applied, and the layers that the quantizer left alone.

    Around the integers of static INT8 the graph is cast to FP16 where the target allows it.

    Raises:
        ModelError: The exporter refuses the graph.
        UnsupportedError: The quantizer has nothing to do.
    """
    from edge_sdk.backends.tensorrt import TensorRtBackend

    method = quantized.quantization.method
    opset = _BF16_OPSET if method == "bf16" else OPSET
    model = graph.onnx if graph.onnx is not None else export(graph, opset, "Try another runtime or quantizer.")
    # ONNX Runtime, which checks each rewrite, computes no convolutions in BF16.
    enabled = frozenset() if method == "bf16" else quantized.enabled & _ON_ONNX
    model, applied = _rewrites.apply(model, graph, enabled)
    skipped: list[SkippedLayer] = []
    if quantized.on_onnx is not None and not graph.keeps_float:
        data = Data(calibration=quantized.calibration, rules=TensorRtBackend.int8_rules)
        before = model
        model, skipped = quantized.on_onnx.apply_onnx(model, graph.name, data)
        if model is before:
            raise nothing_to_quantize(method)
    if _is_cast(graph, quantized, rule):
        model, _ = to_fp16(_with_half_quantizers(model), graph.name)
    _sort(model)
    return model, applied, skipped


def in_their_precision(skipped: Sequence[SkippedLayer], quantized: Quantized, rule: RuntimeRule) -> list[SkippedLayer]:
    """The layers that a quantizer left alone, with the precision that the cast around the integers gave them."""
    cast = tuple(f"{graph.name}." for graph in quantized.graphs if _is_cast(graph, quantized, rule))
    return [
        layer.model_copy(update={"precision": "fp16"}) if layer.layer.startswith(cast) and cast else layer
        for layer in skipped
    ]


def _is_cast(graph: Graph, quantized: Quantized, rule: RuntimeRule) -> bool:
    integers = quantized.quantization.method in STATIC_INT8
    return integers and not graph.keeps_float and "fp16" in rule.precisions


def _with_half_quantizers(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with operators that take scales in FP16; ONNX files may come with older ones."""
    versions = {one.domain: one.version for one in model.opset_import}
    if versions.get("", OPSET) >= OPSET:
        return model
    return onnx.version_converter.convert_version(model, OPSET)


def _sort(model: onnx.ModelProto) -> None:
    """Puts each node behind those that it reads from; the converter to FP16 appends its casts at the end."""
    nodes = list(model.graph.node)
    made = {name for node in nodes for name in node.output}
    ready, ordered = set(), []
    while nodes:
        later = []
        for node in nodes:
            if all(name in ready or name not in made for name in node.input):
                ordered.append(node)
                ready.update(node.output)
            else:
                later.append(node)
        assert len(later) < len(nodes), "a graph without cycles"
        nodes = later
    copied = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del model.graph.node[:]
    model.graph.node.extend(copied)
