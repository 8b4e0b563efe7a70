"""The harness's loop and a bare one in turns: ``python loops.py OUT.json RUNTIME WANTED_MS ROUNDS TURN_S``.

One process loads one model once, so that nothing but the loops differs. The harness's side is the
runner's own binding under the timed part of ``runtimes/_timing.py``, with its stop rule and its
signs of life; the other is what anyone would write.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter_ns

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks._device_modules import device_module
from benchmarks.programs import _chain

OPEN = {"onnxruntime": _chain.open_onnxruntime, "executorch": _chain.open_executorch}
TRIAL_LAYERS, TRIAL_RUNS = 4, 50


def main(out: str, runtime: str, wanted_ms: str, rounds: str, turn_s: str) -> None:
    """Sizes the model, warms it up, and writes the samples of both loops."""
    with tempfile.TemporaryDirectory() as folder:
        opened = _sized(runtime, float(wanted_ms), Path(folder))
        typical_ms = _warm_up(opened)
        count = max(3, round(float(turn_s) * 1e3 / typical_ms))
        harness, bare = _Harness(opened, count, typical_ms), _Bare(opened, count)
        found: dict[str, list[list[float]]] = {"harness_ms": [], "bare_ms": []}
        for turn in range(int(rounds)):
            sides = [("harness_ms", harness), ("bare_ms", bare)]
            for name, side in sides if turn % 2 == 0 else reversed(sides):
                found[name].append([span / 1e6 for span in side.turn()])
    Path(out).write_text(json.dumps(found))


class _Harness:
    """Turns of the harness's timed part."""

    def __init__(self, opened: _chain.Opened, count: int, typical_ms: float) -> None:
        self._timing = device_module("_timing")
        self._recorder = self._timing.Recorder(["forward"])
        self._recorder.calls = [opened.bound]
        self._typical_ns = max(1, int(typical_ms * 1e6))
        self._until = {"min_runs": count, "min_time_s": 0.0, "max_time_s": 60.0, "ci_within": 1e9}
        self._channel = device_module("_channel").Channel(os.open(os.devnull, os.O_WRONLY))

    def turn(self) -> list[int]:
        count, _, _ = self._timing.measure(self._recorder, self._until, self._typical_ns, self._channel.beat)
        return list(self._recorder.spans[:count])


class _Bare:
    """Turns of a loop without a harness."""

    def __init__(self, opened: _chain.Opened, count: int) -> None:
        self._opened, self._count = opened, count

    def turn(self) -> list[int]:
        function, arguments, spans = self._opened.function, self._opened.arguments, []
        for _ in range(self._count):
            begin = perf_counter_ns()
            function(*arguments)
            spans.append(perf_counter_ns() - begin)
        return spans


def _sized(runtime: str, wanted_ms: float, folder: Path) -> _chain.Opened:
    """The model with as many layers as take about the wanted time."""
    trial_ms = _warm_up(OPEN[runtime](TRIAL_LAYERS, folder))
    return OPEN[runtime](max(1, round(wanted_ms / trial_ms * TRIAL_LAYERS)), folder)


def _warm_up(opened: _chain.Opened) -> float:
    """The median of some runs in milliseconds."""
    return median(_Bare(opened, TRIAL_RUNS).turn()) / 1e6


if __name__ == "__main__":
    main(*sys.argv[1:])
