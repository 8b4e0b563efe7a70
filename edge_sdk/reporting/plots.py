"""Pictures of a report."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk._files import write_atomic
from edge_sdk.errors import MissingDependencyError

if TYPE_CHECKING:
    from edge_sdk.schema.report import Sustained, SustainedWindow

_LATENCY, _HEAT, _POWER, _THROTTLED = "#1f5fa8", "#c2472b", "#3a7d44", "#f3d9b1"


def check_plots() -> None:
    """Checks that pictures can be drawn, before anything is measured for them.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise MissingDependencyError(
            "the picture of a sustained run needs Matplotlib, which is not installed. Run: "
            "pip install 'edge-sdk[report]', or leave --out out."
        )


def sustained_plot(sustained: Sustained, path: Path, title: str) -> None:
    """Draws latency, temperature and power over time to an SVG or PNG file; what was not told has no curve.

    Args:
        sustained: What to draw.
        path: The file; its ending tells the format.
        title: The heading.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
        StorageError: The file cannot be written.
    """
    check_plots()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    windows = sustained.windows
    series = [("latency, ms", _LATENCY, [window.p50 for window in windows])]
    series += _told("temperature, °C", _HEAT, [window.temperature_c for window in windows])
    series += _told("power, W", _POWER, [None if w.power_mw is None else w.power_mw / 1e3 for w in windows])
    figure = Figure(figsize=(9, 1.4 + 2.1 * len(series)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(series), 1, sharex=True, squeeze=False)[:, 0]
    minutes = sustained.time_s > 180
    times = [window.end_s / (60 if minutes else 1) for window in windows]
    for axis, (name, colour, values) in zip(axes, series, strict=True):
        _curve(axis, times, values, name, colour)
        _shade_throttling(axis, times, windows)
    _latency_details(axes[0], times, sustained, 60 if minutes else 1)
    axes[-1].set_xlabel("minutes" if minutes else "seconds")
    axes[-1].set_xlim(0, times[-1])
    figure.suptitle(_heading(sustained, title), x=0.01, ha="left", fontsize=10)
    buffer = io.BytesIO()
    kind = path.suffix.lstrip(".") or "svg"
    figure.savefig(buffer, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else None)
    write_atomic(path, buffer.getvalue())


def _told(name: str, colour: str, values: Sequence[float | None]) -> list[tuple[str, str, list[Any]]]:
    return [(name, colour, list(values))] if any(value is not None for value in values) else []


def _curve(axis, times: Sequence[float], values: Sequence[float | None], name: str, colour: str) -> None:
    nan = float("nan")
    axis.plot(times, [nan if value is None else value for value in values], color=colour, linewidth=1.3)
    axis.set_ylabel(name)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _latency_details(axis, times: Sequence[float], sustained: Sustained, unit: float) -> None:
    """The band up to the 90th percentile, and the two stretches that are compared."""
    windows = sustained.windows
    low, high = [window.p50 for window in windows], [window.p90 for window in windows]
    axis.fill_between(times, low, high, color=_LATENCY, alpha=0.2, linewidth=0, label="50th to 90th percentile")
    edge = sustained.edge_s / unit
    for begin, end, value in ((0, edge, sustained.first), (times[-1] - edge, times[-1], sustained.last)):
        axis.hlines(value, begin, end, color="black", linewidth=1.4, linestyle=(0, (4, 2)))
    axis.plot([], [], color="black", linestyle=(0, (4, 2)), label="median of the first and the last stretch")
    axis.set_ylim(0, 1.15 * sorted(high)[int(0.98 * (len(high) - 1))])
    axis.legend(loc="lower right", fontsize=8, frameon=False)


def _shade_throttling(axis, times: Sequence[float], windows: Sequence[SustainedWindow]) -> None:
    before = 0.0
    for time, window in zip(times, windows, strict=True):
        if window.throttled:
            axis.axvspan(before, time, color=_THROTTLED, alpha=0.45, linewidth=0, zorder=0)
        before = time


def _heading(sustained: Sustained, title: str) -> str:
    low, high = sustained.ci95
    lines = [
        title,
        f"the last {sustained.edge_s:.3g} s over the first: {sustained.last_over_first:.3f} times as long "
        f"(95 % interval {low:.3f} to {high:.3f})",
    ]
    absent = [
        name
        for name, values in (
            ("temperature", [window.temperature_c for window in sustained.windows]),
            ("power", [window.power_mw for window in sustained.windows]),
        )
        if all(value is None for value in values)
    ]
    if absent:
        lines.append(f"not told by the device: {', '.join(absent)}")
    if any(window.throttled for window in sustained.windows):
        lines.append("shaded: the processor throttled")
    return "\n".join(lines)
