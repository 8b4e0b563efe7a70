"""How a device holds up: the last minute of a long run against the first."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import exp, log, pi, sqrt
from statistics import fmean, median
from typing import TYPE_CHECKING

from edge_sdk.errors import DeviceError
from edge_sdk.profiling import _blocks
from edge_sdk.schema.report import Sustained, SustainedWindow

if TYPE_CHECKING:
    from edge_sdk.schema.messages import Power, Window

MIN_WINDOWS = 6
_EDGE_S = 60.0
_MEDIAN_OVER_MEAN = sqrt(pi / 2)
"""How much less sharply the median is known than the mean, for normal values."""


def sustained(windows: Sequence[Window], power: Sequence[Power]) -> Sustained | None:
    """What became of the latency, or None where there are fewer windows than `MIN_WINDOWS`.

    Args:
        windows: The stretches of the sustained part, in the order of time.
        power: The readings of a power sensor; those of the phase ``sustain`` are used.

    Raises:
        DeviceError: The windows cannot be true.
    """
    if len(windows) < MIN_WINDOWS:
        return None
    ends = [window.end_ns / 1e9 for window in windows]
    if any(b <= a for a, b in pairwise(ends)) or not all(window.p50_ns for window in windows):
        raise DeviceError("the runner's windows of sustained running are not in the order of time, or took no time.")
    # The first window's start is not told; it is as long as the next.
    begin = 2 * ends[0] - ends[1]
    total = ends[-1] - begin
    edge = min(_EDGE_S, total / 3)
    first = [window.p50_ns / 1e6 for window, end in zip(windows, ends, strict=True) if end - begin <= edge * 1.001]
    last = [window.p50_ns / 1e6 for window, end in zip(windows, ends, strict=True) if ends[-1] - end < edge * 0.999]
    early, late = median(first), median(last)
    ratio = late / early
    shares = [(first, -1 / len(first)), (last, 1 / len(last))]
    low, high = _blocks.interval95(
        log(ratio),
        [
            _blocks.deviations([log(value) for value in part], [share] * len(part), stream)
            for stream, (part, share) in enumerate(shares)
        ],
    )
    low, high = (log(ratio) + _MEDIAN_OVER_MEAN * (edge_of - log(ratio)) for edge_of in (low, high))
    return Sustained(
        time_s=total,
        edge_s=edge,
        first=early,
        last=late,
        last_over_first=ratio,
        ci95=(exp(low), exp(high)),
        windows=[
            SustainedWindow(
                end_s=end - begin,
                runs=window.runs,
                p50=window.p50_ns / 1e6,
                p90=window.p90_ns / 1e6,
                max=window.max_ns / 1e6,
                temperature_c=window.temperature_c,
                cpu_mhz=window.cpu_mhz,
                power_mw=mean_mw,
                throttled=window.throttled,
            )
            for window, end, mean_mw in zip(windows, ends, _powers(power, [begin, *ends]), strict=True)
        ],
    )


def _powers(messages: Sequence[Power], edges: Sequence[float]) -> list[float | None]:
    """The mean power in milliwatts between each two times, None where nothing was read there."""
    found = [message for message in messages if message.phase == "sustain"]
    pairs = sorted((t / 1e9, value) for message in found for t, value in zip(message.t_ns, message.value, strict=True))
    if found and found[0].unit == "uJ":
        # A counter's slope between two readings is the power in their middle; a microjoule a second is a microwatt.
        pairs = [
            ((before[0] + after[0]) / 2, (after[1] - before[1]) / 1e3 / (after[0] - before[0]))
            for before, after in zip(pairs, pairs[1:], strict=False)
            if after[0] > before[0]
        ]
    means: list[float | None] = []
    place = 0
    for low, high in zip(edges, edges[1:], strict=False):
        values = []
        while place < len(pairs) and pairs[place][0] <= high:
            if pairs[place][0] > low:
                values.append(pairs[place][1])
            place += 1
        means.append(fmean(values) if values else None)
    return means
