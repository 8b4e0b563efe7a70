"""A bundle and a report as Rich tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edge_sdk.reporting.engine import engine_rows, layers_told
from edge_sdk.reporting.text import clean, figure, plural, scaled
from edge_sdk.schema.report import Unavailable

if TYPE_CHECKING:
    from edge_sdk.bundle import Bundle
    from edge_sdk.evaluation.result import Evaluation, Judged
    from edge_sdk.schema.manifest import Fallback, Pruning, Rewrite, Selection, SkippedLayer
    from edge_sdk.schema.report import Beside, Prediction, Report, Sustained, Tag

_MOST_LISTED = 12
_TAGS = 3
_LIKELY = 0.01


def facts(title: str, rows: Iterable[tuple[str, str]]) -> RenderableType:
    """A heading over two columns: what it is, and its value.

    Args:
        title: The heading.
        rows: Name and value; the value may hold line breaks and may be untrusted.
    """
    grid = Table.grid(padding=(0, 2), pad_edge=False)
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(clean(name)), Text(clean(value, keep="\n")))
    return Group(Text(clean(title), style="bold cyan"), grid)


def listing(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table with a heading line; its cells may be untrusted."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(cell, keep="\n")) for cell in row))
    return table


def report_view(report: Report) -> RenderableType:
    """A report as a table, with each input's tags in FP32 and on the device before it."""
    views: list[RenderableType] = []
    if report.predictions:
        views += [predictions_view(report.predictions), Text()]
    variant = f" ({report.model.variant})" if report.model.variant else ""
    title = f"{report.model.name}{variant} on {report.target}, {report.quantization.method}"
    return Group(*views, facts(title, _report_rows(report)), _path(report.bundle.path))


def predictions_view(predictions: Sequence[Prediction]) -> Table:
    """Each input with its best tags in FP32 and on the device side by side."""
    return listing(
        ["Input", "FP32", "On the device", "Same first tag"],
        [(p.input, _tags(p.fp32), _tags(p.device), _same_first(p)) for p in predictions],
    )


def bundle_view(bundle: Bundle) -> RenderableType:
    """What compilation gave."""
    manifest = bundle.manifest
    variant = f" ({manifest.model.variant})" if manifest.model.variant else ""
    runtime = manifest.runtime
    partition = manifest.partition
    programs = set(manifest.files) - {manifest.reference, *manifest.extras}
    rows = [
        ("Runtime", f"{runtime.name} {runtime.version}, {runtime.delegate}{_selection(bundle.selection)}"),
        (
            "Size",
            f"{scaled(manifest.size_bytes, 'B')} in {plural(len(programs), 'file')}",
        ),
        ("Work", f"{scaled(manifest.cost.macs, 'MAC')} an inference"),
        ("Delegate", _delegate(partition.delegated, partition.pieces, partition.fallback)),
        ("Rewrites", _rewrites(partition.rewrites)),
        ("Kept precise", _skipped(manifest.quantization.skipped)),
    ]
    if manifest.pruning is not None:
        rows.insert(2, ("Pruned", _pruned(manifest.pruning)))
    if manifest.layers:
        rows.append(("Layers", layers_told(manifest.layers)))
    rows += [("Warning", warning) for warning in partition.warnings]
    if manifest.compile_s:
        rows.append(("Time", ", ".join(f"{stage} {figure(spent)} s" for stage, spent in manifest.compile_s.items())))
    rows += [
        ("Beside it", f"{one.manifest.target} by {one.manifest.runtime.name}: {one.path}") for one in bundle.beside
    ]
    title = f"{manifest.model.name}{variant} for {manifest.target}, {manifest.quantization.method}"
    return Group(facts(title, rows), _path(str(bundle.path)))


_METRICS = (("mAP", "map"), ("Precision", "precision"), ("Recall", "recall"), ("F1", "f1"), ("Best F1", "best_f1"))


def evaluation_view(result: Evaluation) -> RenderableType:
    """The metrics of a tagger in percent, those of the one beside it and the differences in points."""
    taggers = [result.judged, *([result.against] if result.against else [])]
    rows = [[name, *(f"{100 * getattr(one.metrics, key):.2f} %" for one in taggers)] for name, key in _METRICS]
    rows.append(["Best threshold", *(f"{one.metrics.best_threshold:g}" for one in taggers)])
    rows.append(["Size", *(scaled(one.size_bytes, "B") for one in taggers)])
    if result.against is not None:
        for row, (_, key) in zip(rows, _METRICS, strict=False):
            points = 100 * (getattr(result.judged.metrics, key) - getattr(result.against.metrics, key))
            row.append(f"{points:+.2f} points")
        for row in rows[len(_METRICS) :]:
            row.append("")
    columns = ["", *(one.name for one in taggers), *(["Difference"] if result.against else [])]
    about = [("Judged", _judged(result.judged))]
    if result.against is not None:
        about.append(("Against", _judged(result.against)))
    if result.difference is not None:
        low, high = (100 * edge for edge in result.difference.ci95)
        about.append(
            (
                "mAP differs",
                f"by {100 * result.difference.value:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}, of "
                f"{result.difference.resamples:,} resamples of the images",
            )
        )
    about.append(("Data", f"{plural(result.images, 'image')} of the {result.split} split of {result.data}"))
    about.append(("Skipped", "\n".join(_first([one.reason for one in result.skipped])) or "no image"))
    title = f"Tags from a probability of {result.threshold:g} on"
    return Group(listing(columns, rows), Text(), facts(title, about))


def _judged(one: Judged) -> str:
    height, width = one.input_size
    return f"{one.path} ({one.kind}) by {one.runtime} on {one.device}, images of {width} by {height} pixels"


def _pruned(pruning: Pruning) -> str:
    before, after = (scaled(count, "") for count in (pruning.parameters_before, pruning.parameters))
    lines = [f"by {pruning.recipe}: {before.strip()} parameters to {after.strip()}, {pruning.zeros:,} of them zero"]
    return "\n".join([*lines, *(f"{part} stays whole: {why}" for part, why in pruning.whole.items())])


def _report_rows(report: Report) -> list[tuple[str, str]]:
    device, runtime, partition = report.device, report.runtime, report.partition
    rows = [
        ("Device", f"{device.model}, {device.soc}, {device.os}, {device.abi} ({device.uri})"),
        ("Runtime", f"{runtime.name} {runtime.version}, {runtime.delegate}{_selection(runtime.selection)}"),
        ("Latency", _latency(report)),
        ("Throughput", f"{figure(report.throughput_per_s)} inferences/s"),
        ("Memory", _memory(report)),
        ("Energy", _energy(report)),
        ("Numerics", _numerics(report)),
        ("Accuracy", _accuracy(report)),
        ("Size", f"{scaled(report.bundle.size_bytes, 'B')} ({report.bundle.size_bytes:,} bytes)"),
        ("Delegate", _delegate(partition.delegated, partition.pieces, partition.fallback)),
        ("Rewrites", _rewrites(partition.rewrites)),
        ("Kept precise", _skipped(report.quantization.skipped)),
        ("Roofline", _roofline(report)),
        ("Conditions", _conditions(report)),
    ]
    if report.pruning is not None:
        rows.insert(9, ("Pruned", _pruned(report.pruning)))
    if report.sustained is not None:
        rows.insert(3, ("Sustained", _sustained(report.sustained)))
    rows += engine_rows(report)
    rows += [("Beside", _beside(one)) for one in report.beside or []]
    rows += [("Warning", warning) for warning in (*partition.warnings, *report.conditions.warnings)]
    return rows


def _latency(report: Report) -> str:
    time = report.latency
    low, high = time.ci95
    lines = [
        f"{figure(time.p50)} ms median, 95 % interval {figure(low, 4)} to {figure(high, 4)}, "
        f"of {plural(time.samples, 'sample')} after {time.warmup:,} of warm-up",
        f"p90 {figure(time.p90)}, p99 {figure(time.p99)}, mean {figure(time.mean)}, "
        f"deviation {figure(time.std)}, {figure(time.min)} to {figure(time.max)}",
        f"first inference {_or_why(time.first)}, load {_or_why(time.load)}",
    ]
    if len(time.parts) > 1:
        lines.append("parts: " + ", ".join(f"{name} {figure(value)}" for name, value in time.parts.items()))
    return "\n".join(lines)


def _beside(other: Beside) -> str:
    low, high = other.ci95
    return (
        f"{other.target} by {other.runtime} ({other.delegate}) takes {figure(other.times_as_long)} times as long, 95 % "
        f"interval {figure(low)} to {figure(high)}; {figure(other.median_ms)} ms, taking turns on this device"
    )


def _or_why(value: float | Unavailable) -> str:
    return f"unavailable ({value.unavailable})" if isinstance(value, Unavailable) else figure(value)


def _memory(report: Report) -> str:
    memory = report.memory
    if isinstance(memory, Unavailable):
        return f"unavailable: {memory.unavailable}"
    return (
        f"{figure(memory.peak)} MiB peak, {figure(memory.model)} over the runner's own {figure(memory.baseline)} "
        f"({memory.method})"
    )


def _energy(report: Report) -> str:
    energy = report.energy
    if isinstance(energy, Unavailable):
        return f"unavailable: {energy.unavailable}"
    low, high = energy.ci95
    lines = [
        f"{figure(energy.per_inference)} mJ an inference, 95 % interval {figure(low)} to {figure(high)}, "
        f"over {figure(energy.idle_mw)} mW idle, {figure(energy.mean_mw)} mW on the whole",
        f"{plural(energy.samples, 'reading')} ({energy.method})",
    ]
    if energy.inferences_per_battery_percent is not None:
        lines.append(f"{energy.inferences_per_battery_percent:,.0f} inferences for a percent of the battery")
    return "\n".join(lines)


def _sustained(sustained: Sustained) -> str:
    low, high = sustained.ci95
    return (
        f"{figure(sustained.last)} ms median in the last {figure(sustained.edge_s)} s of {figure(sustained.time_s)} s, "
        f"{figure(sustained.first)} ms in the first: {figure(sustained.last_over_first)} times as long, 95 % interval "
        f"{figure(low)} to {figure(high)}"
    )


def _numerics(report: Report) -> str:
    numerics = report.numerics
    if isinstance(numerics, Unavailable):
        return f"unavailable: {numerics.unavailable}"
    sqnr = "equal to the last bit" if numerics.sqnr_db is None else f"SQNR {figure(numerics.sqnr_db)} dB"
    return (
        f"cosine {numerics.cosine:.5f}, largest error {figure(numerics.max_abs_err)}, {sqnr}, "
        f"against {numerics.reference}"
    )


def _accuracy(report: Report) -> str:
    if report.accuracy is None:
        return "not measured: the model brings no evaluation data or no metric"
    return ", ".join(f"{metric} {_metric(value)}" for metric, value in report.accuracy.items())


def _metric(value: float) -> str:
    whole = value >= 1 and value.is_integer()
    return f"{value:,.0f}" if whole else figure(value, 4)


def _selection(selection: Selection | None) -> str:
    if selection is None:
        return ""
    medians = ", ".join(f"{name} {figure(value)} ms" for name, value in selection.medians_ms.items())
    choice = "no choice: " if selection.by == "only" else ""
    return f"\n{choice}{selection.reason}" + (f" ({medians})" if medians else "")


def _delegate(delegated: int, pieces: int, fallback: Sequence[Fallback]) -> str:
    outside = sum(item.count for item in fallback)
    lines = [f"{delegated:,} of {delegated + outside:,} operators in {plural(pieces, 'piece')}"]
    lines += _first([f"outside: {item.op} x {item.count}: {item.reason}" for item in fallback])
    return "\n".join(lines)


def _rewrites(rewrites: Sequence[Rewrite]) -> str:
    lines = [f"{r.name} x {r.count}, outputs moved by {figure(r.max_abs_err, 2)} at most" for r in rewrites]
    return "\n".join(_first(lines)) or "none"


def _skipped(skipped: Sequence[SkippedLayer]) -> str:
    return "\n".join(_first([f"{s.layer} ({s.op}) in {s.precision}: {s.reason}" for s in skipped])) or "no layer"


def _roofline(report: Report) -> str:
    roofline = report.roofline
    work = f"{scaled(roofline.macs, 'MAC')}, {scaled(roofline.bytes, 'B')} moved"
    if isinstance(roofline.bound_ms, Unavailable):
        return f"{work}; bound unavailable: {roofline.bound_ms.unavailable}"
    bound = f"{work}; {figure(roofline.bound_ms)} ms at the target's peaks"
    if isinstance(roofline.fraction, Unavailable):
        return f"{bound}; fraction unavailable: {roofline.fraction.unavailable}"
    return f"{bound}, reached to {roofline.fraction:.0%}"


def _conditions(report: Report) -> str:
    now = report.conditions
    known = {
        "threads": now.threads,
        "processors": None if now.affinity is None else " ".join(map(str, now.affinity)),
        "governor": now.governor,
        "temperature": None if now.temperature_c is None else f"{figure(now.temperature_c)} °C",
        "at the start": None if now.temperature_start_c is None else f"{figure(now.temperature_start_c)} °C",
        "throttled": None if now.throttled is None else ("yes" if now.throttled else "no"),
        "charging": None if now.charging is None else ("yes" if now.charging else "no"),
        "load average": None if now.load_average is None else figure(now.load_average),
    }
    told = ", ".join(f"{name} {value}" for name, value in known.items() if value is not None)
    if now.waited_s:
        told += f", waited {figure(now.waited_s)} s until it was cool"
    untold = ", ".join(name for name, value in known.items() if value is None and name != "at the start")
    return told + (f"\nnot told by the device: {untold}" if untold else "")


def _path(path: str) -> RenderableType:
    """The bundle's path on a line of its own that is never broken, so that it can be copied."""
    return Text(f"\nBundle: {clean(path)}", no_wrap=True, overflow="ignore")


def _tags(tags: Sequence[Tag]) -> str:
    likely = [tag for place, tag in enumerate(tags[:_TAGS]) if place == 0 or tag.score >= _LIKELY]
    return "\n".join(f"{tag.label} {tag.score:.2f}" for tag in likely)


def _same_first(prediction: Prediction) -> str:
    fp32, device = prediction.fp32[:1], prediction.device[:1]
    return "yes" if [tag.label for tag in fp32] == [tag.label for tag in device] else "no"


def _first(lines: list[str]) -> list[str]:
    more = len(lines) - _MOST_LISTED
    return [*lines[:_MOST_LISTED], *([f"and {more} more, in the report's JSON"] if more > 0 else [])]
