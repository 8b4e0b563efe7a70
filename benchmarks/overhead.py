"""What the harness adds to what it measures: its loop and a bare one in turns, over one loaded model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from time import perf_counter

from benchmarks._context import Context
from benchmarks._device_modules import device_module
from benchmarks._rows import Limit, Row
from benchmarks._turns import median_s, program, seconds_of

TITLE = "Overhead of measuring"
RUNTIMES = ("onnxruntime", "executorch")
WANTED_MS, QUICK_WANTED_MS = (1.0, 10.0), (0.2, 0.5)
ROUNDS, QUICK_ROUNDS = 50, 2
TURN_S, QUICK_TURN_S = 0.2, 0.02
CALLS = 20_000
CALL_ROUNDS = 21
SAME, CALL = Limit(at_least=0.99, at_most=1.01), Limit(at_most=3.0)


def run(context: Context) -> Iterator[Row]:
    """The ratio of the medians for two sizes of model and each runtime, and the cost of a call."""
    rounds, turn_s = (QUICK_ROUNDS, QUICK_TURN_S) if context.quick else (ROUNDS, TURN_S)
    for runtime in RUNTIMES:
        for wanted_ms in QUICK_WANTED_MS if context.quick else WANTED_MS:
            context.say(f"{runtime}: a model of about {wanted_ms:g} ms, {rounds} rounds")
            yield compare(context, runtime, wanted_ms, rounds, turn_s)
    context.say("the cost of a call")
    yield cost_of_a_call()


def compare(context: Context, runtime: str, wanted_ms: float, rounds: int, turn_s: float) -> Row:
    """The median that the harness measures over that of a bare loop, in one process that loads the model once."""
    from edge_sdk.profiling.interleave import compare_rounds

    out = context.folder / f"loops-{runtime}.json"
    seconds_of(program("loops", out, runtime, wanted_ms, rounds, turn_s))
    found = json.loads(out.read_text())
    compared = compare_rounds([found["bare_ms"], found["harness_ms"]])
    bare, harness = compared.medians_ms
    ratio = compared.ratios[1]
    title = f"{runtime}, {wanted_ms:g} ms: median of the harness / of a bare loop"
    how = f"{rounds} rounds in turns in one process, 1 thread; {harness:.4f} ms and {bare:.4f} ms"
    return Row(title, ratio.value, "ratio", how, ratio.ci95, SAME)


def cost_of_a_call() -> Row:
    """Time of the timed loop for each call of a function that does nothing; that call is counted too."""
    recorder = device_module("_timing").Recorder(["forward"])
    recorder.calls = [_nothing]
    costs = []
    for _ in range(CALL_ROUNDS):
        begin = perf_counter()
        recorder.block(0, CALLS)
        costs.append((perf_counter() - begin) / CALLS)
    value, (low, high) = median_s(costs)
    how = f"median of {CALL_ROUNDS} blocks of {CALLS:,} calls of an empty function"
    return Row("overhead a call", value * 1e6, "µs", how, (low * 1e6, high * 1e6), CALL)


def _nothing() -> None:
    pass
