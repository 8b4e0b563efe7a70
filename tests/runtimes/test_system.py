"""What the system tells, and what is made of it in words."""

from __future__ import annotations

import mmap
import os
import sys
import time

import pytest

MIB = 2**20
TIMING = {"warmup_max_s": 1.0, "min_runs": 50, "min_time_s": 1.0, "ci_within": 0.02}
LATENCY = {"samples": 60, "warmup": 9, "ci95": [9.9, 10.0], "std": 0.1, "mean": 10.0}

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


@pytest.fixture
def system(harness_module):
    return harness_module("_system")


@pytest.fixture
def doubts(harness_module):
    return harness_module("_doubts")


def taken(mib: int) -> mmap.mmap:
    """Resident memory straight from the system: an allocator may hand out what earlier tests left resident."""
    block = mmap.mmap(-1, mib * MIB)
    for place in range(0, mib * MIB, mmap.PAGESIZE):
        block[place] = 1
    return block


@linux
def test_the_peak_counts_from_the_reset_on(system):
    taken(200).close()
    memory = system.Memory()
    taken(64).close()
    figures = memory.figures()
    assert 60 < figures["model"] < 100
    assert figures["peak"] == figures["baseline"] + figures["model"]
    assert figures["method"] == "VmHWM of the runner's process, reset before the model was loaded"


@linux
def test_a_high_water_mark_that_cannot_be_reset_is_not_taken_for_the_models(system, monkeypatch):
    taken(200).close()
    monkeypatch.setattr(system.Memory, "_reset_peak", staticmethod(lambda: False))
    memory = system.Memory()
    block = taken(32)
    memory.look()
    block.close()
    figures = memory.figures()
    assert 28 < figures["model"] < 60
    assert figures["method"] == "largest VmRSS seen between steps; VmHWM could not be reset"


def test_without_proc_the_largest_size_ever_is_named_as_such(system, monkeypatch):
    monkeypatch.setattr(system, "status", lambda key: None)
    figures = system.Memory().figures()
    assert figures["peak"] > 10 and "ru_maxrss" in figures["method"]


def test_what_cannot_be_known_is_none(system):
    for reader in (system.governor, system.cpu_mhz, system.charging):
        value = reader()
        assert value is None or value or value in (0, False)
    assert system.read("/nowhere") is None and system.read_int("/proc/self/status") is None


POLICY = "sys/devices/system/cpu/cpufreq/policy"


def policy(name, cpus, governor, now, limit=3_000_000, most=3_000_000):
    return {
        f"{POLICY}{name}/related_cpus": cpus,
        f"{POLICY}{name}/scaling_governor": governor,
        f"{POLICY}{name}/scaling_cur_freq": str(now),
        f"{POLICY}{name}/scaling_max_freq": str(limit),
        f"{POLICY}{name}/cpuinfo_max_freq": str(most),
    }


@linux
def test_every_clock_domain_in_use_counts(system, sysfs, monkeypatch):
    own = min(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {own, 4000})
    files = {
        **policy(0, str(own), "schedutil", 1_200_000),
        **policy(10, "4000 4001", "performance", 2_900_000, limit=2_100_000),
        **policy(4, "5000", "powersave", 4_000_000, limit=1),
    }
    root = sysfs(files)
    assert [each["name"] for each in system.cpu_policies(root)] == ["policy0", "policy10"]
    assert system.governor(root) == "policy0 schedutil, policy10 performance"
    assert system.cpu_mhz(root) == 2900
    assert system.limited_clocks(root) == ["policy10 2100 of 3000 MHz"]
    sysfs({f"{POLICY}10/scaling_governor": "schedutil", f"{POLICY}10/scaling_max_freq": "3000000"})
    assert system.governor(root) == "schedutil" and system.limited_clocks(root) == []


def test_the_clock_where_there_is_no_cpufreq(system, sysfs):
    assert system.cpu_mhz(sysfs({"proc/cpuinfo": "cpu MHz\t\t: 2245.780\ncpu MHz\t\t: 3100.5"})) == 3100.5
    assert system.governor(sysfs({})) is None


def test_a_mouse_that_charges_does_not_count(system, sysfs):
    supply = "sys/class/power_supply/"
    root = sysfs({supply + "m/type": "Battery", supply + "m/scope": "Device", supply + "m/status": "Charging"})
    assert system.charging(root) is None
    sysfs({supply + "b/type": "Battery", supply + "b/status": "Discharging"})
    assert system.charging(root) is False
    sysfs({supply + "b/status": "Charging"})
    assert system.charging(root) is True


@linux
def test_own_work_is_not_other_load(system):
    load = system.OtherLoad()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        pass
    shares = load.shares()
    assert shares is None or all(0 <= share <= 1 for share in shares)


def test_no_doubts(doubts):
    assert list(doubts.of_run(TIMING, LATENCY, True, True, 2e9, False)) == []
    assert list(doubts.of_drift([10] * 100)) == []
    assert list(doubts.of_load((0.01, 0.0), 0.1, False)) == []


@pytest.mark.parametrize(
    ("changes", "steady", "narrow", "elapsed_ns", "full", "text"),
    [
        ({}, False, True, 2e9, False, "the latency was not steady after 9 runs of warm-up"),
        ({"samples": 3}, True, True, 2e9, False, "only 3 of 50 runs fitted into max_time_s"),
        ({}, True, True, 0.5e9, True, "the sample buffer was full after 0.50 s"),
        ({}, True, False, 2e9, False, "interval of the median, 9.9 to 10 ms, is wider than 2 % of it after 2.0 s"),
        ({"std": 2.0}, True, True, 2e9, False, "the latency varies: its standard deviation is 20 % of its mean"),
    ],
)
def test_doubts_of_a_run(changes, steady, narrow, elapsed_ns, full, text, doubts):
    (found,) = doubts.of_run(TIMING, {**LATENCY, **changes}, steady, narrow, elapsed_ns, full)
    assert text in found


def test_doubts_of_drift(doubts):
    (found,) = doubts.of_drift([10] * 50 + [12] * 50)
    assert "rose by 20 % from the first quarter" in found
    assert list(doubts.of_drift([10] * 5 + [12] * 5)) == []


def test_doubts_of_load(doubts):
    assert list(doubts.of_load((0.3, 0.2), None, True)) == [
        "the processor throttled during the run",
        "other programs took 30 % of the processors' time during the run",
        "the hypervisor took 20 % of the processors' time during the run",
    ]
    (found,) = doubts.of_load(None, 1000.0, None)
    assert "the load average was 1000.0 on" in found


def test_doubts_of_the_clock(doubts):
    assert list(doubts.of_clock([])) == []
    (found,) = doubts.of_clock(["policy4 2100 of 2900 MHz"])
    assert found == "the highest clock that is allowed is lower than the processor's: policy4 2100 of 2900 MHz"
