"""The sampler's rate, its bounds, and what it keeps of each phase."""

from __future__ import annotations

import os
import threading
from time import perf_counter_ns, sleep

import pytest

REQUEST = {"sensors": ["rapl"], "rate_hz": 100, "idle_s": 0.3}
ZONE = "sys/class/powercap/intel-rapl:0/"


@pytest.fixture
def power(harness_module):
    return harness_module("_power")


class Gauge:
    """A sensor that counts how often it was read."""

    name, unit, scale, rails, assumed = "rapl", "mW", 1.0, ["test"], None

    def __init__(self, takes_s=0.0, fails=()):
        self.reads, self.takes_s, self.fails, self.where = 0, takes_s, fails, set()

    def read(self):
        self.reads += 1
        self.where.add((threading.current_thread().name, frozenset(os.sched_getaffinity(0))))
        sleep(self.takes_s)
        if self.reads in self.fails:
            raise OSError(f"reading {self.reads} failed")
        return float(self.reads)


def sampled(sampler, seconds):
    begin = perf_counter_ns()
    sampler.start()
    sleep(seconds)
    sampler.stop()
    times, values = sampler.take()
    assert begin <= times[0] and times[-1] <= perf_counter_ns()
    assert list(times) == sorted(times)
    return times, values


def test_the_rate_does_not_drift(power):
    times, values = sampled(power.Sampler(Gauge(), 100), 1.0)
    assert list(values) == list(range(1, len(values) + 1))
    # Each reading belongs to one deadline of the grid, so that late ones are not made up for.
    assert 80 <= len(times) <= 102
    steps = [(time - times[0]) / 1e7 for time in times]
    early = [step - round(step) for step in steps]
    assert sorted(early)[len(early) // 2] < 0.3


def test_a_slow_sensor_is_read_less_often_and_in_no_burst(power):
    times, _ = sampled(power.Sampler(Gauge(takes_s=0.035), 100), 0.5)
    assert 6 <= len(times) <= 13
    assert min(b - a for a, b in zip(times, times[1:], strict=False)) >= 35_000_000


def test_readings_are_taken_in_a_thread_of_their_own_on_processors_of_their_own(power):
    cpu = max(os.sched_getaffinity(0))
    before, gauge = os.sched_getaffinity(0), Gauge()
    sampled(power.Sampler(gauge, 50, processors=[cpu]), 0.1)
    assert gauge.where == {("power", frozenset([cpu]))}
    assert os.sched_getaffinity(0) == before and "power" not in {thread.name for thread in threading.enumerate()}


def test_failed_readings_are_left_out_and_counted(power):
    sampler = power.Sampler(Gauge(fails=(2, 3)), 1)
    for _ in range(4):
        sampler.now()
    assert list(sampler.take()[1]) == [1, 4]
    assert (sampler.failures, sampler.error) == (2, "reading 3 failed")


def test_what_does_not_fit_is_counted(power):
    sampler = power.Sampler(Gauge(), 1, capacity=3)
    for _ in range(5):
        sampler.now()
    assert list(sampler.take()[1]) == [1, 2, 3] and sampler.lost == 2
    sampler.now()
    assert list(sampler.take()[1]) == [6]


class Line:
    """A channel that keeps what is sent."""

    def __init__(self):
        self.sent = []

    def send(self, kind, /, **fields):
        self.sent.append({"type": kind, **fields})

    def progress(self, stage, done=None, total=None):
        self.send("progress", stage=stage, done=done, total=total)

    def beat(self, done, total=None):
        return False


@pytest.fixture
def meter(power, sysfs):
    root = sysfs({ZONE + "name": "package-0", ZONE + "energy_uj": "100", ZONE + "max_energy_range_uj": "100000"})
    return power.Meter(REQUEST, root=root)


def test_phases_are_kept_apart_and_sent_once(meter, sysfs):
    line = Line()
    meter.idle(line)
    sysfs({ZONE + "energy_uj": "5100"})
    meter.start()
    origin = perf_counter_ns()
    sysfs({ZONE + "energy_uj": "7100"})
    sleep(0.1)
    meter.keep("timed")
    meter.stop()
    meter.send(line, origin, batch=8)
    assert line.sent[0] == {"type": "progress", "stage": "idle", "done": 0, "total": 0}
    batches = [message for message in line.sent if message["type"] == "power"]
    assert all(len(batch["t_ns"]) == len(batch["value"]) <= 8 for batch in batches)
    assert {batch["unit"] for batch in batches} == {"uJ"}
    phases = [batch["phase"] for batch in batches]
    assert phases == sorted(phases) and set(phases) == {"idle", "timed"}
    readings = {
        phase: [
            pair
            for batch in batches
            if batch["phase"] == phase
            for pair in zip(batch["t_ns"], batch["value"], strict=True)
        ]
        for phase in ("idle", "timed")
    }
    assert len(readings["idle"]) >= 20 and {value for _, value in readings["idle"]} == {0}
    assert max(time for time, _ in readings["idle"]) < 0
    first, *_, last = readings["timed"]
    assert first[0] <= 0 < last[0] and (first[1], last[1]) == (5000, 7000)
    meter.send(line, origin, batch=8)
    assert len(line.sent) == 1 + len(batches)
    assert meter.facts() == {"sensor": "rapl", "rails": ["package-0"], "rate_hz": 100, "assumed": None}
    assert list(meter.doubts()) == []


def test_a_counter_that_cannot_be_read_any_more_is_a_doubt(meter, tmp_path):
    (tmp_path / ZONE / "energy_uj").write_text("gone\n")
    meter.start()
    meter.keep("timed")
    meter.stop()
    (doubt,) = meter.doubts()
    assert "readings of the power sensor rapl failed:" in doubt and "energy_uj holds no number" in doubt


def test_no_sensor_and_no_request(power, tmp_path):
    line = Line()
    meter = power.Meter({**REQUEST, "sensors": ["rapl", "power_supply"]}, root=str(tmp_path))
    for each in (meter, power.Meter(None)):
        each.idle(line)
        each.start()
        each.keep("timed")
        each.stop()
        each.send(line, 0, 8)
    assert line.sent == [] and power.Meter(None).facts() is None
    assert meter.facts() == {
        "unavailable": "rapl: this system has no RAPL zone of a processor package in /sys/class/powercap; "
        "power_supply: this system has no battery in /sys/class/power_supply"
    }
