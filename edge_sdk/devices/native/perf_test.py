"""ONNX Runtime's ``onnxruntime_perf_test``."""

from __future__ import annotations

import re
import uuid
from typing import ClassVar

from edge_sdk.devices._protocol import BrokenStreamError
from edge_sdk.devices.native.program import NUMBER, Call, Execute, Figures, Program, nanoseconds, number, one
from edge_sdk.errors import UnsupportedError
from edge_sdk.schema.report import Unavailable
from edge_sdk.schema.request import RunRequest

_PROVIDERS = {
    "CPUExecutionProvider": "cpu",
    "XnnpackExecutionProvider": "xnnpack",
    "NnapiExecutionProvider": "nnapi",
    "QNNExecutionProvider": "qnn",
    "CUDAExecutionProvider": "cuda",
    "ACLExecutionProvider": "acl",
}
_LEVELS = {"disable": "0", "basic": "1", "extended": "2", "all": "99"}
_MODES = {"sequential": [], "parallel": ["-P"]}
_NNAPI = {
    "nnapi_use_fp16": "NNAPI_FLAG_USE_FP16",
    "nnapi_use_nchw": "NNAPI_FLAG_USE_NCHW",
    "nnapi_cpu_disabled": "NNAPI_FLAG_CPU_DISABLED",
    "nnapi_cpu_only": "NNAPI_FLAG_CPU_ONLY",
}
_KNOWN = ("provider", "graph_optimization", "allow_spinning", "execution_mode", *_NNAPI)
_COARSE_MS = 100
"""The first inference is told in whole milliseconds, rounded down: below this the error is above 1 %."""


class PerfTest(Program):
    """Runs ``.onnx`` and ``.ort`` models. Its result file holds every latency.

    Source: microsoft/onnxruntime, onnxruntime/test/perftest/command_args_parser.cc (flags: ``-I`` makes up
    inputs, ``-S`` fills them with random numbers instead of leaving them as they are found, ``-m times -r N``,
    ``-x`` threads, ``-o`` optimization level, ``-D`` no spinning, ``-P`` parallel executor, ``-i`` NNAPI's
    flags) and performance_runner.cc (what is printed; lines ``model,seconds,peak bytes,CPU %,run`` of the file;
    one inference before the timed ones).
    """

    name: ClassVar[str] = "onnxruntime_perf_test"
    runtime: ClassVar[str] = "onnxruntime"
    suffix: ClassVar[str] = ".onnx"
    inputs: ClassVar[str] = "random inputs"

    def check(self, request: RunRequest) -> None:
        """Refuses options that it has no flag for."""
        options(request.options)

    def run(self, execute: Execute, call: Call) -> Figures:
        """Runs it once, then reads its result file, which has a name of its own because lines are appended."""
        results = f"perf-test-{uuid.uuid4().hex}.csv"
        text = execute(words(call, results))
        return parse(text, execute(["cat", results]), call.runs)


def words(call: Call, results: str) -> list[str]:
    """The command line of a call that writes its latencies to ``results``."""
    threads = [] if call.threads is None else ["-x", str(call.threads)]
    count = ["-m", "times", "-r", str(call.runs)]
    return [*call.head, "-I", "-S", "1", *count, *threads, *options(call.options), call.model, results]


def options(chosen) -> list[str]:
    """The flags for options of a request, with the values that the Python runner takes.

    Raises:
        UnsupportedError: It has no flag for one of them.
    """
    unknown = [name for name in chosen if name not in _KNOWN]
    if unknown:
        raise UnsupportedError(
            f"onnxruntime_perf_test has no flag for the option {', '.join(unknown)}; known: {', '.join(_KNOWN)}."
        )
    provider = _named("provider", chosen.get("provider", "CPUExecutionProvider"), _PROVIDERS)
    flags = ["-e", provider, "-o", _named("graph_optimization", chosen.get("graph_optimization", "all"), _LEVELS)]
    flags += _named("execution_mode", chosen.get("execution_mode", "sequential"), _MODES)
    if chosen.get("allow_spinning", True) is not True:
        flags.append("-D")
    nnapi = [flag for name, flag in _NNAPI.items() if chosen.get(name)]
    return [*flags, "-i", " ".join(nnapi)] if nnapi else flags


def _named(option: str, value, table):
    if value not in table:
        raise UnsupportedError(
            f"onnxruntime_perf_test has no flag for the {option} '{str(value):.60}'; known: {', '.join(table)}."
        )
    return table[value]


def parse(text: str, results: str, runs: int) -> Figures:
    """What it printed of ``runs`` inferences, and what its result file holds.

    Raises:
        BrokenStreamError: Either is not what it should be.
    """
    spans = _spans(results, runs)
    told = one(r"Total inference requests: (\d{1,9})\s*", text, "the number of inferences")
    if told and int(told[1]) != runs:
        raise BrokenStreamError(f"it says that it ran {told[1]} inferences where {runs} were asked for.")
    load = one(rf"Session creation time cost: {NUMBER} s\s*", text, "the time of loading")
    first = one(r"First inference time cost: (\d{1,9}) ms\s*", text, "the first inference")
    peak = one(r"Peak working set size: (\d{1,15}) bytes\s*", text, "its peak memory")
    return Figures(
        spans_ns=tuple(spans),
        each=True,
        runs=runs,
        warmup=1,
        first_ms=_first(int(first[1]) if first else None),
        load_ms=number(load[1]) * 1e3 if load else _untold("the time of loading"),
        facts={"peak_working_set_mib": f"{int(peak[1]) / 2**20:.1f}"} if peak else {},
    )


def _first(told_ms: int | None) -> float | Unavailable:
    if told_ms is None:
        return _untold("the first inference")
    if told_ms < _COARSE_MS:
        return Unavailable(unavailable=f"onnxruntime_perf_test tells it in whole milliseconds, rounded down: {told_ms}")
    return float(told_ms)


def _untold(what: str) -> Unavailable:
    return Unavailable(unavailable=f"this version of onnxruntime_perf_test does not print {what}")


def _spans(results: str, runs: int) -> list[int]:
    """Nanoseconds of each inference from the result file, whose lines are numbered from 0."""
    lines = results.replace("\r", "").rstrip("\n").split("\n")
    if len(lines) != runs:
        raise BrokenStreamError(f"its result file has {len(lines)} lines where {runs} were expected.")
    spans = []
    for place, line in enumerate(lines):
        found = re.fullmatch(rf".{{0,300}},{NUMBER},\d{{1,20}},-?\d{{1,6}},(\d{{1,9}})", line)
        if not found or int(found[2]) != place:
            raise BrokenStreamError(f"line {place + 1} of its result file is no result of run {place}: {line[:80]!r}.")
        spans.append(nanoseconds(number(found[1]), 1e9))
    return spans
