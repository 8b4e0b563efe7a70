"""What watching costs: processor time of the monitor, and the latency of a bundle with it and without."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter, sleep

from benchmarks._context import BenchmarkError, Context
from benchmarks._rows import Limit, Row
from benchmarks._turns import in_turns

TITLE = "Monitor"
PERIOD_S = 1.0
START_S, LOOK_S = 60.0, 0.1
WATCHED_S, QUICK_WATCHED_S = 60.0, 2.0
ROUNDS, QUICK_ROUNDS = 20, 2
COST, SAME = Limit(at_most=1.0), Limit(at_least=0.99, at_most=1.01)


def run(context: Context) -> Iterator[Row]:
    """The cost of both sides of the monitor, then its effect."""
    yield from cost(context)
    yield shift(context)


def cost(context: Context) -> Iterator[Row]:
    """Percent of one core that the device's and the host's side take, once they have started."""
    watched_s = QUICK_WATCHED_S if context.quick else WATCHED_S
    context.say(f"watching for {watched_s:g} s")
    with _monitor(context) as host:
        sides = {"on the device": _child(host), "on the host": host}
        before = {name: _cpu_s(pid) for name, pid in sides.items()}
        begin = perf_counter()
        sleep(watched_s)
        span = perf_counter() - begin
        spent = {name: _cpu_s(pid) - before[name] for name, pid in sides.items()}
    for name, seconds in spent.items():
        how = f"one reading each {PERIOD_S:g} s, {span:.0f} s, user and system time of its process"
        yield Row(f"processor time {name}", 100 * seconds / span, "% of a core", how, limit=COST)


def shift(context: Context) -> Row:
    """The median latency of a bundle while it is watched over that while it is not, in turns."""
    import edge_sdk
    from edge_sdk.profiling.interleave import compare_rounds
    from edge_sdk.schema.request import Timing

    case = context.models[0]
    bundle = edge_sdk.compile(
        case.model, "desktop-cpu", runtime="onnxruntime", settings=case.settings, out=context.folder / "monitored"
    )
    timing = Timing(min_time_s=0.2 if context.quick else 3.0)

    def median_ms() -> float:
        latency = edge_sdk.profile(bundle, timing=timing, threads=1, energy=False).latency
        if latency is None:
            raise BenchmarkError("the bundle was not timed")
        return latency.p50

    def watched() -> float:
        with _monitor(context):
            return median_ms()

    rounds = QUICK_ROUNDS if context.quick else ROUNDS
    times = in_turns({"alone": median_ms, "watched": watched}, rounds, lambda line: context.say(f"latency: {line}"))
    found = compare_rounds([[[one] for one in times[name]] for name in ("alone", "watched")])
    alone, beside = found.medians_ms
    how = f"{case.title}, 1 thread, {rounds} rounds in turns; {beside:.3f} ms and {alone:.3f} ms"
    return Row("latency, watched / alone", found.ratios[1].value, "ratio", how, found.ratios[1].ci95, SAME)


@contextmanager
def _monitor(context: Context) -> Iterator[int]:
    """The command in a process of its own, once it tells readings; yields its number."""
    command = [sys.executable, "-m", "edge_sdk", "monitor", "--json", "--every", f"{PERIOD_S:g}"]
    told = context.folder / "readings.jsonl"
    with open(told, "wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE) as process:
        try:
            begin = perf_counter()
            while not told.stat().st_size and process.poll() is None:
                if perf_counter() > begin + START_S:
                    raise BenchmarkError(f"the monitor told nothing within {START_S:g} s")
                sleep(LOOK_S)
            yield process.pid
            if process.poll() is not None:
                said = process.stderr.read().decode(errors="replace") if process.stderr else ""
                raise BenchmarkError(f"the monitor ended: {said[-500:]}")
        finally:
            process.terminate()


def _child(pid: int) -> int:
    """The program that reads the device, among those that the command started."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        children = [int(word) for word in file.read().split()]
    for child in children:
        with open(f"/proc/{child}/cmdline", encoding="utf-8", errors="replace") as file:
            if "monitor.py" in file.read():
                return child
    raise BenchmarkError("the monitor has no program of its own on the device")


def _cpu_s(pid: int) -> float:
    """User and system time. Source: proc(5), ``/proc/pid/stat``, fields 14 and 15."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
