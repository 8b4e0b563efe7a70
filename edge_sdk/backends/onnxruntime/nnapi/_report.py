"""The partition report of a program for NNAPI, and the warning where the CPU would probably win."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from edge_sdk.backends.onnxruntime.nnapi._cut import Cut
from edge_sdk.backends.onnxruntime.nnapi._finish import is_edge
from edge_sdk.backends.onnxruntime.nnapi._units import DEQUANTIZE, QUANTIZE, Unit
from edge_sdk.schema.manifest import Fallback, Partition, Rewrite

MOST_PIECES = 2
"""Source: ONNX Runtime, tools/python/util/mobile_helpers/usability_checker.py: with more than two partitions the cost
of copying "is almost guaranteed to outweigh the benefit", and two must cover three quarters."""
LEAST_SHARE = 0.75
_CASES = "onnxruntime#7859: 71 s by NNAPI against 3 s on the CPU; #9054: 17 pieces, slower than the CPU"
_EDGE = "on the CPU on purpose: NNAPI gets and gives UINT8"
_PRODUCTS = {"Conv": (1, 2), "QLinearConv": (3, 2), "Gemm": (1, 1), "MatMul": (1, 1), "QLinearMatMul": (3, 1)}


def report(cuts: Mapping[str, Cut], delegate: str, rewrites: list[Rewrite]) -> Partition:
    """The partition report of all parts together.

    Args:
        cuts: Part name to what the provider takes of it.
        delegate: The delegate's name.
        rewrites: The rewrites so far.
    """
    delegated, pieces, warnings = 0, 0, []
    left: Counter[tuple[str, str]] = Counter()
    for part, cut in cuts.items():
        pieces += len(cut.pieces)
        delegated += sum(_computes(cut, unit) for piece in cut.pieces for unit in piece)
        for unit, reason in cut.left:
            left[cut.view.nodes[unit.target].op_type, _EDGE if is_edge(cut.view, unit) else reason] += 1
        if warning := _warning(part if len(cuts) > 1 else "", cut):
            warnings.append(warning)
    fallback = [Fallback(op=op, count=count, reason=reason) for (op, reason), count in left.most_common()]
    return Partition(
        delegate=delegate, delegated=delegated, pieces=pieces, fallback=fallback, rewrites=rewrites, warnings=warnings
    )


def _warning(part: str, cut: Cut) -> str | None:
    """What speaks for the CPU, None where nothing does."""
    name = f"part '{part}': " if part else ""
    measure = "Measure the CPU bundle beside it."
    count = len(cut.pieces)
    taken = [unit for piece in cut.pieces for unit in piece]
    if not taken:
        return f"{name}NNAPI takes no operator of it, so that it runs on the CPU whole."
    left = [unit for unit, _ in cut.left if not is_edge(cut.view, unit)]
    inside, outside = (sum(_macs(cut, unit) for unit in units) for units in (taken, left))
    share = inside / (inside + outside) if inside + outside else len(taken) / (len(taken) + len(left))
    if count > MOST_PIECES:
        return (
            f"{name}the CPU will probably be faster: NNAPI cuts the graph into {count} pieces, and with more than "
            f"{MOST_PIECES} copying between them costs more than the NPU saves ({_CASES}). {measure}"
        )
    if share < LEAST_SHARE:
        return (
            f"{name}the CPU will probably be faster: {1 - share:.0%} of the multiply-accumulates stay on the CPU, more "
            f"than {1 - LEAST_SHARE:.0%}. {measure}"
        )
    return None


def _computes(cut: Cut, unit: Unit) -> bool:
    """Whether a unit is an operator; a quantizer alone only says what its neighbours do."""
    return cut.view.nodes[unit.target].op_type not in (QUANTIZE, DEQUANTIZE)


def _macs(cut: Cut, unit: Unit) -> int:
    """Multiply-accumulates of a convolution or product, 0 for all else."""
    node = cut.view.nodes[unit.target]
    if node.op_type not in _PRODUCTS:
        return 0
    at, kind = _PRODUCTS[node.op_type]
    weight, result = cut.view.shape(node.input[at]), cut.view.shape(node.output[0])
    if weight is None or result is None:
        return 0
    if kind == 2:
        return math.prod(result) * math.prod(weight[1:])
    return math.prod(result) * (math.prod(weight[-2:]) // max(result[-1], 1))
