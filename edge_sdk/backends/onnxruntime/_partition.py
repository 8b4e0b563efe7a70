"""What ONNX Runtime makes of a graph: which operators it computes in the precision that was asked for."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnxruntime

from edge_sdk.errors import ModelError
from edge_sdk.schema.manifest import Fallback, Partition, Rewrite

_MOVES = {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Constant", "Identity", "ReorderInput"}
_CONVERTS = {"QuantizeLinear", "DequantizeLinear", "Cast", "DynamicQuantizeLinear", *_MOVES, "ReorderOutput"}
_INT8_PRODUCTS = ("Conv", "Gemm", "MatMul", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul")


def report(models: Mapping[str, onnx.ModelProto], method: str, delegate: str, rewrites: list[Rewrite]) -> Partition:
    """The partition report of all parts together, read off the graphs as ONNX Runtime optimises them.

    The CPU provider takes every operator. What falls back in an INT8 program is an operator that it
    computes in FP32 because the quantizers around it could not be fused into it.

    Raises:
        ModelError: ONNX Runtime refuses a graph.
    """
    delegated = 0
    left: Counter[tuple[str, str]] = Counter()
    for name, model in models.items():
        for node in _optimised(name, model).graph.node:
            op = node.op_type
            if op in _CONVERTS:
                continue
            if method == "int8-static" and op in _INT8_PRODUCTS:
                left[op, "computed in FP32: ONNX Runtime did not fuse it with the quantizers around it"] += 1
            else:
                delegated += 1
    fallback = [Fallback(op=op, count=count, reason=reason) for (op, reason), count in left.most_common()]
    return Partition(
        delegate=delegate, delegated=delegated, pieces=len(models), fallback=fallback, rewrites=rewrites
    )


def _optimised(part: str, model: onnx.ModelProto) -> onnx.ModelProto:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory(prefix="edge-sdk-") as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        try:
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises classes of its own C++ module
            first = (str(error).strip().splitlines() or ["no message"])[0][:300]
            raise ModelError(f"ONNX Runtime refuses part '{part}': {first}") from error
        return onnx.load(options.optimized_model_filepath)
