"""What Android's programs print: real forms, missing parts, and text that is hostile."""

from __future__ import annotations

import time
from dataclasses import fields

import pytest

from edge_sdk.devices import _android as android

GETPROP = """\
[dalvik.vm.heapsize]: [512m]
[ro.build.version.release]: [14]
[ro.product.model]: [SM-S926B]
[ro.soc.model]: [s5e9945]
[persist.sys.boot.reason.history]: [reboot,1700000000
reboot,factory_reset,1690000000]
[ro.empty]: []
"""

BATTERY = """\
Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Dock powered: false
  Max charging current: 500000
  Max charging voltage: 5000000
  Charge counter: 3915240
  status: 2
  health: 2
  present: true
  level: 84
  scale: 100
  voltage: 4187
  temperature: 287
  technology: Li-ion
  Charging state: 0
  Charging policy: 0
"""

THERMAL = """\
IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 3
\tkilled: false
\tbroadcasts count: -1
ThermalStatusListeners:
\tcallbacks: 1
\tkilled: false
\tbroadcasts count: -1
Thermal Status: 2
Cached temperatures:
\tTemperature{mValue=61.0, mType=0, mName=BIG, mStatus=3}
HAL Ready: true
HAL connection:
\tThermalHAL AIDL 2  connected: yes
Current temperatures from HAL:
\tTemperature{mValue=46.100002, mType=0, mName=BIG, mStatus=2}
\tTemperature{mValue=44.2, mType=0, mName=LITTLE, mStatus=0}
\tTemperature{mValue=41.5, mType=1, mName=G3D, mStatus=0}
\tTemperature{mValue=38.7, mType=3, mName=SKIN, mStatus=1}
\tTemperature{mValue=30.000002, mType=2, mName=battery, mStatus=0}
\tTemperature{mValue=4200.0, mType=6, mName=vbat, mStatus=0}
\tTemperature{mValue=85.0, mType=8, mName=soc, mStatus=0}
\tTemperature{mValue=NaN, mType=9, mName=NPU, mStatus=0}
\tTemperature{mValue=-5700.0, mType=4, mName=usb, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=88, mType=2, mName=thermal-cpufreq-0}
Temperature static thresholds from HAL:
\tTemperatureThreshold{mType=3, mName=SKIN, mHotThrottlingThresholds=[NaN, 37.0, 39.0]}
"""

DF = """\
Filesystem       1K-blocks     Used Available Use% Mounted on
tmpfs              5592412     1288   5591124   1% /dev
/dev/block/dm-48 112963020 48113464  64849556  43% /data
/dev/fuse        112963020 48113464  64849556  43% /storage/emulated
"""

MEMINFO = """\
Applications Memory Usage (in Kilobytes):
Uptime: 2506973082 Realtime: 2518463375

** MEMINFO in pid 23844 [dev.edgesdk.runner] **
                   Pss  Private  Private  SwapPss      Rss     Heap     Heap     Heap
                 Total    Dirty    Clean    Dirty    Total     Size    Alloc     Free
                ------   ------   ------   ------   ------   ------   ------   ------
  Native Heap   183073   182944        0       62   184000   236736   204535    32200
  Dalvik Heap    12734    12684        0       21    18000    23770    11885    11885
 Dalvik Other     5292     5292        0        3     6000
        Stack      112      112        0        0      120
     .so mmap    11613     1012     4140       53    40000
        TOTAL   219410   204000     4140      139   260000   260506   216420    44085

 App Summary
                       Pss(KB)                        Rss(KB)
                        ------                         ------
           Java Heap:    12734                          18000
         Native Heap:   182944                         184000
               TOTAL:     1111
           TOTAL PSS:   219410            TOTAL RSS:   260000       TOTAL SWAP PSS:      139
"""

OLD_MEMINFO = """\
** MEMINFO in pid 6673 [dev.edgesdk.runner] **
                   Pss  Private  Private  Swapped     Heap     Heap     Heap
                 Total    Dirty    Clean    Dirty     Size    Alloc     Free
                ------   ------   ------   ------   ------   ------   ------
  Native Heap    24102    24020        8     3612    45184    29662    15521
        TOTAL    96541    80100      500     9100    99246    67366    31763
"""


def test_properties():
    found = android.properties(GETPROP)
    assert found["ro.product.model"] == "SM-S926B" and found["ro.empty"] == ""
    assert found["persist.sys.boot.reason.history"] == "reboot,1700000000\nreboot,factory_reset,1690000000"
    assert len(found) == 6


def test_battery():
    found = android.battery(BATTERY)
    assert found == android.Battery(
        level=84,
        scale=100,
        status="charging",
        powered_by=("USB",),
        voltage_mv=4187,
        charge_uah=3915240,
        temperature_c=28.7,
    )
    assert found.is_charging is True


@pytest.mark.parametrize(
    ("status", "powered", "charging"),
    [
        ("2", "false", True),
        ("3", "false", False),
        ("4", "false", False),
        ("5", "false", False),
        ("3", "true", True),  # a cable carries the load even where the battery is not charged
        ("5", "true", True),
        ("1", "false", False),
    ],
)
def test_a_phone_on_a_cable_is_charging(status, powered, charging):
    text = BATTERY.replace("status: 2", f"status: {status}").replace("USB powered: true", f"USB powered: {powered}")
    assert android.battery(text).is_charging is charging


def test_a_state_that_was_set_by_hand_says_nothing():
    text = BATTERY.replace("state:\n", "state:\n  (UPDATES STOPPED -- use 'reset' to restart)\n", 1)
    found = android.battery(text.replace("USB powered: true", "USB powered: false"))
    assert found.is_frozen and found.is_charging is None


def test_a_samsungs_current():
    assert android.battery(BATTERY + "  current now: -412\n").current_now == -412


def test_thermal():
    found = android.thermal(THERMAL)
    assert (found.status, found.status_name, found.throttled) == (2, "moderate", True)
    assert [(sensor.name, sensor.kind) for sensor in found.temperatures] == [
        ("BIG", "CPU"),
        ("LITTLE", "CPU"),
        ("G3D", "GPU"),
        ("SKIN", "SKIN"),
        ("battery", "BATTERY"),
    ]
    assert found.hottest("CPU") == pytest.approx(46.1, abs=0.01), "as it is now, not as it was kept"
    assert found.hottest("NPU") is None
    assert found.temperatures[0].status == 2


def test_thermal_without_the_hardware():
    kept = THERMAL.partition("HAL Ready")[0] + "HAL Ready: false\n"
    assert [sensor.celsius for sensor in android.thermal(kept).temperatures] == [61.0]


def test_a_status_that_was_set_by_hand():
    found = android.thermal(THERMAL.replace("IsStatusOverride: false", "IsStatusOverride: true"))
    assert found.is_overridden and found.throttled is None


def test_volumes():
    assert android.volumes(DF)[1] == android.Volume("/data", 112963020, 64849556)
    assert [volume.mount for volume in android.volumes(DF)] == ["/dev", "/data", "/storage/emulated"]


def test_system_memory():
    found = android.system_memory(
        "MemTotal:       11524096 kB\nMemFree:          254820 kB\nMemAvailable:    4761803 kB\n"
    )
    assert found == android.SystemMemory(11524096, 4761803)


def test_process_memory():
    assert android.process_memory(MEMINFO) == android.ProcessMemory(23844, 219410, 183073, 204535)
    assert android.process_memory(OLD_MEMINFO) == android.ProcessMemory(6673, 96541, 24102, 29662)


def test_no_such_process():
    assert android.process_memory("No process found for: dev.edgesdk.runner\n") == android.ProcessMemory()


NOTHING = "Can't find service: battery\n"


def test_nothing_told_is_nothing_known():
    for read in (android.battery, android.thermal, android.system_memory, android.process_memory):
        for text in ("", NOTHING, "\n" * 50):
            found = read(text)
            values = {getattr(found, field.name) for field in fields(found)}
            assert values <= {None, (), False}
    assert android.battery("").is_charging is None and android.thermal("").throttled is None
    assert android.properties("") == {} and android.volumes("") == []


def test_numbers_out_of_bounds_are_not_told():
    text = BATTERY.replace("level: 84", "level: 99999999999999999999").replace("voltage: 4187", "voltage: -1")
    text = text.replace("temperature: 287", "temperature: 28.7").replace("counter: 3915240", "counter: 0x12")
    found = android.battery(text)
    assert (found.level, found.voltage_mv, found.temperature_c, found.charge_uah) == (None, None, None, None)


def test_of_a_key_that_comes_twice_the_first_counts():
    assert android.battery(BATTERY + "  level: 1\n").level == 84


def test_escapes_are_taken_out():
    assert android.properties("[ro.product.model]: [\x1b[31mred\x1b[0m\u202e]\n") == {"ro.product.model": "red"}
    found = android.thermal(THERMAL.replace("mName=BIG, mStatus=2", "mName=\x1b[2JBIG\x07, mStatus=2"))
    assert found.temperatures[0].name == "BIG"


@pytest.mark.parametrize(
    "piece",
    [
        "\n",
        " ",
        "\t",
        "[a]: [",
        "x: 1\n",
        "Native Heap 1 1 ",
        "Temperature{mValue=1",
        "TOTAL 1\n",
        "** MEMINFO in pid 1 [x]\n",
    ],
)
def test_endless_text_takes_no_time(piece):
    text = "Current temperatures from HAL:\n** MEMINFO in pid 1 [x]\n" + piece * (4_000_000 // len(piece))
    readers = (android.properties, android.battery, android.thermal, android.volumes, android.system_memory)
    begin = time.monotonic()
    for read in (*readers, android.process_memory):
        read(text)
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    ("readings", "options", "unit"),
    [
        ([-412, -390, -2100], {}, "milliamperes"),  # a Samsung phone
        ([-412_000, -390_000], {}, "microamperes"),
        ([5], {}, "milliamperes"),
        ([25_000], {}, "microamperes"),
        ([9_000], {"capacity_mah": 4_900}, "milliamperes"),
        ([900], {"drained_uah": 2_500, "time_s": 10}, "milliamperes"),
        ([900_000], {"drained_uah": 2_500, "time_s": 10}, "microamperes"),
    ],
)
def test_the_unit_of_a_current(readings, options, unit):
    found = android.current_scale(readings, **options)
    assert found and found.to_ma == {"milliamperes": 1, "microamperes": 1e-3}[unit]
    assert found.assumed.startswith(f"current_now in {unit}: ")


@pytest.mark.parametrize(
    ("readings", "options"),
    [
        ([], {}),
        ([0, 0], {}),
        ([15_000], {}),  # 15 A, or 15 mA of an awake phone
        ([1], {}),
        ([10**9], {}),
        ([900], {"drained_uah": 100, "time_s": 10}),  # the counter says 36 mA
    ],
)
def test_a_current_of_no_plausible_unit(readings, options):
    assert android.current_scale(readings, **options) is None


def test_what_was_assumed_is_said():
    found = android.current_scale([-412])
    assert found and found.assumed == (
        "current_now in milliamperes: 412 would be 0.412 mA in the other unit, and 412 mA is plausible"
    )
    counted = android.current_scale([900], drained_uah=2_500, time_s=10)
    assert counted and counted.assumed == "current_now in milliamperes: the charge counter fell by 900 mA"
