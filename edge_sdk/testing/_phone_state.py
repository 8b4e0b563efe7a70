"""What a test may change while the phone runs. Each change is written at once to where the phone's programs read it.

Source of the texts: AOSP, BatteryService.java (dumpInternal) and ThermalManagerService.java (dumpInternal); Samsung's
own lines of ``dumpsys battery`` as Galaxy phones print them in public bug reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, MutableSet
from pathlib import Path
from typing import Any

STATUSES = {"unknown": 1, "charging": 2, "discharging": 3, "not charging": 4, "full": 5}
"""android.os.BatteryManager.BATTERY_STATUS_*."""
_PLUGS = ("ac", "usb", "wireless", "dock")
_SENSORS = {"AP": 0, "GPU": 1, "BAT": 2, "SKIN": 3, "USB": 4, "PA": 5, "NPU": 9}
"""android.os.Temperature.TYPE_* of the sensors, under Samsung's names."""


def replace(path: Path, text: str) -> None:
    """Writes a file whole: a program that reads it meanwhile sees the old or the new one."""
    scratch = path.with_name(path.name + ".new")
    scratch.write_text(text, "utf-8")
    scratch.replace(path)


class Saved(MutableMapping[str, Any]):
    """A mapping that is saved at each change."""

    def __init__(self, items: Mapping[str, Any], save: Callable[[Mapping[str, Any]], None]) -> None:
        self._items = dict(items)
        self._save = save
        save(self._items)

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._items[key] = value
        self._save(self._items)

    def __delitem__(self, key: str) -> None:
        del self._items[key]
        self._save(self._items)

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return repr(self._items)


class SavedSet(MutableSet[str]):
    """A set that is saved at each change, one item a line."""

    def __init__(self, items: Iterable[str], path: Path) -> None:
        self._items = set(items)
        self._path = path
        self._save()

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return repr(self._items)

    def add(self, value: str) -> None:
        """Adds an item."""
        self._items.add(value)
        self._save()

    def discard(self, value: str) -> None:
        """Takes an item away where it is there."""
        self._items.discard(value)
        self._save()

    def _save(self) -> None:
        replace(self._path, "".join(f"{item}\n" for item in self))


class _Live:
    """Attributes that are saved as a text at each change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._save()

    def set(self, **values: Any) -> None:
        """Changes several values at once.

        Raises:
            AttributeError: There is no such value.
        """
        for name, value in values.items():
            if not hasattr(type(self), name):
                raise AttributeError(f"there is no '{name}'")
            object.__setattr__(self, name, value)
        self._save()

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            self.set(**{name: value})

    def _save(self) -> None:
        self._write(self.text())

    def _write(self, text: str) -> None:
        replace(self._path, text)

    def text(self) -> str:
        """What ``dumpsys`` prints."""
        raise NotImplementedError


class Battery(_Live):
    """The battery, under the names and in the units of ``dumpsys battery``."""

    level: int = 80
    """Percent."""
    status: str = "discharging"
    """One of `STATUSES`."""
    plugged: str | None = None
    """``ac``, ``usb``, ``wireless``, ``dock`` or None."""
    voltage: int = 4100
    """Millivolts."""
    temperature: int = 300
    """Tenths of a degree Celsius."""
    charge_counter: int = 3_800_000
    """Microampere-hours left."""
    current_now: int = -250
    """As the phone tells it; Samsung's tell milliamperes, negative while they discharge."""
    vendor_lines: bool = True
    """Whether Samsung's own lines follow, ``current now`` among them; AOSP's has none such."""

    def text(self) -> str:
        """What ``dumpsys battery`` prints."""
        lines = ["Current Battery Service state:"]
        for name, words in zip(_PLUGS, ("AC", "USB", "Wireless", "Dock"), strict=True):
            lines.append(f"  {words} powered: {str(self.plugged == name).lower()}")
        lines += [
            "  Max charging current: 0",
            "  Max charging voltage: 0",
            f"  Charge counter: {self.charge_counter}",
            f"  status: {STATUSES[self.status]}",
            "  health: 2",
            "  present: true",
            f"  level: {self.level}",
            "  scale: 100",
            f"  voltage: {self.voltage}",
            f"  temperature: {self.temperature}",
            "  technology: Li-ion",
        ]
        if self.vendor_lines:
            lines += [
                "  batteryMiscEvent: 0",
                "  batteryCurrentEvent: 0",
                f"  mSecPlugTypeSummary: {0 if self.plugged is None else 2}",
                "  LED Charging: true",
                "  LED Low Battery: true",
                f"  current now: {self.current_now}",
                f"  charge counter: {self.charge_counter}",
                "  Adaptive Fast Charging Settings: true",
            ]
        return "\n".join(lines) + "\n"


class Thermal(_Live):
    """Heat, as ``dumpsys thermalservice`` tells it."""

    status: int = 0
    """0 none, 1 light, 2 moderate, 3 severe, 4 critical, 5 emergency, 6 shutdown."""
    temperatures: MutableMapping[str, float] = {}
    """Degrees Celsius by sensor: AP, GPU, BAT, SKIN, USB, PA, NPU."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set(temperatures={"AP": 36.1, "BAT": 30.0, "SKIN": 31.4, "USB": 30.2, "PA": 32.0})

    def set(self, **values: Any) -> None:
        """Changes several values at once; ``temperatures`` replaces them all."""
        if "temperatures" in values:
            values["temperatures"] = Saved(values["temperatures"], lambda items: self._write(self._render(items)))
        super().set(**values)

    def text(self) -> str:
        """What ``dumpsys thermalservice`` prints."""
        return self._render(self.temperatures)

    def _render(self, temperatures: Mapping[str, float]) -> str:
        sensors = []
        for name, value in temperatures.items():
            kind = _SENSORS.get(name, -1)
            status = self.status if name == "SKIN" else 0
            sensors.append(f"\tTemperature{{mValue={float(value)}, mType={kind}, mName={name}, mStatus={status}}}")
        listeners = ["\tcallbacks: 1", "\tkilled: false", "\tbroadcasts count: -1"]
        lines = [
            "IsStatusOverride: false",
            "ThermalEventListeners:",
            *listeners,
            "ThermalStatusListeners:",
            *listeners,
            f"Thermal Status: {self.status}",
            "Cached temperatures:",
            *sensors,
            "HAL Ready: true",
            "HAL connection:",
            "\tThermalHAL AIDL 1  connected: yes",
            "Current temperatures from HAL:",
            *sensors,
            "Current cooling devices from HAL:",
            f"\tCoolingDevice{{mValue={self.status}, mType=2, mName=TYPE_CPU}}",
        ]
        return "\n".join(lines) + "\n"


def properties(folder: Path, items: Mapping[str, str]) -> Saved:
    """System properties: a file for each in ``folder``, and all of them in ``getprop``'s form beside it."""
    folder.mkdir(parents=True, exist_ok=True)

    def save(items: Mapping[str, str]) -> None:
        for key, value in items.items():
            if not key or "/" in key or key.startswith("."):
                raise ValueError(f"'{key}' is no name of a property")
            replace(folder / key, f"{value}\n")
        for path in folder.iterdir():
            if path.name not in items:
                path.unlink()
        replace(folder.with_suffix(".txt"), "".join(f"[{key}]: [{items[key]}]\n" for key in sorted(items)))

    return Saved(items, save)
