"""Power sensors, on trees of files as the kernel shows them and on a library with NVML's binary interface."""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

RAPL = "sys/class/powercap/intel-rapl:"
SUPPLY = "sys/class/power_supply/"

# The functions of NVML that the sensor calls, with its names and types; one GPU that draws 50 W.
NVML = r"""
#include <string.h>
static unsigned long long energy_mj = 1000000;
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = GPUS; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(long)(index + 1); return 0; }
int nvmlDeviceGetName(void *device, char *name, unsigned length) { strncpy(name, "Test GPU", length); return 0; }
int nvmlDeviceGetPowerUsage(void *device, unsigned *mw) { *mw = 50000 * (unsigned)(long)device; return 0; }
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *mj) {
    energy_mj += 5; *mj = energy_mj; return ENERGY;
}
int nvmlSystemGetDriverVersion(char *text, unsigned length) { strncpy(text, "580.65.06", length); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 13010; return 0; }
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) { *major = 8; *minor = 6; return 0; }
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *m) { m[0] = 8ull << 30; m[1] = 6ull << 30; return 0; }
int nvmlDeviceGetClockInfo(void *device, unsigned kind, unsigned *mhz) { *mhz = kind == 1 ? 1410 : 9501; return 0; }
int nvmlDeviceGetMaxClockInfo(void *device, unsigned kind, unsigned *mhz) { *mhz = 2100; return 0; }
int nvmlDeviceGetTemperature(void *device, unsigned sensor, unsigned *celsius) { *celsius = 71; return 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *bits) { *bits = 0x45; return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, void *found) { *count = 0; return 0; }
"""


@pytest.fixture
def sensors(harness_module):
    return harness_module("_sensors")


@pytest.fixture
def battery(harness_module):
    return harness_module("_battery")


def package(index, energy, name=None, most=262143328850):
    zone = f"{RAPL}{index}/"
    return {
        zone + "name": name or f"package-{index}",
        zone + "energy_uj": str(energy),
        zone + "max_energy_range_uj": str(most),
    }


def test_rapl_adds_packages_and_nothing_inside_or_around_them(sensors, sysfs):
    files = {**package(0, 1000), **package(1, 500), **package(2, 77, "psys"), **package("0:0", 900, "core")}
    root = sysfs(files)
    rapl = sensors.Rapl(root)
    assert (rapl.rails, rapl.unit, rapl.read()) == (["package-0", "package-1"], "uJ", 0)
    sysfs({f"{RAPL}0/energy_uj": "4000", f"{RAPL}1/energy_uj": "700", f"{RAPL}2/energy_uj": "9999"})
    assert rapl.read() == 3200


def test_a_rapl_counter_that_starts_again_goes_on(sensors, sysfs):
    root = sysfs(package(0, 999_900, most=1_000_000))
    rapl = sensors.Rapl(root)
    readings = []
    for energy in (999_990, 40, 300, 999_999, 1):
        sysfs({f"{RAPL}0/energy_uj": str(energy)})
        readings.append(rapl.read())
    assert readings == [90, 140, 400, 1_000_099, 1_000_101]


def test_a_rapl_counter_that_starts_again_without_a_range_is_no_reading(sensors, sysfs):
    root = sysfs(package(0, 50, most="?"))
    rapl = sensors.Rapl(root)
    sysfs({f"{RAPL}0/energy_uj": "10"})
    with pytest.raises(OSError, match="started again and its range is not told"):
        rapl.read()


def test_no_rapl(sensors, tmp_path):
    assert sensors.open_sensor(["rapl"], str(tmp_path)) == (
        None,
        ["rapl: this system has no RAPL zone of a processor package in /sys/class/powercap"],
    )


def test_rapl_that_only_root_may_read(sensors):
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        for name, text in package(0, 5).items():
            path = Path(root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        path = Path(root, f"{RAPL}0/energy_uj")
        path.chmod(0)
        with as_another_user():
            _, (reason,) = sensors.open_sensor(["rapl"], root)
    assert reason.startswith("rapl: it is readable by root only (since CVE-2020-8694); run as root")
    assert reason.endswith(f"sudo chmod a+r {path}")


@contextmanager
def as_another_user():
    """Root may read everything, and so is somebody else for a while."""
    if os.getuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def nvml(tmp_path):
    """Compiles a stand-in for the driver's library."""

    def build(gpus, energy):
        source, library = tmp_path / "nvml.c", tmp_path / f"libnvidia-ml-{gpus}-{energy}.so.1"
        source.write_text(NVML)
        flags = [f"-DGPUS={gpus}", f"-DENERGY={energy}"]
        try:
            subprocess.run(["cc", "-shared", "-fPIC", *flags, "-o", library, source], check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip("no C compiler is installed: apt install gcc")
        return str(library)

    return build


def test_nvml_counts_energy(sensors, nvml):
    sensor = sensors.Nvml(nvml(1, 0))
    assert (sensor.unit, sensor.rails, sensor.assumed) == ("uJ", ["GPU 0 Test GPU"], None)
    assert sensor.read() - sensor.read() == -5000


def test_nvml_reads_power_where_there_is_no_counter(sensors, nvml):
    sensor = sensors.Nvml(nvml(2, 3))
    assert (sensor.unit, sensor.read()) == ("mW", 150_000)
    assert sensor.rails == ["GPU 0 Test GPU", "GPU 1 Test GPU"]
    assert sensor.assumed == "all 2 GPUs are added up; idle power takes off those not used"


def test_a_gpus_state_and_what_holds_its_clock_down(harness_module, nvml):
    """Idle (bit 0) is no throttling; a power cap (bit 2) and heat (bit 6) are."""
    watch = harness_module("_gpu").Watch(None, nvml(1, 0))
    assert watch.look() is True
    assert watch.figures() == {
        "driver": "580.65.06",
        "sm_mhz": 1410,
        "sm_most_mhz": 2100,
        "memory_mhz": 9501,
        "temperature_c": 71,
        "throttle_reasons": ["software power cap", "hardware thermal slowdown"],
    }
    assert watch.process_mib() is None  # the driver lists other processes only


def test_which_of_several_gpus_is_watched_is_not_guessed(harness_module, nvml):
    watch = harness_module("_gpu").Watch(None, nvml(2, 0))
    assert watch.look() is None and watch.why == "there are 2 GPUs, and which one is used is not known"
    assert watch.figures()["throttle_reasons"] is None


def test_the_driver_as_the_host_reads_it(harness_module, nvml):
    library = harness_module("_nvml").Library(nvml(1, 0))
    (gpu,) = library.gpus()
    assert (library.driver(), library.cuda(), gpu.capability()) == ("580.65.06", (13, 1), "8.6")
    assert gpu.memory() == (8 << 30, 6 << 30)


def test_nvml_without_a_gpu_or_a_driver(sensors, nvml):
    with pytest.raises(OSError, match="the NVIDIA driver sees no GPU"):
        sensors.Nvml(nvml(0, 0))
    with pytest.raises(OSError, match="the NVIDIA driver's library cannot be opened: libnone.so"):
        sensors.Nvml("libnone.so")


def cell(name="battery", **files):
    known = {"type": "Battery", "status": "Discharging", "voltage_now": "4000000", **files}
    return {f"{SUPPLY}{name}/{file}": text for file, text in known.items()}


def test_a_battery_that_tells_its_power(battery, sysfs):
    supply = battery.PowerSupply(sysfs(cell("BAT0", power_now="7654000", current_now="1")))
    assert (supply.read(), supply.scale, supply.assumed, supply.rails) == (7654.0, 1.0, None, ["BAT0"])


@pytest.mark.parametrize(
    ("current", "files", "mw", "assumed"),
    [
        # In microamperes as documented, discharging as a negative or as a positive figure.
        ("-450000", {"charge_full": "4900000"}, 1800, "current_now is in uA: its largest figure, 450000, would in mA"),
        ("450000", {"charge_full": "4900000"}, 1800, "fit a capacity of 4900 mAh (charge_full)"),
        # In milliamperes, as some phones do.
        ("-450", {"charge_full": "4900000"}, 1800, "current_now is in mA: its largest figure, 450, would in uA"),
        ("450", {"charge_full_design": "4900"}, 1800, "fit a capacity of 4900 mAh (charge_full_design)"),
        ("450", {"charge_counter": "2450000", "capacity": "50"}, 1800, "4900 mAh (charge_counter and capacity)"),
        # Near the border: 4 A in milliamperes, and 25 mA in microamperes.
        ("4000", {"charge_full": "4900000"}, 16_000, "current_now is in mA"),
        ("25000", {"charge_full": "4900000"}, 100, "current_now is in uA"),
        # A watch's small battery, and a laptop's large one.
        ("3000", {"charge_full": "300000"}, 12, "current_now is in uA"),
        ("900000", {"charge_full": "12000000"}, 3600, "current_now is in uA"),
        ("450", {}, 1800, "a capacity of 5000 mAh (assumed, as the battery tells none)"),
    ],
)
def test_the_unit_of_a_current_is_settled_by_plausibility(current, files, mw, assumed, battery, sysfs):
    supply = battery.PowerSupply(sysfs(cell(current_now=current, **files)))
    assert supply.read() * supply.scale == pytest.approx(mw)
    assert assumed in supply.assumed


def test_the_unit_is_settled_by_the_largest_current_of_all(battery, sysfs):
    """An idle phone's few milliamperes look like either; what it draws under load does not."""
    root = sysfs(cell(current_now="15000", charge_full="4900000"))
    supply = battery.PowerSupply(root)
    idle = supply.read()
    sysfs(cell(current_now="600000", charge_full="4900000"))
    load = supply.read()
    assert idle * supply.scale == 60 and load * supply.scale == 2400


def test_batteries_are_added_up_and_those_of_a_mouse_are_not(battery, sysfs):
    files = {
        **cell("BAT0", power_now="5000000"),
        **cell("BAT1", power_now="2000000"),
        **cell("BAT2", power_now="100000", present="0"),
        **cell("hid-mouse", power_now="100000", scope="Device", status="Charging"),
    }
    supply = battery.PowerSupply(sysfs(files))
    assert (supply.read(), supply.rails) == (7000.0, ["BAT0", "BAT1"])


@pytest.mark.parametrize("status", ["Charging", "Full", "Not charging"])
def test_a_battery_on_a_cable_is_refused(status, sensors, sysfs):
    root = sysfs(cell(power_now="5000000", status=status))
    _, (reason,) = sensors.open_sensor(["power_supply"], root)
    assert reason == f"power_supply: the battery battery is on a cable (status '{status}'); unplug it"


def test_a_cable_that_feeds_less_than_is_drawn_is_refused_too(sensors, sysfs):
    files = {**cell(power_now="5000000"), f"{SUPPLY}usb/type": "USB", f"{SUPPLY}usb/online": "1"}
    assert sensors.open_sensor(["power_supply"], sysfs(files))[1] == [
        "power_supply: the device is fed by usb; unplug it"
    ]


def test_a_cable_that_is_plugged_in_later_ends_the_readings(battery, sysfs, monkeypatch):
    monkeypatch.setattr(battery, "CABLE_S", 0.0)
    files = {**cell(power_now="5000000"), f"{SUPPLY}usb/type": "USB", f"{SUPPLY}usb/online": "0"}
    supply = battery.PowerSupply(sysfs(files))
    assert supply.read() == 5000
    sysfs({f"{SUPPLY}usb/online": "1"})
    with pytest.raises(OSError, match="the device is fed by usb"):
        supply.read()


def test_a_battery_that_tells_nothing(sensors, sysfs):
    assert (
        "tells neither power_now nor current_now and voltage_now"
        in sensors.open_sensor(["power_supply"], sysfs(cell()))[1][0]
    )


def test_the_first_sensor_that_can_be_read_and_why_not_the_others(sensors, sysfs):
    sensor, reasons = sensors.open_sensor(["ina3221", "battery", "rapl"], sysfs(package(0, 5)))
    assert sensor.name == "rapl" and len(reasons) == 2
    assert reasons[0].startswith("ina3221: this system shows no labelled INA3221 channel in hwmon")
    assert reasons[1] == (
        "battery: only the app can read Android's BatteryManager, and of the files: this system has no battery in "
        "/sys/class/power_supply"
    )


def test_androids_battery_by_the_same_files(sensors, sysfs):
    sensor, _ = sensors.open_sensor(["battery"], sysfs(cell(current_now="-300000", charge_full="4000000")))
    assert (sensor.name, sensor.read() * sensor.scale) == ("power_supply", 1200)


def test_a_device_without_the_jetson_side_says_so(sensors, monkeypatch, tmp_path):
    monkeypatch.setattr(sensors, "JETSON", str(tmp_path / "jetson"))
    _, (reason,) = sensors.open_sensor(["ina3221"])
    assert reason == f"ina3221: the Jetson side of Edge SDK is not on this device; expected {tmp_path}/jetson"
