"""The device's side of the monitor, on trees of files as the kernel shows them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUNTIMES = Path(__file__).parents[2] / "runtimes"
STAT = "cpu  10 0 10 80 0 0 0 0 0 0\ncpu0 {0} 0 10 {1} 5 0 0 0 0 0\ncpu1 20 0 0 {2} 0 0 0 0 0 0\nintr 12 0 3"
HWMON = "sys/bus/i2c/devices/1-0040/hwmon/hwmon3"


@pytest.fixture
def monitor(harness_module):
    return harness_module("monitor")


def watch(monitor, root: str):
    return monitor.Watch(root, nvml="no-such-library.so")


def test_load_counts_from_the_reading_before(monitor, sysfs):
    root = sysfs({"proc/stat": STAT.format(10, 75, 80)})
    seen = watch(monitor, root)
    sysfs({"proc/stat": STAT.format(40, 85, 180)})
    assert seen.read()["cpu_percent"] == [75.0, 0.0]
    assert seen.read()["cpu_percent"] == [0.0, 0.0]


def test_processors_that_come_or_go_leave_a_gap(monitor, sysfs):
    seen = watch(monitor, sysfs({"proc/stat": STAT.format(10, 75, 80)}))
    sysfs({"proc/stat": "cpu0 10 0 10 75 5 0 0 0 0 0"})
    assert seen.read()["cpu_percent"] is None


def test_memory_clocks_temperatures_and_battery(monitor, sysfs):
    root = sysfs(
        {
            "proc/meminfo": "MemTotal:       8000 kB\nMemFree: 1 kB\nMemAvailable:   2000 kB",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone0/temp": "51200",
            "sys/class/thermal/thermal_zone1/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone1/temp": "40000",
            "sys/class/thermal/thermal_zone2/type": "gone",
            "sys/class/thermal/thermal_zone2/temp": "-256000",
            "sys/class/power_supply/BAT0/type": "Battery",
            "sys/class/power_supply/BAT0/status": "Charging",
            "sys/class/power_supply/BAT0/capacity": "81",
        }
    )
    reading = watch(monitor, root).read()
    assert reading["memory"] == {"total_mib": 8000 / 1024, "available_mib": 2000 / 1024}
    assert reading["temperatures_c"] == {"cpu-thermal": 51.2, "cpu-thermal thermal_zone1": 40.0}
    assert reading["battery"] == {"percent": 81, "charging": True}


def test_a_jetsons_rails_and_gpu(monitor, sysfs):
    files = {f"{HWMON}/name": "ina3221", "sys/class/devfreq/17000000.gpu/device/of_node/name": "ga10b\0"}
    for channel, (label, volts, current) in enumerate(
        [("VDD_IN", 5000, 1200), ("VDD_CPU_GPU_CV", 5000, 400), ("VDD_SOC", 5000, 300)], 1
    ):
        files |= {
            f"{HWMON}/in{channel}_label": label,
            f"{HWMON}/in{channel}_input": str(volts),
            f"{HWMON}/curr{channel}_input": str(current),
        }
    files |= {
        "sys/class/devfreq/17000000.gpu/device/load": "423",
        "sys/class/devfreq/17000000.gpu/cur_freq": "624750000",
        "sys/class/devfreq/15340000.vic/device/of_node/name": "vic",
    }
    reading = watch(monitor, sysfs(files)).read()
    assert reading["power_w"] == pytest.approx(6.0)
    assert reading["rails_w"] == {"VDD_IN": 6.0, "VDD_CPU_GPU_CV": 2.0, "VDD_SOC": 1.5}
    (gpu,) = reading["gpus"]
    assert (gpu["name"], gpu["percent"], gpu["mhz"]) == ("ga10b", 42.3, 624.75)
    assert "power" not in reading["unavailable"] and "gpu" not in reading["unavailable"]


def test_a_counter_of_energy_becomes_power(monitor, sysfs):
    zone = "sys/class/powercap/intel-rapl:0"
    root = sysfs(
        {f"{zone}/name": "package-0", f"{zone}/energy_uj": "1000000", f"{zone}/max_energy_range_uj": "9000000"}
    )
    seen = watch(monitor, root)
    sysfs({f"{zone}/energy_uj": "3000000"})
    first = seen.read()["power_w"]
    assert first > 2  # two joules, within less than a second
    assert seen.read()["power_w"] == 0


def test_what_cannot_be_read_has_its_reason(monitor, sysfs):
    reading = watch(monitor, sysfs({"proc/stat": "nothing"})).read()
    for name in ("cpu_percent", "memory", "power_w", "battery", "throttled"):
        assert reading[name] is None
    assert "no-such-library.so" in reading["unavailable"]["gpu"]
    assert "rapl: " in reading["unavailable"]["power"] and reading["unavailable"]["temperatures"]


def test_it_ends_after_its_count_and_when_nobody_reads():
    program = [sys.executable, str(RUNTIMES / "monitor.py"), "0.05"]
    done = subprocess.run([*program, "3"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and done.stderr == ""
    times = [json.loads(line)["t_s"] for line in done.stdout.splitlines()]
    assert len(times) == 3 and times == sorted(times)
    with subprocess.Popen([*program, "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as endless:
        assert endless.stdout and endless.stdout.readline()
        endless.stdout.close()
        assert endless.wait(10) == 0
