"""ExecuTorch's ``executor_runner``."""

from __future__ import annotations

import re
from typing import ClassVar

from edge_sdk.devices._protocol import BrokenStreamError
from edge_sdk.devices.native.program import NUMBER, Call, Execute, Figures, Program, nanoseconds, number, one
from edge_sdk.schema.report import Unavailable

_LOG = r"I \d\d:\d\d:\d\d\.\d{6} executorch:[^\]\n]{1,200}\] "
_ROUNDING_MS = 1e-6


class ExecutorRunner(Program):
    """Runs ``.pte`` programs.

    Version 1.3 and newer print the time of loading and of each inference; older ones only the total.

    Source: pytorch/executorch, examples/portable/executor_runner/executor_runner.cpp at v1.2.0, v1.3.1 and
    v1.4.1 (flags and messages); runtime/platform/default/posix.cpp (form of a log line, on standard error).
    """

    name: ClassVar[str] = "executor_runner"
    runtime: ClassVar[str] = "executorch"
    suffix: ClassVar[str] = ".pte"
    inputs: ClassVar[str] = "inputs that are all ones"
    takes_samples: ClassVar[bool] = True

    def run(self, execute: Execute, call: Call) -> Figures:
        """Runs it once; see `Program.run`."""
        return parse(execute(words(call)), call.runs)


def words(call: Call) -> list[str]:
    """The command line of a call."""
    line = [*call.head, f"--model_path={call.model}", f"--num_executions={call.runs}"]
    if call.threads is not None:
        line.append(f"--cpu_threads={call.threads}")
    # Older versions have no such flag; they run the first method, which is most often this one.
    if call.entry != "forward":
        line.append(f"--method_name={call.entry}")
    if call.inputs:
        line.append(f"--inputs={','.join(call.inputs)}")
    if call.outputs is not None:
        line.append(f"--output_file={call.outputs}")
    return line


def parse(text: str, runs: int) -> Figures:
    """What ``executor_runner`` printed of ``runs`` inferences.

    Raises:
        BrokenStreamError: It did not print what it should.
    """
    total = one(_LOG + rf"Model executed successfully (\d{{1,9}}) time\(s\) in {NUMBER} ms\.", text, "the total time")
    if total is None:
        raise BrokenStreamError(
            "it printed no time. It prints times only where it is built with -DEXECUTORCH_ENABLE_LOGGING=ON "
            "-DEXECUTORCH_LOG_LEVEL=Info, and for Android with -DEXECUTORCH_PAL_DEFAULT=posix: Android's default "
            "writes to logcat."
        )
    if int(total[1]) != runs:
        raise BrokenStreamError(f"it ran {total[1]} inferences where {runs} were asked for.")
    total_ms = number(total[2])
    spans_ms = _iterations(text, runs)
    if spans_ms and abs(sum(spans_ms) - total_ms) > _ROUNDING_MS * (runs + 1):
        raise BrokenStreamError(f"it printed {sum(spans_ms):g} ms in single inferences but {total_ms:g} ms in all.")
    load = one(_LOG + rf"Model loaded in {NUMBER} ms\.", text, "the time of loading")
    threads = one(_LOG + r"Resetting threadpool with num threads = (\d{1,4})", text, "the number of threads")
    first = spans_ms[0] if spans_ms else total_ms if runs == 1 else None
    return Figures(
        spans_ns=tuple(nanoseconds(value, 1e6) for value in spans_ms or [total_ms / runs]),
        each=bool(spans_ms),
        runs=runs,
        warmup=0,
        first_ms=Unavailable(unavailable="only a total was printed") if first is None else first,
        load_ms=number(load[1])
        if load
        else Unavailable(unavailable="executor_runner prints it from version 1.3 on, not this one"),
        threads=int(threads[1]) if threads else None,
    )


def _iterations(text: str, runs: int) -> list[float]:
    """Milliseconds of each inference in order; empty where the version does not print them."""
    found = re.findall(rf"^{_LOG}Iteration (\d{{1,9}}) of (\d{{1,9}}): {NUMBER} ms\r?$", text, re.MULTILINE)
    if found and [(int(place), int(of)) for place, of, _ in found] != [(place, runs) for place in range(1, runs + 1)]:
        raise BrokenStreamError(f"it printed {len(found)} single times, not those of inferences 1 to {runs} in order.")
    return [number(value) for _, _, value in found]
