"""From a part's ONNX graph to its program for NNAPI."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnxruntime

from edge_sdk.backends.onnxruntime import _rewrites
from edge_sdk.backends.onnxruntime._shield import shield_float_layers
from edge_sdk.backends.onnxruntime.nnapi import _finish
from edge_sdk.backends.onnxruntime.nnapi import _rewrites as own
from edge_sdk.backends.onnxruntime.nnapi._cut import Cut, cut
from edge_sdk.backends.onnxruntime.nnapi._quantized import Context, product_build_fault
from edge_sdk.backends.onnxruntime.nnapi._view import View
from edge_sdk.errors import ModelError, refusals
from edge_sdk.pipeline.values import Graph
from edge_sdk.schema.manifest import Rewrite
from edge_sdk.schema.target import RuntimeRule

COMPILE_OPTIONS = ("android_api", "quantized_edges")
"""Options of a target's rule that are for the compiler; the others are the runner's."""
_DEFAULT_API = 31


def finish(
    graph: Graph, model: onnx.ModelProto, enabled: frozenset[str], rule: RuntimeRule
) -> tuple[onnx.ModelProto, list[Rewrite], Cut]:
    """The program of a part, its rewrites, and what the provider takes of it.

    The program is what ONNX Runtime's basic optimisations make of it, which are those that run before the
    provider is asked; what is reported here is then what the phone does.

    Args:
        graph: The part.
        model: Its graph after quantization; it is not touched.
        enabled: The rewrites that are switched on.
        rule: The target's rule, for the API level and the edges.

    Raises:
        ModelError: ONNX Runtime refuses the graph, or no session would start on the phone.
    """
    if not rule.options.get("quantized_edges", False):
        enabled -= {"nnapi_quantized_edges"}
    model, done = _rewrites.apply(model, graph, enabled, own.TABLE, own.TOLERANCE)
    shield_float_layers(model, by_two=True)
    model = basic(graph.name, model)
    model, more = _rewrites.apply(model, graph, enabled, _finish.TABLE, own.TOLERANCE)
    model = _tidy(basic(graph.name, model))
    found = cut(View(model), int(rule.options.get("android_api", _DEFAULT_API)))
    _refuse_what_no_session_starts_with(graph.name, found)
    return model, [*done, *more], found


def basic(part: str, model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph after ONNX Runtime's basic optimisations, which leave quantizers where they are.

    Raises:
        ModelError: ONNX Runtime refuses it.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]  # some of it is of before the rewrites
    with tempfile.TemporaryDirectory(prefix="edge-sdk-") as folder:
        path = Path(folder) / "basic.onnx"
        _save(part, bare, path, {})
        return onnx.load(path)


def ort_format(part: str, model: onnx.ModelProto) -> bytes:
    """The program in ORT format, for builds of ONNX Runtime that read no ONNX.

    Not optimised further: a fused operator is none that NNAPI takes.

    Raises:
        ModelError: ONNX Runtime refuses it.
    """
    with tempfile.TemporaryDirectory(prefix="edge-sdk-") as folder:
        path = Path(folder) / "program.ort"
        _save(part, model, path, {"session.save_model_format": "ORT"})
        return path.read_bytes()


def _save(part: str, model: onnx.ModelProto, path: Path, entries: Mapping[str, str]) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    with refusals("ONNX Runtime", f"part '{part}'"):
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drops the operator sets that the graph uses nothing of: ONNX Runtime writes all that it knows."""
    used = {node.domain for node in model.graph.node} | {""}
    kept = [entry for entry in model.opset_import if (entry.domain if entry.domain != "ai.onnx" else "") in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model


def _refuse_what_no_session_starts_with(part: str, found: Cut) -> None:
    for unit, reason in found.left:
        node = found.view.nodes[unit.target]
        if (fault := product_build_fault(Context(unit, node, found.view, _DEFAULT_API))) == reason:
            raise ModelError(
                f"part '{part}': {node.op_type} '{node.name or node.output[0]}' passes the check of ONNX Runtime's "
                f"NNAPI provider, and no session starts with it: {fault}. Compile without --no-rewrites, so that it "
                "becomes a convolution."
            )
