"""A device's state as it runs, for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from edge_sdk.reporting.tables import facts, listing
from edge_sdk.reporting.text import clean, figure

if TYPE_CHECKING:
    from edge_sdk.profiling.live import View
    from edge_sdk.schema.reading import GpuReading, Reading

_COLUMNS = {
    "mean": "Mean",
    "median": "Median",
    "min": "Min",
    "max": "Max",
    "std": "Deviation",
    "p95": "p95",
    "p99": "p99",
}
_BAR = 20
_MOST_ROWS = 16
_HOT_C = 85.0
_REASON = 76


def monitor_view(view: View) -> RenderableType:
    """A screen of the monitor."""
    reading, device = view.reading, view.device
    title = f"{device.model}, {device.soc}" if device.soc != "unknown" else device.model
    rows = [
        ("Processors", _processors(reading)),
        ("Clocks", _clocks(reading.cpu_mhz)),
        ("Memory", _memory(reading)),
        *(("GPU", _gpu(gpu)) for gpu in reading.gpus),
        ("Power", _power(reading)),
        ("Temperatures", _temperatures(reading)),
        ("Throttled", {True: "yes", False: "no", None: "not told"}[reading.throttled]),
    ]
    if not reading.gpus:
        rows.append(("GPU", f"none: {_short(reading.unavailable.get('gpu', 'not told'))}"))
    if reading.battery is not None:
        rows.append(("Battery", _battery(reading)))
    return Group(
        facts(f"{title} ({device.uri}), {reading.t_s:.0f} s", rows), Text(), _latency(view.latency, view.bundle)
    )


def monitor_line(view: View) -> str:
    """The same as one line, where nobody looks at a screen."""
    reading = view.reading
    words = [f"{reading.t_s:7.1f} s"]
    if reading.cpu_percent:
        words.append(f"processors {sum(reading.cpu_percent) / len(reading.cpu_percent):.0f} %")
    if reading.memory:
        words.append(f"memory {reading.memory.total_mib - reading.memory.available_mib:,.0f} MiB")
    words += [f"{clean(gpu.name)} {gpu.percent:.0f} %" for gpu in reading.gpus if gpu.percent is not None]
    if reading.power_w is not None:
        words.append(f"{figure(reading.power_w)} W")
    if reading.temperatures_c:
        words.append(f"{max(reading.temperatures_c.values()):.0f} C")
    last = view.latency["last"]
    if last:
        words.append(f"latency {figure(last['median'])} ms, {_fps(last)} FPS")
    return ", ".join(words)


def _latency(figures: Mapping[str, Mapping[str, float | int] | None], bundle: str | None) -> RenderableType:
    last, everything = figures["last"], figures["all"]
    if last is None or everything is None:
        what = "no bundle runs: edge-sdk monitor BUNDLE" if bundle is None else f"{clean(bundle)} is starting"
        return Text(f"Latency  {what}", style="dim")
    rows = [(f"last {last['count']}", *_cells(last)), (f"all {everything['count']:,}", *_cells(everything))]
    return Group(
        Text(f"Latency of {clean(bundle or 'the program')}, ms", style="bold cyan"),
        listing(["Iterations", *_COLUMNS.values(), "FPS"], rows),
    )


def _cells(figures: Mapping[str, float | int]) -> Sequence[str]:
    return [*(figure(figures[name]) for name in _COLUMNS), _fps(figures)]


def _fps(figures: Mapping[str, float | int]) -> str:
    return figure(figures["fps"]) if "fps" in figures else "-"


def _bar(percent: float) -> str:
    filled = round(min(100.0, percent) / 100 * _BAR)
    return "█" * filled + "·" * (_BAR - filled) + f" {percent:3.0f} %"


def _processors(reading: Reading) -> str:
    if not reading.cpu_percent:
        return "not told"
    shown = reading.cpu_percent[:_MOST_ROWS]
    lines = [f"{number:>2} {_bar(percent)}" for number, percent in enumerate(shown)]
    pairs = ["   ".join(lines[place : place + 2]) for place in range(0, len(lines), 2)]
    more = len(reading.cpu_percent) - len(shown)
    return "\n".join([*pairs, *([f"and {more} more"] if more else [])])


def _clocks(mhz: Sequence[float]) -> str:
    return ", ".join(f"{clock:,.0f}" for clock in mhz[:_MOST_ROWS]) + " MHz" if mhz else "not told"


def _memory(reading: Reading) -> str:
    memory = reading.memory
    if memory is None or not memory.total_mib:
        return "not told"
    used = max(0.0, memory.total_mib - memory.available_mib)
    return f"{_bar(100 * used / memory.total_mib)}, {used:,.0f} of {memory.total_mib:,.0f} MiB"


def _gpu(gpu: GpuReading) -> str:
    words = [gpu.name]
    if gpu.percent is not None:
        words.append(_bar(gpu.percent))
    if gpu.memory_used_mib is not None and gpu.memory_total_mib is not None:
        words.append(f"{gpu.memory_used_mib:,.0f} of {gpu.memory_total_mib:,.0f} MiB")
    words += [f"{gpu.mhz:,.0f} MHz"] if gpu.mhz is not None else []
    words += [f"{gpu.temperature_c:.0f} C"] if gpu.temperature_c is not None else []
    words += [f"{figure(gpu.power_w)} W"] if gpu.power_w is not None else []
    return ", ".join(words)


def _power(reading: Reading) -> str:
    if reading.power_w is None:
        return f"not told: {_short(reading.unavailable.get('power', 'no reading yet'))}"
    rails = [f"{name} {figure(watts)} W" for name, watts in list(reading.rails_w.items())[:_MOST_ROWS]]
    return f"{figure(reading.power_w)} W" + (f" ({', '.join(rails)})" if rails else "")


def _temperatures(reading: Reading) -> str:
    if not reading.temperatures_c:
        return f"not told: {_short(reading.unavailable.get('temperatures', 'no sensor'))}"
    hottest = sorted(reading.temperatures_c.items(), key=lambda item: -item[1])[:_MOST_ROWS]
    return ", ".join(f"{name} {value:.0f} C{' (hot)' if value >= _HOT_C else ''}" for name, value in hottest)


def _short(reason: str) -> str:
    """A reason on one line, cut between words; --json has all of it."""
    return textwrap.shorten(reason, _REASON, placeholder=" ...")


def _battery(reading: Reading) -> str:
    battery = reading.battery
    assert battery is not None
    level = "not told" if battery.percent is None else f"{battery.percent:.0f} %"
    return level + {True: ", energy comes in", False: ", nothing charges it", None: ""}[battery.charging]
