"""The timed loop, with calls whose time is known."""

from __future__ import annotations

import gc
from time import perf_counter_ns, sleep

import pytest

TIMING = {
    "warmup_min_runs": 3,
    "warmup_max_s": 1.0,
    "steady_within": 0.2,
    "min_runs": 30,
    "min_time_s": 0.0,
    "max_time_s": 0.5,
    "ci_within": 0.5,
}


@pytest.fixture
def timing(harness_module):
    return harness_module("_timing")


def silent(*_: object) -> None:
    pass


def recorder_of(timing, *calls, capacity=1000):
    recorder = timing.Recorder([f"part{index}" for index in range(len(calls))], capacity)
    recorder.calls = list(calls)
    return recorder


def test_overhead_of_a_call_is_under_three_microseconds(timing):
    recorder = recorder_of(timing, int, capacity=20_000)
    costs = []
    for _ in range(5):
        begin = perf_counter_ns()
        recorder.block(0, 20_000)
        costs.append((perf_counter_ns() - begin) / 20_000)
    assert min(costs) < 3000


def test_samples_are_as_long_as_the_call(timing):
    recorder = recorder_of(timing, lambda: sleep(0.002))
    count, _, elapsed_ns = timing.measure(recorder, TIMING, 2_000_000, silent)
    spans = sorted(recorder.spans[:count])
    assert spans[0] >= 2_000_000
    assert sum(spans) <= elapsed_ns
    assert all(b > a for a, b in zip(recorder.starts[: count - 1], recorder.starts[1:count], strict=True))


def test_parts_add_up(timing):
    recorder = recorder_of(timing, lambda: sleep(0.001), lambda: sleep(0.003))
    recorder.block(0, 3)
    first, second = (recorder.parts[name][:3] for name in ("part0", "part1"))
    assert all(a + b == total for a, b, total in zip(first, second, recorder.spans[:3], strict=True))
    assert min(second) >= 3_000_000 > max(first) - 1_500_000


def test_runs_until_minimum_count_and_time(timing):
    recorder = recorder_of(timing, lambda: sleep(0.001))
    count, narrow, elapsed_ns = timing.measure(recorder, {**TIMING, "min_time_s": 0.1}, 1_000_000, silent)
    assert count >= 30 and elapsed_ns >= 100_000_000 and narrow


def test_stops_at_the_longest_time_and_says_that_the_interval_is_wide(timing):
    turns = iter(range(10**6))
    recorder = recorder_of(timing, lambda: sleep(0.001 if next(turns) % 2 else 0.004))
    count, narrow, elapsed_ns = timing.measure(recorder, {**TIMING, "ci_within": 1e-6}, 2_000_000, silent)
    assert count >= 30 and not narrow and 0.5e9 <= elapsed_ns < 1.5e9


def test_stops_at_the_longest_time_before_the_minimum_count(timing):
    recorder = recorder_of(timing, lambda: sleep(0.05))
    count, _, _ = timing.measure(recorder, {**TIMING, "max_time_s": 0.12}, 50_000_000, silent)
    assert 1 <= count <= 3


def test_stops_when_the_buffer_is_full(timing):
    recorder = recorder_of(timing, int, capacity=100)
    assert timing.measure(recorder, {**TIMING, "min_runs": 1000}, 100, silent)[0] == 100


def test_garbage_collector_is_off_during_the_loop_and_on_again_after_it(timing):
    seen = []
    recorder = recorder_of(timing, lambda: seen.append(gc.isenabled()))
    timing.measure(recorder, {**TIMING, "max_time_s": 0.01}, 1_000_000, silent)
    assert set(seen) == {False} and gc.isenabled()


def test_warm_up_ends_when_successive_blocks_agree(timing):
    slow = iter([0.1 * 0.7**run for run in range(11)])
    recorder = recorder_of(timing, lambda: sleep(next(slow, 0.002)))
    runs, steady, typical_ns = timing.warm_up(recorder, {**TIMING, "warmup_max_s": 10.0}, 100_000_000, silent)
    assert steady and runs > 9 and 2_000_000 <= typical_ns < 10_000_000


def test_warm_up_gives_up_in_time_and_says_so(timing):
    growing = iter(range(1, 10**6))
    recorder = recorder_of(timing, lambda: sleep(next(growing) / 1000))
    begin = perf_counter_ns()
    _, steady, _ = timing.warm_up(recorder, {**TIMING, "warmup_max_s": 0.3, "steady_within": 0.01}, 1_000_000, silent)
    assert not steady and perf_counter_ns() - begin < 2e9


def test_no_warm_up_where_none_is_wanted(timing):
    recorder = recorder_of(timing, int)
    assert timing.warm_up(recorder, {**TIMING, "warmup_max_s": 0}, 1000, silent) == (0, False, 1000)
