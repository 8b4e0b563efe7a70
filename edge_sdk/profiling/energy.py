"""Energy of one inference: what the power sensor saw while it was timed, less what it saw before."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from edge_sdk.profiling._blocks import deviations, interval95
from edge_sdk.schema.messages import Power, PowerFacts
from edge_sdk.schema.report import Energy, Unavailable

FEWEST_TIMED = 20
FEWEST_IDLE = 10
FEWEST_CHANGES = 5
_LONGEST_GAP = 0.05
_LONGEST_GAP_PERIODS = 2.5
_BUSY = 0.98
_MJ_PER_MWH = 3600


class _Refused(Exception):
    """There is no honest figure; the message says why."""


def energy(
    messages: Sequence[Power],
    facts: PowerFacts | Unavailable | None,
    start_ms: Sequence[float],
    samples_ms: Sequence[float],
    *,
    charging: bool | None,
    battery_mwh: float | None,
) -> Energy | Unavailable:
    """Millijoules of one inference over idle, or why there is no such figure.

    Power is integrated by the trapezoid rule over exactly the time from the start of the first
    timed inference to the end of the last; a counter is read at both ends. Between readings both are
    interpolated. The mean of the idle readings times that time is taken off, and the rest is divided
    by the number of inferences, with what the program did between them. The interval is that of
    `edge_sdk.profiling._blocks`, for the readings and for the idle mean.

    Args:
        messages: All readings of the run.
        facts: What the runner says of its sensor.
        start_ms: When each inference began.
        samples_ms: How long each took.
        charging: Whether a battery was being charged; only sensors of a battery mind.
        battery_mwh: What the battery holds, None where that is not known.
    """
    if facts is None:
        return Unavailable(unavailable="power was not sampled in this run")
    if isinstance(facts, Unavailable):
        return facts
    try:
        if charging and facts.sensor in ("battery", "power_supply"):
            raise _Refused(
                "the battery was being charged, and its current is then no measure of what the device draws; unplug "
                "the device, and reach it by the network"
            )
        return _energy(messages, facts, start_ms, samples_ms, battery_mwh)
    except _Refused as error:
        return Unavailable(unavailable=str(error))


def _energy(
    messages: Sequence[Power],
    facts: PowerFacts,
    start_ms: Sequence[float],
    samples_ms: Sequence[float],
    battery_mwh: float | None,
) -> Energy:
    if not samples_ms:
        raise _Refused("no inference was timed")
    begin, end = start_ms[0] / 1e3, max(a + b for a, b in zip(start_ms, samples_ms, strict=True)) / 1e3
    time_s = end - begin
    idle_readings = Readings.of(messages, "idle")
    if not len(idle_readings):
        raise _Refused("idle power was not sampled, and what the device draws without work cannot be taken off")
    idle = idle_readings.series(None)
    timed_readings = Readings.of(messages, "timed")
    timed_readings.check_moves(facts.sensor)
    timed = timed_readings.series((begin, end))
    if len(timed.mw) < FEWEST_TIMED:
        raise _Refused(
            f"only {len(timed.mw)} power readings lie in the {time_s:.3g} s that were timed, and {FEWEST_TIMED} are "
            f"needed: measure for {1.25 * FEWEST_TIMED / facts.rate_hz:.3g} s or longer, or sample faster than "
            f"{facts.rate_hz:g} Hz"
        )
    if len(idle.mw) < FEWEST_IDLE:
        raise _Refused(
            f"only {len(idle.mw)} power readings were taken before the model was loaded, and {FEWEST_IDLE} are needed: "
            f"sample idle power for {1.25 * FEWEST_IDLE / facts.rate_hz:.3g} s or longer"
        )
    timed.check_covers(begin, end, facts.rate_hz)
    mean_mw, idle_mw = timed.mean_mw, idle.mean_mw
    energy_mj = (mean_mw - idle_mw) * time_s
    if energy_mj <= 0:
        raise _Refused(
            f"the mean power while it was timed, {mean_mw:.4g} mW, is not above the idle power of {idle_mw:.4g} mW: "
            "something else ran or the device was not at rest before, or the sensor does not see what computes"
        )
    loads = deviations(timed.mw, [weight * time_s / timed.weight for weight in timed.weights], stream=0)
    rests = deviations(idle.mw, [-weight * time_s / idle.weight for weight in idle.weights], stream=1)
    count = len(samples_ms)
    low, high = (edge / count for edge in interval95(energy_mj, [loads, rests]))
    per_inference = energy_mj / count
    return Energy(
        per_inference=per_inference,
        ci95=(low, high),
        idle_mw=idle_mw,
        mean_mw=mean_mw,
        samples=len(timed.mw),
        method=_method(facts, timed_readings.counts, len(idle.mw), sum(samples_ms) / 1e3 / time_s),
        # A battery gives what the device draws while it runs, idle power included.
        inferences_per_battery_percent=battery_mwh * _MJ_PER_MWH / 100 / (mean_mw * time_s / count)
        if battery_mwh
        else None,
    )


def _method(facts: PowerFacts, counts: bool, idle: int, busy: float) -> str:
    how = "difference of the counter" if counts else "trapezoid"
    text = (
        f"{facts.sensor} ({', '.join(facts.rails) or 'no rail named'}) at {facts.rate_hz:g} Hz: {how} over the timed "
        f"part less the mean of {idle} idle readings; interval by moving-block bootstrap"
    )
    if busy < _BUSY:
        text += f"; {busy:.0%} of the timed part was inference, the rest is counted with it"
    return f"{text}; {facts.assumed}" if facts.assumed else text


class Series:
    """Powers and the seconds that each stands for, so that their products add up to the energy.

    Attributes:
        mw: Powers in the order of measurement.
        weights: Seconds of each.
        at_s: The times at which something was read.
    """

    def __init__(self, mw: list[float], weights: list[float], at_s: list[float]) -> None:
        kept = [place for place, weight in enumerate(weights) if weight > 0]
        self.mw = [mw[place] for place in kept]
        self.weights = [weights[place] for place in kept]
        self.at_s = at_s

    @property
    def weight(self) -> float:
        """Seconds of all."""
        return sum(self.weights)

    @property
    def mean_mw(self) -> float:
        """The mean power over the time."""
        return sum(power * weight for power, weight in zip(self.mw, self.weights, strict=True)) / self.weight

    def check_covers(self, begin: float, end: float, rate_hz: float) -> None:
        """Refuses a series with a long stretch of the time in which nothing was read."""
        times = [begin, *(at for at in self.at_s if begin < at < end), end]
        gap = max(b - a for a, b in pairwise(times))
        period = max(1 / rate_hz, median(b - a for a, b in pairwise(self.at_s)))
        if gap > max(_LONGEST_GAP_PERIODS * period, _LONGEST_GAP * (end - begin)):
            raise _Refused(
                f"the power readings leave {gap:.3g} of the {end - begin:.3g} s that were timed without any; the "
                "sensor failed meanwhile, or the device was too busy to read it"
            )


class Readings:
    """The readings of one phase in the order of time: power, or a counter of energy.

    Attributes:
        counts: Whether it is a counter.
        at_s: When each was read.
        values: Milliwatts, or millijoules of the counter.
    """

    def __init__(self, counts: bool, at_s: list[float], values: list[float]) -> None:
        self.counts = counts
        self.at_s = at_s
        self.values = values

    @classmethod
    def of(cls, messages: Sequence[Power], phase: str) -> Readings:
        """Those of one phase of a run."""
        batches = [message for message in messages if message.phase == phase]
        units = {batch.unit for batch in batches}
        if len(units) > 1:
            raise _Refused("the runner sent power and a counter of energy in one run")
        if any(len(batch.t_ns) != len(batch.value) for batch in batches):
            raise _Refused("the runner sent power readings without their times")
        counts = units == {"uJ"}
        at_s = [time / 1e9 for batch in batches for time in batch.t_ns]
        values = [value / 1e3 if counts else value for batch in batches for value in batch.value]
        if any(b < a for a, b in pairwise(at_s)):
            raise _Refused("the runner's power readings are not in the order of time")
        if counts and any(b < a for a, b in pairwise(values)):
            raise _Refused("the counter of energy went back during the run")
        return cls(counts, at_s, values)

    def __len__(self) -> int:
        return len(self.at_s)

    def check_moves(self, sensor: str) -> None:
        """Refuses a sensor whose figure is not renewed while it is read."""
        changes = sum(a != b for a, b in pairwise(self.values))
        if len(self) > 1 and changes == 0:
            what = "counter of energy" if self.counts else "power reading"
            raise _Refused(f"the {what} of {sensor} did not move during {self.at_s[-1] - self.at_s[0]:.3g} s")
        if len(self) >= FEWEST_TIMED and changes < FEWEST_CHANGES:
            raise _Refused(
                f"{sensor} gave only {changes + 1} different readings in {self.at_s[-1] - self.at_s[0]:.3g} s, and "
                f"{FEWEST_CHANGES + 1} are needed: its figure is renewed too slowly; measure for longer"
            )

    def series(self, window: tuple[float, float] | None) -> Series:
        """Powers and their weights within a time, None for all the time that was read.

        A time that begins before the first reading or ends after the last takes the nearest power.
        """
        at_s, values = self._renewed() if self.counts else (self.at_s, self.values)
        if len(at_s) < 2:
            return Series([], [], at_s)
        begin, end = window or (at_s[0], at_s[-1])
        if self.counts:
            steps = list(zip(pairwise(at_s), pairwise(values), strict=True))
            powers = [(new - old) / (b - a) if b > a else 0.0 for (a, b), (old, new) in steps]
            weights = [max(0.0, min(b, end) - max(a, begin)) for a, b in pairwise(at_s)]
        else:
            powers, weights = values, _trapezoid(at_s, begin, end)
        weights[0] += max(0.0, min(at_s[0], end) - begin)
        weights[-1] += max(0.0, end - max(at_s[-1], begin))
        return Series(powers, weights, at_s)

    def _renewed(self) -> tuple[list[float], list[float]]:
        """The readings that show a new figure, less those that follow another one at once.

        A counter that is renewed more slowly than it is read repeats an old figure, which was true
        earlier. Two readings in a hurry tell of when the counter is renewed, not of power.
        """
        fresh = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(self.values)) if a != b)]
        if len(fresh) < 3:
            return [self.at_s[i] for i in fresh], [self.values[i] for i in fresh]
        least = 0.5 * median(self.at_s[b] - self.at_s[a] for a, b in pairwise(fresh))
        kept = [fresh[0]]
        for place in fresh[1:]:
            if self.at_s[place] - self.at_s[kept[-1]] >= least:
                kept.append(place)
        if kept[-1] != fresh[-1] and len(kept) > 1:
            kept[-1] = fresh[-1]
        return [self.at_s[i] for i in kept], [self.values[i] for i in kept]


def _trapezoid(at_s: list[float], begin: float, end: float) -> list[float]:
    """The weights by which readings add up to the integral of the line through them."""
    weights = [0.0] * len(at_s)
    for place, (a, b) in enumerate(pairwise(at_s)):
        left, right = max(a, begin), min(b, end)
        if right > left:
            share = ((left + right) / 2 - a) / (b - a)
            weights[place] += (right - left) * (1 - share)
            weights[place + 1] += (right - left) * share
    return weights
