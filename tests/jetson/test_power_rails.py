"""The rails of the boards that JetPack 5 and newer know, with labels as their device trees give them."""

from __future__ import annotations

import pytest

ORIN_NANO = {0x40: {1: ("VDD_IN", 5072, 1096), 2: ("VDD_CPU_GPU_CV", 5072, 296), 3: ("VDD_SOC", 5072, 288)}}
AGX_ORIN = {
    0x40: {1: ("VDD_GPU_SOC", 19_000, 200), 2: ("VDD_CPU_CV", 19_000, 50), 3: ("VIN_SYS_5V0", 5000, 900)},
    0x41: {1: ("NC", 0, 0), 2: ("VDDQ_VDD2_1V8AO", 5000, 220), 3: ("NC", 0, 0)},
}
AGX_XAVIER = {
    0x40: {1: ("GPU", 19_000, 10), 2: ("CPU", 19_000, 30), 3: ("SOC", 19_000, 60)},
    0x41: {1: ("CV", 19_000, 0), 2: ("VDDRQ", 19_000, 20), 3: ("SYS5V", 5000, 400)},
}


@pytest.fixture
def rails(jetson):
    return jetson("power_rails")


@pytest.mark.parametrize(
    ("chips", "names", "mw"),
    [
        (ORIN_NANO, ["VDD_IN"], 5072 * 1096 / 1e3),
        (AGX_ORIN, ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"], 19 * 250 + 5 * 900),
        (AGX_XAVIER, ["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"], 19 * 120 + 5 * 400),
    ],
)
def test_no_power_counts_twice(chips, names, mw, rails, monitors):
    sensor = rails.PowerRails(monitors(chips))
    assert (sensor.name, sensor.unit, sensor.rails, sensor.assumed) == ("ina3221", "mW", names, None)
    assert sensor.read() == pytest.approx(mw)


def test_readings_follow_the_files(rails, monitors):
    sensor = rails.PowerRails(monitors(ORIN_NANO))
    monitors({0x40: {1: ("VDD_IN", 5000, 2000)}})
    assert sensor.read() == 10_000


def test_a_kernel_that_shows_hwmon_only(rails, monitors):
    assert rails.PowerRails(monitors(ORIN_NANO, "sys/class/hwmon")).rails == ["VDD_IN"]


def test_a_monitor_that_is_found_on_both_ways_counts_once(rails, monitors):
    monitors(AGX_ORIN, "sys/class/hwmon")
    assert rails.PowerRails(monitors(AGX_ORIN)).read() == pytest.approx(9250)


def test_rails_that_are_not_known_are_added_up_and_named(rails, monitors):
    sensor = rails.PowerRails(monitors({0x40: {1: ("VDD_GPU_SOC", 5000, 100), 2: ("CAMERA", 5000, 20)}}))
    assert sensor.rails == ["VDD_GPU_SOC", "CAMERA"]
    assert sensor.assumed == "no rail feeds another; not known of CAMERA"


def test_a_small_negative_current_is_none(rails, monitors):
    assert rails.PowerRails(monitors({0x40: {1: ("VDD_IN", 5000, -8)}})).read() == 0


@pytest.mark.parametrize("chips", [{}, {0x40: {1: (None, 5000, 100)}}, {0x40: {1: ("NC", 0, 0)}}])
def test_no_rails(chips, rails, monitors, tmp_path):
    monitors(chips)
    with pytest.raises(OSError, match="no labelled INA3221 channel in hwmon; a Jetson with JetPack 5 or newer does"):
        rails.PowerRails(str(tmp_path))


def test_a_file_that_holds_no_number(rails, monitors, tmp_path):
    sensor = rails.PowerRails(monitors(ORIN_NANO))
    (tmp_path / "sys/bus/i2c/devices/1-0040/hwmon/hwmon2/curr1_input").write_text("N/A\n")
    with pytest.raises(OSError, match="curr1_input holds no number: 'N/A'"):
        sensor.read()
