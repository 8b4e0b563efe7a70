"""What a report and a bundle say of an engine: its layers, and the steps of an inference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edge_sdk.reporting.text import figure, plural, scaled

if TYPE_CHECKING:
    from edge_sdk.schema.manifest import EngineLayer
    from edge_sdk.schema.report import Engine, Gpu, LayerTime, Report

_MOST_LISTED = 12
_LONGEST_NAME = 60


def engine_rows(report: Report) -> Iterator[tuple[str, str]]:
    """Rows of the report's table; none where nothing is told."""
    if report.gpu is not None and report.gpu.steps is not None:
        yield "Steps", _steps(report.gpu)
    if report.engine is not None:
        yield "Engine", _engine(report.engine)
        if report.engine.layers:
            yield "Layers", _times(report.engine.layers)
        for left in report.engine.fallback:
            yield "Not on the DLA", f"{left.count} of {left.op}: {left.reason}"


def layers_told(layers: Sequence[EngineLayer]) -> str:
    """How many layers an engine has, and from which types they compute."""
    kinds = Counter("/".join(sorted(layer.inputs)) for layer in layers)
    told = ", ".join(
        f"{count} from {kind}" if kind else f"{count} without a tensor" for kind, count in kinds.most_common()
    )
    return f"{plural(len(layers), 'layer')}: {told}"


def _steps(gpu: Gpu) -> str:
    steps = gpu.steps
    assert steps is not None
    return (
        f"{figure(steps.host_to_device)} ms to the GPU, {figure(steps.compute)} computing, "
        f"{figure(steps.device_to_host)} back; {figure(steps.enqueue)} to enqueue"
    )


def _engine(engine: Engine) -> str:
    built = "built before" if engine.build_s is None else f"built in {figure(engine.build_s)} s"
    return f"{engine.builder}, {scaled(engine.size_bytes, 'B')}, {built}"


def _times(layers: Sequence[LayerTime]) -> str:
    """The layers that take longest, with their share of all that were timed."""
    timed = [(layer.ms, layer) for layer in layers if layer.ms is not None]
    total = sum(ms for ms, _ in timed)
    if not total:
        return layers_told(layers)
    lines = [
        f"{figure(ms)} ms, {100 * ms / total:.0f} %: {_named(layer)}"
        for ms, layer in sorted(timed, key=lambda pair: -pair[0])[:_MOST_LISTED]
    ]
    rest = len(timed) - len(lines)
    return "\n".join([layers_told(layers), *lines, *([f"and {rest} more"] if rest > 0 else [])])


def _named(layer: LayerTime) -> str:
    name = layer.name if len(layer.name) <= _LONGEST_NAME else layer.name[: _LONGEST_NAME - 3] + "..."
    types = f", {'/'.join(layer.inputs)} to {'/'.join(layer.outputs)}" if layer.inputs else ""
    return f"{name} ({layer.kind or 'no type told'}{types})"
