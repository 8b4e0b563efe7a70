"""The time that a model needs at the very least, by the target's peak figures.

Source: Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_sdk.schema.report import Roofline, Unavailable

if TYPE_CHECKING:
    from edge_sdk.schema._base import Precision
    from edge_sdk.schema.manifest import Cost
    from edge_sdk.schema.target import ComputeUnit, Target

OPS_PER_MAC = 2


def bound(cost: Cost, target: Target, unit: ComputeUnit, precision: Precision) -> float | Unavailable:
    """The larger of computing time and memory time, in milliseconds.

    Args:
        cost: Of one inference.
        target: Whose memory it is.
        unit: Which computes.
        precision: In which it computes.
    """
    peak = unit.peak_gops.get(precision)
    if peak is None:
        return Unavailable(unavailable=f"target '{target.name}' gives no {precision} peak for its unit '{unit.name}'")
    if not peak.value:
        return Unavailable(unavailable=f"target '{target.name}', {precision} peak of '{unit.name}': {peak.source}")
    bandwidth = target.memory.bandwidth_gb_s
    if not bandwidth.value:
        return Unavailable(unavailable=f"target '{target.name}', memory bandwidth: {bandwidth.source}")
    compute_s = OPS_PER_MAC * cost.macs / (peak.value * 1e9)
    memory_s = _bytes(cost) / (bandwidth.value * 1e9)
    return 1e3 * max(compute_s, memory_s)


def roofline(cost: Cost, bound_ms: float | Unavailable, p50_ms: float) -> Roofline:
    """The report's ``roofline``.

    Args:
        cost: Of one inference.
        bound_ms: What `bound` gave, or why there is none.
        p50_ms: The measured median.
    """
    fraction = bound_ms if isinstance(bound_ms, Unavailable) else bound_ms / p50_ms
    return Roofline(macs=cost.macs, bytes=_bytes(cost), bound_ms=bound_ms, fraction=fraction)


def _bytes(cost: Cost) -> int:
    return cost.weight_bytes + cost.activation_bytes
