"""What ONNX Runtime makes of a graph: which operators it computes in the precision that was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import onnx

from edge_sdk.quantization.base import STATIC_INT8
from edge_sdk.schema.manifest import Fallback, Partition, Rewrite

_MOVES = {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Constant", "Identity", "ReorderInput"}
_CONVERTS = {"QuantizeLinear", "DequantizeLinear", "Cast", "DynamicQuantizeLinear", *_MOVES, "ReorderOutput"}
_INT8_PRODUCTS = ("Conv", "Gemm", "MatMul", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul")


def report(
    models: Mapping[str, onnx.ModelProto],
    method: str,
    delegate: str,
    rewrites: list[Rewrite],
    kept: Collection[str] = (),
) -> Partition:
    """The partition report of all parts together.

    The CPU provider takes every operator. What falls back in an INT8 program is an operator that it
    computes in FP32 because the quantizers around it could not be fused into it.

    Args:
        models: Part name to its graph as ONNX Runtime optimises it.
        method: The quantizer's name.
        delegate: The delegate's name.
        rewrites: The rewrites so far.
        kept: Parts that stay in FP32 on purpose.
    """
    delegated = 0
    left: Counter[tuple[str, str]] = Counter()
    for name, model in models.items():
        for node in model.graph.node:
            op = node.op_type
            if op in _CONVERTS:
                continue
            if method in STATIC_INT8 and name not in kept and op in _INT8_PRODUCTS:
                left[op, "computed in FP32: ONNX Runtime did not fuse it with the quantizers around it"] += 1
            else:
                delegated += 1
    fallback = [Fallback(op=op, count=count, reason=reason) for (op, reason), count in left.most_common()]
    return Partition(delegate=delegate, delegated=delegated, pieces=len(models), fallback=fallback, rewrites=rewrites)
