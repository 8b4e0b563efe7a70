"""Bundles for the target that a target names beside itself: the CPU of a phone beside its NPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_sdk.errors import ModelError, UnsupportedError
from edge_sdk.pipeline.compile import build
from edge_sdk.pipeline.plan import Plan, plans
from edge_sdk.schema import load_target

if TYPE_CHECKING:
    from edge_sdk.bundle import Bundle
    from edge_sdk.pipeline.compile import Job


def companions(job: Job, plan: Plan) -> list[Bundle]:
    """The same model with the same quantizer for the target beside, one bundle for each runtime that takes it.

    The first is for the runtime of ``plan`` where the other target has it, so that both run in the same
    runner; the others follow in that target's order.

    Args:
        job: The job for the target itself. What it made of the model is used again.
        plan: What it was compiled with.

    Returns:
        At least one bundle; none where the target names no other.

    Raises:
        TargetError: There is no target of that name.
        UnsupportedError: It cannot take the model; the message says why for each runtime.
        ModelError: No runtime takes the model's graph.
    """
    if job.target.beside is None:
        return []
    other = job.for_target(load_target(job.target.beside))
    found, _ = plans(other.target, other.model, other.quantizer, "auto")
    found.sort(key=lambda one: one.rule.name != plan.rule.name)
    bundles: list[Bundle] = []
    for one in found:
        try:
            bundles.append(build(other, one))
        except (ModelError, UnsupportedError) as error:
            if one is found[-1] and not bundles:
                raise
            job.progress(f"beside it, {one.label} for {other.target.name} is left out: {error}")
    return bundles
