"""LiteRT's ``benchmark_model``."""

from __future__ import annotations

import re
from typing import ClassVar

from edge_sdk.devices._protocol import BrokenStreamError
from edge_sdk.devices.native.program import NUMBER, Call, Execute, Figures, Program, nanoseconds, number, one
from edge_sdk.schema.report import Unavailable

_HEAD = r"(?:INFO: )?"
_WARMUP_S = 0.5


class BenchmarkModel(Program):
    """Runs ``.tflite`` models. It prints means and a few percentiles, not each latency.

    Source: google-ai-edge/LiteRT, tflite/tools/benchmark/benchmark_model.cc (flags, order, and the line of
    timings, in microseconds) and tflite/tools/logging.h (``INFO: `` on standard output); TensorFlow,
    core/util/stats_calculator.h (the lines ``count=... avg=...``, first of the warm-up, then of the timed runs).
    """

    name: ClassVar[str] = "benchmark_model"
    runtime: ClassVar[str] = "litert"
    suffix: ClassVar[str] = ".tflite"
    inputs: ClassVar[str] = "random inputs"

    def run(self, execute: Execute, call: Call) -> Figures:
        """Runs it once; see `Program.run`."""
        return parse(execute(words(call)))


def words(call: Call) -> list[str]:
    """The command line of a call."""
    line = [*call.head, f"--graph={call.model}", f"--num_runs={call.runs}", "--min_secs=0"]
    line.append(f"--warmup_min_secs={_WARMUP_S}")
    return line if call.threads is None else [*line, f"--num_threads={call.threads}"]


def parse(text: str) -> Figures:
    """What it printed.

    Raises:
        BrokenStreamError: It did not print what it should.
    """
    timings = one(
        rf"{_HEAD}Inference timings in us: Init: (\d{{1,15}}), First inference: (\d{{1,15}}), "
        rf"Warmup \(avg\): {NUMBER}, Inference \(avg\): {NUMBER}",
        text,
        "its timings",
    )
    counts = re.findall(rf"^{_HEAD}count=(\d{{1,9}}) (?:first|curr)=\d{{1,15}}.{{0,300}}$", text, re.MULTILINE)
    if timings is None or len(counts) != 2:
        raise BrokenStreamError(
            "it did not print one line 'Inference timings in us: ...' and two lines 'count=...', as benchmark_model "
            "does."
        )
    warmup, runs = (int(count) for count in counts)
    if runs < 1 or warmup < 1:
        raise BrokenStreamError(f"it timed {runs} inferences after {warmup} of warm-up.")
    memory = one(
        rf"{_HEAD}Memory footprint delta from the start of the tool \(MB\): init={NUMBER} overall={NUMBER}",
        text,
        "its memory",
    )
    return Figures(
        spans_ns=(nanoseconds(number(timings[4]), 1e3),),
        each=False,
        runs=runs,
        warmup=warmup,
        first_ms=_milliseconds(int(timings[2])),
        load_ms=_milliseconds(int(timings[1])),
        facts={"memory_footprint_delta_mib": memory[2]} if memory else {},
    )


def _milliseconds(microseconds: int) -> float | Unavailable:
    if microseconds == 0:
        return Unavailable(unavailable="benchmark_model tells it in whole microseconds: 0")
    return microseconds / 1e3
