"""ONNX Runtime's own graph optimisation, done ahead of time."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnxruntime

from edge_sdk.errors import refusals

if TYPE_CHECKING:
    from edge_sdk.schema.target import Target


def optimise(part: str, model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph as ONNX Runtime's CPU provider runs it, but for layouts that suit one processor only.

    Raises:
        ModelError: ONNX Runtime refuses the graph.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory(prefix="edge-sdk-") as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        with refusals("ONNX Runtime", f"part '{part}'"):
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def same_machine(target: Target) -> bool:
    """Whether the target's processors are of this machine's kind."""
    from edge_sdk.support import Machine

    return Machine.this().abi in target.abi
