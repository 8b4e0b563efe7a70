"""The timed loop: warm up until the latency is steady, then measure until the median is known well."""

from __future__ import annotations

import gc
from array import array
from time import perf_counter_ns

import _stats

CAPACITY = 200_000
WARMUP_BLOCK_NS = 100_000_000
TIMED_BLOCK_NS = 20_000_000
FIRST_CHECK = 1.25


class Recorder:
    """Runs blocks of iterations and keeps their times; an iteration is every part once, in order.

    The buffers are made, and touched, before the model is loaded, so that they count as baseline
    memory and not as the model's.

    Args:
        parts: Names of the parts.
        capacity: How many iterations can be kept.
    """

    def __init__(self, parts, capacity=CAPACITY):
        self.capacity = capacity
        self.starts = _buffer(capacity)
        self.spans = _buffer(capacity)
        self.parts = {name: _buffer(capacity) for name in parts} if len(parts) > 1 else {}
        self.calls = []

    load_ns = None
    """What loading took by the runtime's own clock, where it has a better one than the harness."""

    def first(self):
        """The time of the first inference."""
        self.block(0, 1)
        return self.spans[0]

    def warm_up(self, timing, first_ns, beat):
        """As `warm_up`."""
        return warm_up(self, timing, first_ns, beat)

    def measure(self, timing, typical_ns, beat):
        """As `measure`."""
        return measure(self, timing, typical_ns, beat)

    def memory(self, own):
        """Figures of the memory, given those of the runner's own process."""
        return own

    def doubts(self):
        """What the runtime itself says against its figures."""
        return []

    def block(self, first, count):
        """Times iterations ``first`` to ``first + count``. Nothing else happens between two of them."""
        if self.parts:
            _time_parts(self.calls, self.starts, self.spans, list(self.parts.values()), first, first + count)
        else:
            _time_one(self.calls[0], self.starts, self.spans, first, first + count)


def _buffer(capacity):
    return array("q", bytes(8 * capacity))


def _time_one(call, starts, spans, first, last):
    clock = perf_counter_ns
    for index in range(first, last):
        begin = clock()
        call()
        spans[index] = clock() - begin
        starts[index] = begin


def _time_parts(calls, starts, spans, parts, first, last):
    clock = perf_counter_ns
    pairs = [(call, parts[place]) for place, call in enumerate(calls)]
    for index in range(first, last):
        begin = before = clock()
        for call, part in pairs:
            call()
            now = clock()
            part[index] = now - before
            before = now
        spans[index] = before - begin
        starts[index] = begin


def warm_up(recorder, timing, first_ns, beat):
    """Runs blocks until the medians of two successive ones agree, or the time is up.

    Args:
        recorder: Its buffers are used and will be overwritten.
        timing: ``timing`` of the request.
        first_ns: Time of the first inference, from which the first block's length is guessed.
        beat: Called with the count so far between blocks.

    Returns:
        ``(runs, steady, median_ns)``.
    """
    deadline = perf_counter_ns() + int(timing["warmup_max_s"] * 1e9)
    runs, before, typical = 0, None, max(1, first_ns)
    while perf_counter_ns() < deadline:
        wanted = min(max(3, WARMUP_BLOCK_NS // typical), recorder.capacity)
        count = _run_until(recorder, wanted, deadline)
        runs += count
        typical = max(1, int(_stats.percentile(sorted(recorder.spans[:count]), 0.5)))
        steady = before is not None and abs(typical - before) <= timing["steady_within"] * before
        if steady and runs >= timing["warmup_min_runs"]:
            return runs, True, typical
        before = typical
        beat(runs)
    return runs, False, typical


def _run_until(recorder, wanted, deadline):
    """Runs iterations from index 0, at least one; returns how many there was time for."""
    for index in range(wanted):
        recorder.block(index, 1)
        if perf_counter_ns() >= deadline:
            return index + 1
    return wanted


def measure(recorder, timing, typical_ns, beat):
    """Runs blocks until the stop rule of the request holds. It is checked only between blocks.

    The interval is computed when the sample has grown by a quarter since the last time, so that
    the checks stay rare. The garbage collector is off meanwhile.

    Args:
        recorder: Takes the samples, from index 0.
        timing: ``timing`` of the request.
        typical_ns: A typical time of one iteration.
        beat: Called with the count so far between blocks.

    Returns:
        ``(count, narrow, elapsed_ns)``: iterations, whether the interval is as narrow as asked, time.
    """
    size = max(1, TIMED_BLOCK_NS // typical_ns)
    count, narrow, check_at = 0, False, timing["min_runs"]
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        begin = perf_counter_ns()
        while count < recorder.capacity:
            block = min(size, recorder.capacity - count)
            recorder.block(count, block)
            count += block
            elapsed = perf_counter_ns() - begin
            if elapsed >= timing["max_time_s"] * 1e9:
                break
            if count >= check_at and elapsed >= timing["min_time_s"] * 1e9:
                narrow = _is_narrow(recorder.spans[:count], timing["ci_within"])
                if narrow:
                    break
                check_at = count * FIRST_CHECK
            beat(count)
        return count, narrow or _is_narrow(recorder.spans[:count], timing["ci_within"]), elapsed
    finally:
        if collecting:
            gc.enable()


def _is_narrow(samples, within):
    ordered = sorted(samples)
    low, high = _stats.median_interval(samples, ordered)
    return high - low < within * _stats.percentile(ordered, 0.5)
