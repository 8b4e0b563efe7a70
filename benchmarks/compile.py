"""How long compiling takes beside the same work by hand, and how long where nothing is left to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from functools import partial

from benchmarks._by_hand import command
from benchmarks._context import Case, Context
from benchmarks._rows import Limit, Row
from benchmarks._turns import in_turns, median_s, program, seconds_of

TITLE = "Compile"
ROUNDS, QUICK_ROUNDS = 3, 2
WARM_RUNS, QUICK_WARM_RUNS = 10, 2
COLD, WARM, NO_TORCH = Limit(at_most=1.15), Limit(at_most=0.5), Limit(at_most=0)
TARGETS = {"executorch": "xnnpack-cpu", "onnxruntime": "desktop-cpu"}
SAME, OTHER = "the same calls by hand", "ONNX Runtime's tools by hand"
BY_HAND = {
    "executorch": {SAME: "by_hand_executorch"},
    "onnxruntime": {SAME: "by_hand_pt2e_onnx", OTHER: "by_hand_onnxruntime"},
}
SDK = "edge_sdk.compile"


def run(context: Context) -> Iterator[Row]:
    """Cold and warm compiles of the first model as INT8, for each runtime."""
    case = context.models[0]
    for runtime in TARGETS:
        yield from cold(context, case, runtime)
    for runtime in TARGETS:
        yield from warm(context, case, runtime)


def cold(context: Context, case: Case, runtime: str) -> Iterator[Row]:
    """The ratio of Edge SDK's time to that of each script by hand; whole processes, imports included."""
    from edge_sdk.profiling.interleave import compare_rounds

    commands = {SDK: program("sdk_compile", TARGETS[runtime], runtime, *case.arguments)}
    for name, script in BY_HAND[runtime].items():
        commands[name] = command(context, case, script)
    if not context.quick:
        _read_into_memory(runtime)
    rounds = QUICK_ROUNDS if context.quick else ROUNDS
    sides = {name: partial(seconds_of, side) for name, side in commands.items()}
    times = in_turns(sides, rounds, lambda line: context.say(f"{runtime}: {line}"))
    how = f"{case.title}, int8-static; whole processes, {rounds} rounds in turns"
    for name in BY_HAND[runtime]:
        found = compare_rounds([_rounds_ms(times[name]), _rounds_ms(times[SDK])])
        by_hand, ours = (value / 1e3 for value in found.medians_ms)
        ratio = found.ratios[1]
        title = f"cold, {runtime}: {SDK} / {name}"
        limit = COLD if name == SAME else None
        yield Row(title, ratio.value, "ratio", f"{how}; {ours:.1f} s and {by_hand:.1f} s", ratio.ci95, limit)


def warm(context: Context, case: Case, runtime: str) -> Iterator[Row]:
    """Compiles in an open process what another process left in the cache."""
    out = context.folder / f"warm-{runtime}.json"
    runs = QUICK_WARM_RUNS if context.quick else WARM_RUNS
    context.say(f"{runtime}: warm")
    seconds_of(program("sdk_warm", out, runs, TARGETS[runtime], runtime, *case.arguments))
    found: Mapping = json.loads(out.read_text())
    value, ci95 = median_s(found["again_s"])
    how = f"{case.title}, int8-static, in the cache of another process"
    yield Row(f"warm, {runtime}: a further compile in an open process", value, "s", how, ci95, WARM)
    modules = found["torch_modules"]
    yield Row(f"warm, {runtime}: modules of torch imported", modules, "modules", "in that process", limit=NO_TORCH)
    first = found["first_s"]
    yield Row(f"warm, {runtime}: the first compile of a process", first, "s", "once, with the imports it makes")


def _rounds_ms(seconds: list[float]) -> list[list[float]]:
    return [[value * 1e3] for value in seconds]


def _read_into_memory(runtime: str) -> None:
    """Imports the libraries once, so that no side is the one that reads them from disk."""
    libraries = {
        "executorch": "torchao.quantization.pt2e, executorch.exir, executorch.backends.xnnpack.quantizer",
        "onnxruntime": "torchao.quantization.pt2e, torch.onnx, onnxscript, onnxruntime.quantization",
    }
    seconds_of([sys.executable, "-c", f"import {libraries[runtime]}"])
