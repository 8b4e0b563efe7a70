"""Power, heat and sustained running through the real ONNX Runtime runner, on trees of files as the kernel has them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median

import pytest
import tiny
from pydantic import TypeAdapter

from edge_sdk.profiling.energy import energy
from edge_sdk.profiling.sustained import sustained
from edge_sdk.schema.messages import Message, Power, Result, Samples, Window
from edge_sdk.schema.report import Energy

RUNTIMES = Path(__file__).parents[2] / "runtimes"
ZONE = "sys/class/powercap/intel-rapl:0/"
THERMAL = "sys/class/thermal/thermal_zone0/"
POWER = {"sensors": ["nvml", "rapl"], "rate_hz": 50, "idle_s": 1.0}
LONG = {"min_time_s": 2.5, "max_time_s": 2.5, "ci_within": 1e-9, "warmup_max_s": 0.3}

RUNNER = """
import sys
sys.path.insert(0, {runner!r})
import runner
del sys.path[0]
sys.exit(runner.harness.main(runner.OnnxRuntime(), root={root!r}))
"""


@pytest.fixture
def good(folder, make_request):
    (folder / "tiny.onnx").write_bytes(tiny.onnx_program())
    request = make_request(folder, "tiny.onnx")
    return lambda timing=None, **changes: {**request, "timing": {**request["timing"], **(timing or {})}, **changes}


@pytest.fixture
def listen(tmp_path):
    """Runs a request in a runner with its own ``/sys``; ``hear`` gets each message as it comes."""

    def run(request, hear=lambda message: None):
        (tmp_path / "request.json").write_text(json.dumps(request))
        script = tmp_path / "rooted.py"
        script.write_text(RUNNER.format(runner=str(RUNTIMES / "onnxruntime"), root=str(tmp_path)))
        command = [sys.executable, str(script), str(tmp_path / "request.json")]
        messages = []
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout and process.stderr
            for line in process.stdout:
                messages.append(TypeAdapter(Message).validate_json(line))
                hear(messages[-1])
            assert process.wait() == 0, process.stderr.read().decode()
        return messages

    return run


class FakePackage:
    """A processor package whose counter runs at the watts that are set, and wraps."""

    MOST = 20_000_000

    def __init__(self, sysfs, watts):
        self._sysfs, self.watts, self._energy = sysfs, watts, 1_000_000.0
        self._last = time.perf_counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        sysfs({ZONE + "name": "package-0", ZONE + "max_energy_range_uj": str(self.MOST)})
        self._write()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _write(self):
        now = time.perf_counter()
        self._energy += self.watts * (now - self._last) * 1e6
        self._last = now
        self._sysfs({ZONE + "energy_uj": str(int(self._energy) % self.MOST)})

    def _run(self):
        while not self._stop.wait(0.002):
            self._write()


def of(kind, messages):
    return [message for message in messages if isinstance(message, kind)]


def test_energy_of_a_run_with_known_watts(good, listen, sysfs):
    """3 W idle and 11 W under load, by a counter that wraps on the way."""
    with FakePackage(sysfs, watts=3.0) as package:

        def hear(message):
            if getattr(message, "stage", None) == "load":
                package.watts = 11.0

        messages = listen(good(LONG, power=POWER), hear)
    result = messages[-1]
    assert isinstance(result, Result) and result.power is not None and result.latency is not None
    assert result.power.sensor == "rapl" and result.power.rails == ["package-0"]  # type: ignore[union-attr]
    stages = list(dict.fromkeys(m.stage for m in messages if m.type == "progress"))
    assert stages == ["reference", "idle", "load", "first", "warmup", "timed"]
    batches = of(Samples, messages)
    starts = [ns / 1e6 for batch in batches for ns in batch.start_ns]
    spans = [ns / 1e6 for batch in batches for ns in batch.ns]
    found = energy(of(Power, messages), result.power, starts, spans, charging=None, battery_mwh=None)
    assert isinstance(found, Energy), found
    seconds = (starts[-1] + spans[-1] - starts[0]) / 1e3
    assert found.per_inference == pytest.approx(8000 * seconds / len(spans), rel=0.03)
    assert found.idle_mw == pytest.approx(3000, rel=0.05) and found.mean_mw == pytest.approx(11_000, rel=0.03)


def test_raw_samples_come_while_it_measures(good, listen, folder):
    # The buffer holds 200,000 samples: of one layer alone it would be full before the first sign of life.
    (folder / "tiny.onnx").write_bytes(tiny.onnx_program(idle_steps=200))
    seen: list[tuple[str, float]] = []
    messages = listen(good(LONG), lambda message: seen.append((message.type, time.monotonic())))
    batches, result = of(Samples, messages), messages[-1]
    assert isinstance(result, Result) and result.latency is not None
    starts = [ns for batch in batches for ns in batch.start_ns]
    spans = [ns for batch in batches for ns in batch.ns]
    assert len(starts) == len(spans) == result.latency.samples
    assert starts[0] == 0 and all(a < b for a, b in zip(starts, starts[1:], strict=False))
    assert median(spans) / 1e6 == pytest.approx(result.latency.p50)
    times = [at for kind, at in seen if kind == "sample"]
    assert seen[-1][1] - times[0] > 1.0, "the first batch came only at the end"
    assert all(len(batch.ns) <= 4000 for batch in batches)
    # At most one batch a second before the loop ends: two signs of life fit into 2.5 s.
    assert sum(seen[-1][1] - at > 0.8 for at in times) <= 2


def test_the_gate_holds_a_run_back_until_the_device_is_cool(good, listen, sysfs):
    sysfs({THERMAL + "type": "cpu-thermal", THERMAL + "temp": "64000"})

    def hear(message):
        if getattr(message, "stage", None) == "cooling":
            sysfs({THERMAL + "temp": "41500"})

    messages = listen(good(gate={"below_c": 45.0, "wait_s": 20.0}), hear)
    stages = list(dict.fromkeys(m.stage for m in messages if m.type == "progress"))
    assert stages == ["cooling", "reference", "load", "first", "warmup", "timed"]
    result = messages[-1]
    assert isinstance(result, Result)
    assert result.conditions.temperature_start_c == result.conditions.temperature_c == 41.5
    assert result.conditions.waited_s is not None and 0 < result.conditions.waited_s < 5
    assert not [text for text in result.conditions.warnings if "gate" in text]


def test_a_run_on_a_device_without_sensors(good, listen):
    """Neither a gate nor power that cannot be had ends a run."""
    messages = listen(good(gate={"below_c": 45.0, "wait_s": 20.0}, power={**POWER, "sensors": ["rapl", "ina3221"]}))
    result = messages[-1]
    assert isinstance(result, Result) and not of(Power, messages)
    assert result.conditions.waited_s == 0 and result.conditions.temperature_start_c is None
    assert "no thermal sensor can be read, so that the thermal gate of 45 C could not hold" in (
        result.conditions.warnings
    )
    assert result.power is not None and result.power.unavailable.startswith("rapl: this system has no RAPL zone")  # type: ignore[union-attr]
    assert "; ina3221: this system shows no labelled" in result.power.unavailable  # type: ignore[union-attr]


def test_sustained_running_window_by_window(good, listen, sysfs):
    sysfs({THERMAL + "type": "cpu-thermal", THERMAL + "temp": "50000"})
    cooling = "sys/class/thermal/cooling_device0/"
    sysfs({cooling + "type": "cpufreq-cpu0", cooling + "cur_state": "0"})
    windows = 0

    def hear(message):
        nonlocal windows
        windows += message.type == "window"
        if message.type == "window" and windows == 5:
            sysfs({THERMAL + "temp": "71000", cooling + "cur_state": "2"})

    sustain = {"time_s": 3.0, "window_s": 0.25}
    with FakePackage(sysfs, watts=6.0):
        messages = listen(good(sustain=sustain, power={**POWER, "idle_s": 0.1}), hear)
    found = of(Window, messages)
    assert 10 <= len(found) <= 12
    ends = [window.end_ns / 1e9 for window in found]
    assert all(0.2 < b - a < 0.6 for a, b in zip(ends[:-1], ends[1:-1], strict=False))
    assert all(0 < window.p50_ns <= window.p90_ns <= window.max_ns for window in found)
    assert (found[0].temperature_c, found[0].throttled) == (50.0, False)
    assert (found[-1].temperature_c, found[-1].throttled) == (71.0, True)
    stages = [message.stage for message in messages if message.type == "progress"]
    assert list(dict.fromkeys(stages))[-2:] == ["timed", "sustain"]
    # The conditions are those of the timed part, which came before.
    assert isinstance(messages[-1], Result) and messages[-1].conditions.throttled is False

    report = sustained(found, of(Power, messages))
    assert len(report.windows) == len(found) and report.time_s == pytest.approx(3.0, abs=0.4)
    powers = [window.power_mw for window in report.windows[1:] if window.power_mw is not None]
    assert len(powers) >= 8 and median(powers) == pytest.approx(6000, rel=0.15)
