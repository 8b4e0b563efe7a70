"""The energy of an inference: what lies above idle in the timed window, from the readings of a power sensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from edge_sdk.profiling import _blocks
from edge_sdk.schema.report import Energy, Unavailable

if TYPE_CHECKING:
    from edge_sdk.schema.messages import Power, PowerFacts

MIN_TIMED, MIN_IDLE = 10, 5
"""Fewest readings of the timed part and of idling; a gauge that shows the same for a while counts once."""
_MJ_PER_MWH = 3600.0
_EDGE_PERIODS = 2.5
"""So many sampling periods may lie between the window's edge and the next reading."""


def energy(
    messages: Sequence[Power],
    facts: PowerFacts | Unavailable,
    start_ms: Sequence[float],
    samples_ms: Sequence[float],
    *,
    charging: bool | None,
    battery_mwh: float | None,
) -> Energy | Unavailable:
    """Millijoules of one inference over idle, with its 95 % interval, or why there is no such figure.

    Power is integrated by the trapezoid rule over exactly the timed window, between readings by
    straight lines; a counter of energy is read at the window's edges the same way. The interval
    holds the uncertainty of both means, of the load and of idling; see `_blocks`.

    Args:
        messages: The readings, by phase.
        facts: Which sensor, or why there is none.
        start_ms: When each timed iteration began.
        samples_ms: How long each took.
        charging: Whether the battery was being charged, None where that is not told.
        battery_mwh: The battery's capacity, None where it is not stated.
    """
    if isinstance(facts, Unavailable):
        return facts
    if charging and facts.sensor in ("battery", "power_supply"):
        return _no("the battery was being charged, so that its figures are not what the device used. Unplug it")
    begin, end = start_ms[0] / 1e3, (start_ms[-1] + samples_ms[-1]) / 1e3
    idle, timed = (_Trace.of(messages, phase) for phase in ("idle", "timed"))
    if idle is None:
        return _no("idle power was not sampled before the run, so that there is nothing to compare with")
    if timed is None:
        return _no(f"the sensor {facts.sensor} gave no reading during the timed part")
    if problem := _problem(idle, timed, begin, end):
        return _no(f"{problem} (sensor {facts.sensor})")
    load_mj, load_mw = timed.integral(begin, end), timed.powers(begin, end)
    at_rest, at_work = _blocks.mean(idle.powers()), _blocks.mean(load_mw)
    span, count = end - begin, len(samples_ms)
    net_mj = load_mj - at_rest.value * span
    if net_mj <= 0:
        return _no(
            f"the device drew {load_mj / span:.4g} mW while it ran and {at_rest.value:.4g} mW before, so that nothing "
            f"is left above idle (sensor {facts.sensor}). Let it come to rest first, and run longer"
        )
    half = _blocks.half_width(at_work, at_rest) * span
    percent = battery_mwh * _MJ_PER_MWH / 100 / (load_mj / count) if battery_mwh else None
    return Energy(
        per_inference=net_mj / count,
        ci95=((net_mj - half) / count, (net_mj + half) / count),
        idle_mw=at_rest.value,
        mean_mw=load_mj / span,
        samples=len(load_mw),
        method=_method(facts),
        inferences_per_battery_percent=percent,
    )


class _Trace:
    """The readings of one phase: seconds, and milliwatts or millijoules so far."""

    def __init__(self, unit: Literal["mW", "uJ"], times, values) -> None:
        self.unit, self.times, self.values = unit, times, values

    @classmethod
    def of(cls, messages: Sequence[Power], phase: str) -> _Trace | None:
        """A phase's readings in the order of time, None where there are none."""
        import numpy as np

        found = [message for message in messages if message.phase == phase and message.t_ns]
        if not found:
            return None
        times = np.array([t for message in found for t in message.t_ns], dtype=float) / 1e9
        values = np.array([value for message in found for value in message.value], dtype=float)
        order = np.argsort(times, kind="stable")
        unit = found[0].unit
        return cls(unit, times[order], values[order] / (1e3 if unit == "uJ" else 1.0))

    @property
    def period(self) -> float:
        """The usual time between two readings."""
        import numpy as np

        return float(np.median(np.diff(self.times)))

    def within(self, begin: float, end: float) -> int:
        """How many readings lie in a window, each value once until it changes."""
        inside = self.values[(self.times >= begin) & (self.times <= end)]
        return int((inside[1:] != inside[:-1]).sum()) + (len(inside) > 0)

    def integral(self, begin: float, end: float) -> float:
        """Millijoules between two times."""
        import numpy as np

        if self.unit == "uJ":
            first, last = np.interp([begin, end], self.times, self.values)
            return float(last - first)
        inside = (self.times > begin) & (self.times < end)
        times = np.concatenate([[begin], self.times[inside], [end]])
        return float(np.trapezoid(np.interp(times, self.times, self.values), times))

    def powers(self, begin: float | None = None, end: float | None = None) -> Sequence[float]:
        """Milliwatts within a window: the readings themselves, or a counter's slope between two of them."""
        import numpy as np

        begin, end = self.times[0] if begin is None else begin, self.times[-1] if end is None else end
        if self.unit == "mW":
            return self.values[(self.times >= begin) & (self.times <= end)]
        edges = self.times[(self.times >= begin) & (self.times <= end)]
        return np.diff(np.interp(edges, self.times, self.values)) / np.diff(edges)


def _problem(idle: _Trace, timed: _Trace, begin: float, end: float) -> str | None:
    """Why the readings cannot be used, None where they can."""
    if len(timed.times) < 2 or len(idle.times) < 2:
        return f"too few readings: {len(timed.times)} of the timed part, {len(idle.times)} at rest. Run longer"
    for trace in (idle, timed):
        if (trace.times[1:] <= trace.times[:-1]).any():
            return "two of its readings have the same time"
        if trace.unit == "uJ" and (trace.values[1:] < trace.values[:-1]).any():
            return "its counter went backwards"
    fresh, at_rest = timed.within(begin, end), idle.within(idle.times[0], idle.times[-1])
    if fresh <= 1 and timed.within(timed.times[0], timed.times[-1]) <= 1:
        return "its figure did not move during the timed part"
    if fresh < MIN_TIMED or at_rest < MIN_IDLE:
        return (
            f"too few readings: {fresh} fresh ones in the timed {end - begin:.3g} s and {at_rest} at rest; expected "
            f"{MIN_TIMED} and {MIN_IDLE}. Run longer, with a larger min_time_s of the timing"
        )
    slack = _EDGE_PERIODS * timed.period
    if timed.times[0] > begin + slack or timed.times[-1] < end - slack:
        return (
            f"its readings, from {timed.times[0]:.3g} to {timed.times[-1]:.3g} s, do not cover the timed part, "
            f"{begin:.3g} to {end:.3g} s"
        )
    return None


def _method(facts: PowerFacts) -> str:
    rails = f", {' + '.join(facts.rails)}" if facts.rails else ""
    assumed = f"; {facts.assumed}" if facts.assumed else ""
    return f"{facts.sensor}{rails} at {facts.rate_hz:g} Hz, less idle; trapezoid over the timed window{assumed}"


def _no(reason: str) -> Unavailable:
    return Unavailable(unavailable=reason)
