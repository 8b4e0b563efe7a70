"""What Android's own programs print, as values. Nothing of it is trusted: what is not told, or not in bounds, is None.

Each function takes the text of one program. Of a key that comes twice the first value counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from edge_sdk.devices._protocol import plain

_MOST_TEXT = 1 << 18
_MOST_ITEMS = 1000
_NAME = 100
_VALUE = 1000

_BATTERY_STATUS = {1: "unknown", 2: "charging", 3: "discharging", 4: "not charging", 5: "full"}
_THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
_KINDS = {
    -1: "unknown",
    0: "CPU",
    1: "GPU",
    2: "BATTERY",
    3: "SKIN",
    4: "USB_PORT",
    5: "POWER_AMPLIFIER",
    6: "BCL_VOLTAGE",
    7: "BCL_CURRENT",
    8: "BCL_PERCENTAGE",
    9: "NPU",
    10: "TPU",
    11: "DISPLAY",
    12: "MODEM",
    13: "SOC",
    14: "WIFI",
    15: "CAMERA",
    16: "FLASHLIGHT",
    17: "SPEAKER",
    18: "AMBIENT",
    19: "POGO",
}
_NO_TEMPERATURE = {"BCL_VOLTAGE", "BCL_CURRENT", "BCL_PERCENTAGE", "unknown"}
_CELSIUS = (-40.0, 200.0)

_USUAL_MAH = 5000.0
_MOST_C = 2.0
_LEAST_AWAKE_MA = 20.0
_LEAST_TOLD_MA = 5.0


def properties(getprop: str) -> dict[str, str]:
    """The properties that ``getprop`` lists as ``[NAME]: [VALUE]``; a value may go over several lines.

    Source: AOSP, system/core/toolbox/getprop.cpp.
    """
    found = re.finditer(
        rf"^\[([^\]\n]{{1,{_NAME}}})\]: \[(.{{0,{_VALUE}}}?)\]$", _clean(getprop), re.MULTILINE | re.DOTALL
    )
    values: dict[str, str] = {}
    for match in found:
        if len(values) >= 10 * _MOST_ITEMS:
            break
        values.setdefault(match[1], match[2])
    return values


@dataclass(frozen=True)
class Battery:
    """What ``dumpsys battery`` tells.

    Attributes:
        level: Of ``scale``.
        scale: What a full battery has as ``level``.
        status: ``unknown``, ``charging``, ``discharging``, ``not charging`` or ``full``.
        powered_by: Chargers that are connected, such as ``USB``; None where it tells of no charger.
        voltage_mv: Of the battery.
        charge_uah: Charge that is left, by the coulomb counter.
        temperature_c: Of the battery.
        current_now: As Samsung's phones tell it; the unit is to be decided by `current_scale`.
        is_frozen: The values were set by hand (``dumpsys battery unplug`` and the like) and are not the battery's.
    """

    level: int | None = None
    scale: int | None = None
    status: str | None = None
    powered_by: tuple[str, ...] | None = None
    voltage_mv: int | None = None
    charge_uah: int | None = None
    temperature_c: float | None = None
    current_now: int | None = None
    is_frozen: bool = False

    @property
    def is_charging(self) -> bool | None:
        """Whether energy comes in, so that no figure of the battery is valid; None where it cannot be known.

        A phone on a cable runs on it, whatever the status says.
        """
        if self.is_frozen:
            return None
        if self.status == "charging" or self.powered_by:
            return True
        if self.status in ("discharging", "not charging") or self.powered_by == ():
            return False
        return None


def battery(dumpsys: str) -> Battery:
    """The state of the battery, from ``dumpsys battery``.

    Source: AOSP, services/core/java/com/android/server/BatteryService.java, ``dumpInternal``; units and
    codes: android.os.BatteryManager, hardware/interfaces/health (millivolts, microampere hours, tenths of a
    degree). ``current now`` is Samsung's.
    """
    text = _clean(dumpsys)
    fields = _fields(text)
    told = {
        name.removesuffix(" powered"): value for name, value in fields.items() if re.fullmatch(r"\w+ powered", name)
    }
    temperature = _int(fields.get("temperature"), -400, 2000)
    return Battery(
        level=_int(fields.get("level"), 0, 10_000),
        scale=_int(fields.get("scale"), 1, 10_000),
        status=_BATTERY_STATUS.get(_int(fields.get("status"), 1, 5) or 0),
        powered_by=tuple(name for name, value in told.items() if value == "true") if told else None,
        voltage_mv=_int(fields.get("voltage"), 1, 50_000),
        charge_uah=_int(fields.get("Charge counter"), 1, 10**9),
        temperature_c=None if temperature is None else temperature / 10,
        current_now=_int(fields.get("current now"), -(10**9), 10**9),
        is_frozen="UPDATES STOPPED" in text,
    )


@dataclass(frozen=True)
class Temperature:
    """A sensor: its name, its kind (``CPU``, ``SKIN``, ``BATTERY``, ...), and how far it throttles (0 to 6)."""

    name: str
    kind: str
    celsius: float
    status: int | None


@dataclass(frozen=True)
class Thermal:
    """What ``dumpsys thermalservice`` tells.

    Attributes:
        status: 0 (none) to 6 (shutdown).
        temperatures: As the hardware tells them now, else as they were kept last.
        is_overridden: The status was set by hand and is not the device's.
    """

    status: int | None = None
    temperatures: tuple[Temperature, ...] = ()
    is_overridden: bool = False

    @property
    def status_name(self) -> str | None:
        """``none``, ``light``, ``moderate``, ``severe``, ``critical``, ``emergency`` or ``shutdown``."""
        return None if self.status is None else _THERMAL_STATUS[self.status]

    @property
    def throttled(self) -> bool | None:
        """Whether the system throttles; None where it does not tell."""
        return None if self.status is None or self.is_overridden else self.status > 0

    def hottest(self, kind: str) -> float | None:
        """The highest temperature of the sensors of a kind."""
        return max((sensor.celsius for sensor in self.temperatures if sensor.kind == kind), default=None)


def thermal(dumpsys: str) -> Thermal:
    """Throttling and temperatures, from ``dumpsys thermalservice``.

    Source: AOSP, services/core/java/com/android/server/power/ThermalManagerService.java, ``dumpInternal``;
    android.os.Temperature (form and kinds); PowerManager.THERMAL_STATUS_*.
    """
    text = _clean(dumpsys)
    kept = _temperatures(_section(text, "Cached temperatures:"))
    now = _temperatures(_section(text, "Current temperatures from HAL:"))
    status = re.search(r"^[ \t]*Thermal Status: ([0-6])[ \t]*$", text, re.MULTILINE)
    return Thermal(
        status=int(status[1]) if status else None,
        temperatures=now or kept,
        is_overridden=bool(re.search(r"^[ \t]*IsStatusOverride: true[ \t]*$", text, re.MULTILINE)),
    )


@dataclass(frozen=True)
class Volume:
    """A mounted file system."""

    mount: str
    total_kib: int
    free_kib: int


def volumes(df: str) -> list[Volume]:
    """The mounted file systems that ``df -k`` lists.

    Source: toybox, toys/posix/df.c (columns: file system, size, used, available, share, mounted on).
    """
    found = []
    for line in _clean(df).splitlines()[:_MOST_ITEMS]:
        fields = line[:_VALUE].split(None, 5)
        if len(fields) == 6 and fields[5].startswith("/") and re.fullmatch(r"\d{1,3}%", fields[4]):
            total, free = _int(fields[1], 0, 10**12), _int(fields[3], 0, 10**12)
            if total is not None and free is not None:
                found.append(Volume(fields[5].strip(), total, free))
    return found


@dataclass(frozen=True)
class SystemMemory:
    """What ``/proc/meminfo`` tells."""

    total_kib: int | None = None
    available_kib: int | None = None


def system_memory(meminfo: str) -> SystemMemory:
    """The machine's memory, from ``/proc/meminfo``."""
    text = _clean(meminfo)
    return SystemMemory(_kib(text, "MemTotal"), _kib(text, "MemAvailable"))


@dataclass(frozen=True)
class ProcessMemory:
    """What ``dumpsys meminfo PACKAGE`` tells of the first process of that name.

    Attributes:
        pid: The process.
        pss_kib: Proportional set size, all in all.
        native_heap_pss_kib: That of the native heap, where runtimes keep their tensors.
        native_heap_allocated_kib: What is allocated on it.
    """

    pid: int | None = None
    pss_kib: int | None = None
    native_heap_pss_kib: int | None = None
    native_heap_allocated_kib: int | None = None


def process_memory(dumpsys: str) -> ProcessMemory:
    """A process's memory, from ``dumpsys meminfo PACKAGE``. All None where there is no such process.

    The table's columns differ between versions; the first is the PSS, and the last three of the native heap
    are its size, what is allocated and what is free.

    Source: AOSP, core/java/android/app/ActivityThread.java, ``dumpMemInfoTable``.
    """
    text = _clean(dumpsys)
    begin = re.search(r"^\*\* MEMINFO in pid (\d{1,9}) \[", text, re.MULTILINE)
    if begin is None:
        return ProcessMemory()
    table = re.split(r"^[ \t]*(?:App Summary|\*\* MEMINFO)", text[begin.end() :], maxsplit=1, flags=re.MULTILINE)[0]
    native, total = _row(table, "Native Heap"), _row(table, "TOTAL")
    return ProcessMemory(
        pid=int(begin[1]),
        pss_kib=total[0] if total else None,
        native_heap_pss_kib=native[0] if native else None,
        native_heap_allocated_kib=native[-2] if len(native) >= 7 else None,
    )


@dataclass(frozen=True)
class CurrentScale:
    """What to multiply a reading of ``current_now`` with to have milliamperes, and what was assumed."""

    to_ma: float
    assumed: str


def current_scale(
    readings: Sequence[int], *, capacity_mah: float | None = None, drained_uah: float | None = None, time_s: float = 0
) -> CurrentScale | None:
    """In which unit a phone tells its battery's current, by plausibility.

    Android's documentation says microamperes; Samsung's phones tell milliamperes. Where the coulomb counter
    moved, it decides: it gives the mean current by itself. Else the size does: an awake phone draws at least
    20 mA, and no battery is emptied in less than half an hour (2 C).

    Source: android.os.BatteryManager.BATTERY_PROPERTY_CURRENT_NOW ("in microamperes").

    Args:
        readings: At least one, while the phone was awake and not charging.
        capacity_mah: Of the battery; None: 5,000.
        drained_uah: How much the charge counter fell over ``time_s``.
        time_s: The time of the readings.

    Returns:
        The scale, or None where neither unit is plausible: there is no figure then.
    """
    size = median(map(abs, readings)) if readings else 0.0
    if size == 0:
        return None
    units = {"milliamperes": 1.0, "microamperes": 1e-3}
    if drained_uah and drained_uah > 0 and time_s > 0:
        counted_ma = drained_uah / 1e3 / (time_s / 3600)
        for unit, scale in units.items():
            if 1 / 3 < size * scale / counted_ma < 3:
                return CurrentScale(scale, f"current_now in {unit}: the charge counter fell by {counted_ma:.0f} mA")
        return None
    most_ma = _MOST_C * (capacity_mah or _USUAL_MAH)
    least_ma = {"milliamperes": _LEAST_TOLD_MA, "microamperes": _LEAST_AWAKE_MA}
    for unit, scale in units.items():
        if least_ma[unit] <= size * scale <= most_ma:
            return CurrentScale(
                scale,
                f"current_now in {unit}: {size:.0f} would be {_other(size, unit)} in the other unit, "
                f"and {size * scale:.0f} mA is plausible",
            )
    return None


def _other(size: float, unit: str) -> str:
    return f"{size / 1e3:.3g} mA" if unit == "milliamperes" else f"{size / 1e3:.0f} A"


def _clean(text: str) -> str:
    return plain(text[:_MOST_TEXT])


def _fields(text: str) -> dict[str, str]:
    """``name: value`` lines."""
    fields: dict[str, str] = {}
    for line in text.splitlines()[:_MOST_ITEMS]:
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip()[:_NAME], value.strip()[:_VALUE])
    return fields


def _int(text: str | None, low: int, high: int) -> int | None:
    if text is None or not re.fullmatch(r"[+-]?\d{1,12}", text, re.ASCII):
        return None
    return int(text) if low <= int(text) <= high else None


def _kib(text: str, key: str) -> int | None:
    found = re.search(rf"^{key}:[ \t]+(\d{{1,15}}) kB[ \t]*$", text, re.MULTILINE | re.ASCII)
    return int(found[1]) if found else None


def _section(text: str, heading: str) -> str:
    """The indented lines after a heading."""
    found = re.search(rf"^[ \t]*{re.escape(heading)}[ \t]*\n((?:[ \t]+[^\n]*\n?)*)", text, re.MULTILINE)
    return found[1] if found else ""


def _temperatures(section: str) -> tuple[Temperature, ...]:
    pattern = re.compile(
        rf"Temperature\{{mValue=(-?\d{{1,6}}(?:\.\d{{1,12}})?), mType=(-?\d{{1,3}}), mName=([^,}}\n]{{0,{_NAME}}}), "
        r"mStatus=(\d)\}",
        re.ASCII,
    )
    sensors = []
    for match in list(pattern.finditer(section))[:_MOST_ITEMS]:
        kind, celsius, status = _KINDS.get(int(match[2]), "unknown"), float(match[1]), int(match[4])
        # Some kinds are volts, amperes or percents of the battery, and a sensor that is not fitted tells nonsense.
        if kind not in _NO_TEMPERATURE and _CELSIUS[0] <= celsius <= _CELSIUS[1]:
            sensors.append(Temperature(match[3], kind, celsius, status if status <= 6 else None))
    return tuple(sensors)


def _row(table: str, name: str) -> list[int]:
    """The numbers of a table's row."""
    found = re.search(rf"^[ \t]*{name}((?:[ \t]+\d{{1,12}}){{1,20}})[ \t]*$", table, re.MULTILINE | re.ASCII)
    return [int(value) for value in found[1].split()] if found else []
