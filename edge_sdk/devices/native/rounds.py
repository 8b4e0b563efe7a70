"""Measures with a native runner program: calls it until the median is known well, by the request's rules."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from math import ceil
from statistics import median
from types import ModuleType

from edge_sdk._paths import data_dir
from edge_sdk.devices.native.program import MAX_RUNS, Figures
from edge_sdk.schema.messages import Message, Progress, Samples
from edge_sdk.schema.report import Latency
from edge_sdk.schema.request import Timing

_BLOCK_NS = 100_000_000
_WARMUP_S = 1.0
"""A program cannot be told to go on until it is steady, so this much of each call is set aside for it."""
_BLOCK_RUNS = 3
_GUESS_S = 0.3
_MEANS, _MOST_MEANS, _FEWEST_MEANS = 10, 60, 3
_MOST_CALLS = 12
_BATCH = 2000
_NOISY = 0.1


@dataclass(frozen=True)
class Measured:
    """Latency, what makes it less believable, and what the program told of itself."""

    latency: Latency
    warnings: list[str]
    threads: int | None
    facts: dict[str, str]


@dataclass
class _State:
    """The samples so far, in nanoseconds."""

    timing: Timing
    spans: list[int]
    runs: int = 0
    warmup: int = 0
    calls: int = 0
    steady: bool = True

    @property
    def total_s(self) -> float:
        return sum(self.spans) * (self.runs / len(self.spans)) / 1e9 if self.spans else 0.0

    @property
    def is_narrow(self) -> bool:
        ordered = sorted(self.spans)
        low, high = _stats().median_interval(self.spans, ordered)
        return high - low < self.timing.ci_within * median(ordered)


def measure(run: Callable[[int], Figures], timing: Timing) -> Generator[Message, None, Measured]:
    """Calls a program until the stop rule of the request holds, yielding the messages of a runner.

    Where the program tells each inference, those before it is steady are left out of every call; where
    it tells only a mean, each call is one sample.

    Args:
        run: Calls the program for that many inferences.
        timing: ``timing`` of the request.

    Returns:
        What was measured.
    """
    yield Progress(type="progress", stage="first")
    probe = run(1)
    state = _State(timing, [])
    yield Progress(type="progress", stage="timed", done=0, total=timing.min_runs)
    typical_ns = median(probe.spans_ns)
    if probe.each:
        # The first inference is cold and says little of how many fit into a second.
        guess = run(min(MAX_RUNS, max(2 * _BLOCK_RUNS, int(_GUESS_S / (typical_ns / 1e9)))))
        typical_ns = median(guess.spans_ns[-(len(guess.spans_ns) // 2) :])
    figures, is_done = probe, False
    while not is_done:
        figures = run(_runs_of_each(state, typical_ns) if probe.each else _runs_of_mean(timing, typical_ns))
        spans = _without_warmup(state, figures) if figures.each else list(figures.spans_ns)
        before = state.spans[:]
        state.spans += spans
        state.runs += len(spans) if figures.each else figures.runs
        state.warmup += 0 if figures.each else figures.warmup
        state.calls += 1
        yield from _batches(spans, sum(before))
        typical_ns = median(spans)
        is_done = _is_done(state, figures.each)
        yield Progress(type="progress", stage="timed", done=state.runs, total=max(timing.min_runs, state.runs))
    latency = Latency(
        **_stats().summary(state.spans),
        samples=len(state.spans),
        warmup=state.warmup,
        first=probe.first_ms,
        load=probe.load_ms,
    )
    return Measured(latency, _doubts(state, latency, figures), figures.threads, {**probe.facts, **figures.facts})


def _runs_of_each(state: _State, typical_ns: float) -> int:
    """How many inferences the next call is asked for: warm-up, and what is missing of the samples."""
    timing, typical_s = state.timing, typical_ns / 1e9
    missing = max(timing.min_runs - state.runs, ceil((timing.min_time_s - state.total_s) / typical_s), state.runs, 1)
    room = max(1, int((timing.max_time_s - state.total_s) / typical_s))
    return min(MAX_RUNS, _warmup_runs(timing, typical_s) + min(missing, room))


def _warmup_runs(timing: Timing, typical_s: float) -> int:
    wanted = min(int(timing.warmup_max_s / typical_s), max(2 * _BLOCK_RUNS, int(_WARMUP_S / typical_s)))
    return min(MAX_RUNS // 2, max(timing.warmup_min_runs, wanted))


def _runs_of_mean(timing: Timing, typical_ns: float) -> int:
    """How many inferences one mean is taken of."""
    return min(MAX_RUNS, max(1, ceil(timing.min_runs / _MEANS), ceil(timing.min_time_s / _MEANS / (typical_ns / 1e9))))


def _without_warmup(state: _State, figures: Figures) -> list[int]:
    """The inferences after the medians of two successive blocks agreed, or after the time set aside for that."""
    timing, spans = state.timing, list(figures.spans_ns)
    typical_ns = max(1.0, median(spans))
    most = min(_warmup_runs(timing, typical_ns / 1e9), len(spans) - 1)
    size = max(_BLOCK_RUNS, min(int(_BLOCK_NS / typical_ns), most // 3))
    end, before, steady = 0, None, timing.warmup_max_s == 0
    while not steady and end + size <= most:
        block = median(spans[end : end + size])
        end += size
        steady = before is not None and abs(block - before) <= timing.steady_within * before
        before = block
    cut = min(most, max(end, timing.warmup_min_runs)) if steady else most
    state.steady = state.steady and steady
    state.warmup += figures.warmup + cut
    return spans[cut:]


def _is_done(state: _State, each: bool) -> bool:
    timing = state.timing
    fewest = 1 if each else _FEWEST_MEANS
    if state.calls >= (_MOST_CALLS if each else _MOST_MEANS):
        return True
    if state.total_s >= timing.max_time_s and len(state.spans) >= fewest:
        return True
    wanted = timing.min_runs if each else max(_MEANS, fewest)
    enough = len(state.spans) >= wanted and state.runs >= timing.min_runs and state.total_s >= timing.min_time_s
    return enough and state.is_narrow


def _batches(spans: list[int], begin_ns: int) -> Generator[Message, None, None]:
    """Raw samples; a program tells no start times, so that they are taken to follow each other."""
    starts = list(accumulate(spans, initial=begin_ns))
    for first in range(0, len(spans), _BATCH):
        last = min(len(spans), first + _BATCH)
        yield Samples(type="sample", start_ns=starts[first:last], ns=spans[first:last])


def _doubts(state: _State, latency: Latency, figures: Figures) -> list[str]:
    timing = state.timing
    doubts = []
    if not figures.each:
        cold = "" if figures.warmup else ", the first of them cold"
        doubts.append(
            f"each sample is the mean of {figures.runs} inferences{cold}, as the program tells no more: percentiles "
            "and extremes are those of means, which lie closer together than single inferences"
        )
    elif not state.steady:
        doubts.append(f"the latency was not steady after {state.warmup} runs of warm-up")
    if state.calls > 1 and figures.each:
        doubts.append(f"the samples come from {state.calls} calls of the program, which loads the model at each")
    if state.runs < timing.min_runs:
        doubts.append(f"only {state.runs} of {timing.min_runs} runs fitted into max_time_s")
    if not state.is_narrow:
        low, high = latency.ci95
        doubts.append(
            f"the 95 % interval of the median, {low:.4g} to {high:.4g} ms, is wider than "
            f"{timing.ci_within * 100:.3g} % of it after {state.total_s:.1f} s"
        )
    if latency.std > _NOISY * latency.mean:
        doubts.append(
            f"the latency varies: its standard deviation is {100 * latency.std / latency.mean:.0f} % of its mean"
        )
    return doubts


@cache
def _stats() -> ModuleType:
    """The runners' own statistics, so that a figure means the same whichever runner gave it."""
    path = data_dir("runtimes") / "_stats.py"
    spec = importlib.util.spec_from_file_location("edge_sdk_runtimes_stats", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
