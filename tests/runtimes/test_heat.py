"""Temperature, throttling and the thermal gate, on trees of files as the kernel shows them."""

from __future__ import annotations

import json
import os
import threading
import time

import pytest

ZONE = "sys/class/thermal/thermal_zone"


@pytest.fixture
def heat(harness_module):
    return harness_module("_heat")


@pytest.fixture
def channel(harness_module):
    """A real channel on a pipe; ``lines`` reads what was sent."""
    reader, writer = os.pipe()
    channel = harness_module("_channel").Channel(writer)
    channel.lines = lambda: [json.loads(line) for line in os.read(reader, 1 << 16).splitlines()]
    yield channel
    os.close(reader)
    os.close(writer)


def test_the_hottest_processor_zone(heat, sysfs):
    root = sysfs(
        {
            f"{ZONE}0/type": "battery",
            f"{ZONE}0/temp": "99000",
            f"{ZONE}1/type": "cpu-0-0",
            f"{ZONE}1/temp": "51200",
            f"{ZONE}2/type": "BIG",
            f"{ZONE}2/temp": "58900",
            f"{ZONE}3/type": "soc-therm",
            f"{ZONE}3/temp": "-40000",
        }
    )
    assert heat.temperature_c(root) == 58.9


def test_any_zone_where_none_names_the_processor(heat, sysfs):
    assert heat.temperature_c(sysfs({f"{ZONE}0/type": "acpitz", f"{ZONE}0/temp": "27800"})) == 27.8
    assert heat.temperature_c(sysfs({f"{ZONE}0/type": "acpitz", f"{ZONE}0/temp": "27800.5"})) is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"type": "thermal-cpufreq-0", "cur_state": "0"}, False),
        ({"type": "cpufreq-cpu4", "cur_state": "3"}, True),
        ({"type": "thermal-devfreq-0", "cur_state": "1"}, True),
        ({"type": "Processor", "cur_state": "2"}, True),
        ({"type": "pwm-fan", "cur_state": "4"}, None),
        ({"type": "intel_powerclamp", "cur_state": "-1"}, None),
    ],
)
def test_cooling_devices_that_hold_the_clock_down(files, expected, heat, sysfs):
    root = sysfs({f"sys/class/thermal/cooling_device0/{name}": text for name, text in files.items()})
    assert heat.throttling(root) is expected


@pytest.mark.parametrize(("word", "expected"), [("0", False), ("0x50005", True), ("50000", False), ("8", True)])
def test_the_firmware_of_a_raspberry_pi(word, expected, heat, sysfs):
    """What happened since boot (bits 16 and up) and under-voltage alone are no throttling now."""
    assert heat.throttling(sysfs({"sys/devices/platform/soc/soc:firmware/get_throttled": word})) is expected


def test_throttling_is_noticed_by_counters_and_by_state(heat, sysfs):
    counter = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    over_current = "sys/class/hwmon/hwmon3/oc3_event_cnt"
    root = sysfs({counter: "5", over_current: "27"})
    quiet, heated = heat.Throttle(root), heat.Throttle(root)
    assert heat.throttle_events(root) == 32 and quiet.happened() is False
    sysfs({over_current: "28"})
    assert heated.happened() is True

    device = "sys/class/thermal/cooling_device0/"
    sysfs({device + "type": "cpufreq-cpu0", device + "cur_state": "0"})
    passing = heat.Throttle(root)
    sysfs({device + "cur_state": "2"})
    passing.look()
    sysfs({device + "cur_state": "0"})
    assert passing.happened() is True
    assert heat.Throttle(root).happened() is False


def test_nothing_tells_of_throttling(heat, tmp_path):
    assert heat.Throttle(str(tmp_path)).happened() is None


def test_the_gate_opens_once_the_device_is_cool(heat, channel, sysfs):
    root = sysfs({f"{ZONE}0/type": "cpu", f"{ZONE}0/temp": "61000"})
    cooling = threading.Timer(1.3, sysfs, ({f"{ZONE}0/temp": "44900"},))
    cooling.start()
    start_c, waited_s, doubt = heat.wait_until_cool({"below_c": 45, "wait_s": 30}, channel, root)
    cooling.join()
    assert (start_c, doubt) == (44.9, None) and 1.2 < waited_s < 4
    first, *others = channel.lines()
    assert first == {"type": "progress", "stage": "cooling", "done": 0, "total": 30}
    assert 1 <= len(others) <= waited_s and {line["stage"] for line in others} == {"cooling"}


def test_a_cool_device_does_not_wait(heat, channel, sysfs):
    root = sysfs({f"{ZONE}0/type": "cpu", f"{ZONE}0/temp": "40000"})
    start_c, waited_s, doubt = heat.wait_until_cool({"below_c": 45, "wait_s": 30}, channel, root)
    assert (start_c, doubt) == (40.0, None) and waited_s < 0.2
    channel.progress("reference")
    assert [line["stage"] for line in channel.lines()] == ["reference"]


def test_a_device_that_stays_hot_is_measured_with_a_warning(heat, channel, sysfs):
    root = sysfs({f"{ZONE}0/type": "cpu", f"{ZONE}0/temp": "61000"})
    begin = time.monotonic()
    start_c, waited_s, doubt = heat.wait_until_cool({"below_c": 45, "wait_s": 0.4}, channel, root)
    assert 0.4 <= waited_s <= time.monotonic() - begin < 2 and start_c == 61.0
    assert doubt == "the device was still at 61.0 C after 0 s; the thermal gate wants less than 45 C"


def test_a_gate_without_a_sensor_is_a_warning(heat, channel, tmp_path):
    start_c, waited_s, doubt = heat.wait_until_cool({"below_c": 45, "wait_s": 30}, channel, str(tmp_path))
    assert (start_c, waited_s) == (None, 0.0)
    assert doubt == "no thermal sensor can be read, so that the thermal gate of 45 C could not hold"
