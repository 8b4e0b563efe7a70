"""Tells once a period what a machine is doing, one JSON line each: load, clocks, memory, heat, power, GPUs.

``python monitor.py PERIOD_S COUNT``; with a count of 0 it goes on until nobody reads. The lines are those of
``Reading`` in ``docs/runner-protocol.md``. What cannot be read is absent, with the reason under ``unavailable``.
"""

from __future__ import annotations

import glob
import json
import os
import re
import sys
from time import monotonic, sleep

import _heat
import _nvml
import _sensors
import _system

SENSORS = ("ina3221", "jtop", "rapl", "nvml", "power_supply")
SOON_S = 0.25
JETSON_GPU = "gpu|gv11b|gp10b|ga10b|gb10b"
"""Jetson's GPUs in the device tree. Source: ``jtop/core/gpu.py`` of jetson-stats, which reads the same files."""


class Watch:
    """Reads everything, again and again; figures of a span of time count from the reading before.

    Args:
        root: Goes before paths of ``/sys`` and ``/proc``.
        nvml: The NVIDIA driver's library.
    """

    def __init__(self, root="", nvml=_nvml.LIBRARY):
        self._root = root
        self._begin = monotonic()
        self._ticks = _ticks(root)
        self._power = _Power(root)
        self._gpus = _Gpus(root, nvml)

    def read(self):
        """One reading, as the protocol has it."""
        ticks, self._ticks = self._ticks, _ticks(self._root)
        temperatures = _temperatures(self._root)
        power_w, rails_w, no_power = self._power.read()
        gpus, no_gpu = self._gpus.read()
        unavailable = {"power": no_power, "gpu": no_gpu}
        if not temperatures:
            unavailable["temperatures"] = "this system shows no thermal zone"
        return {
            "type": "reading",
            "t_s": round(monotonic() - self._begin, 3),
            "cpu_percent": _busy(ticks, self._ticks),
            "cpu_mhz": _clocks(self._root),
            "memory": _memory(self._root),
            "temperatures_c": temperatures,
            "throttled": _heat.throttling(self._root),
            "power_w": power_w,
            "rails_w": rails_w,
            "gpus": gpus,
            "battery": _battery(self._root),
            "unavailable": {name: why for name, why in unavailable.items() if why},
        }


class _Power:
    """Watts of the first sensor that can be read, and of each of its rails where it tells them apart."""

    def __init__(self, root):
        self._sensor, reasons = _sensors.open_sensor(SENSORS, root)
        self._why = "; ".join(reasons)
        self._last = None
        self._look()

    def _look(self):
        if self._sensor is None:
            return None
        try:
            # A counter's own reading is its sum; rails that are told apart come with it.
            now = monotonic(), self._sensor.read(), getattr(self._sensor, "each", dict)()
        except OSError as error:
            self._why = "%s: %s" % (self._sensor.name, error)
            return None
        last, self._last = self._last, now
        return last, now

    def read(self):
        """``(watts, watts by rail, why not)``."""
        looks = self._look()
        if looks is None or looks[0] is None:
            return None, {}, self._why
        (before, sum_before, each_before), (now, total, each) = looks
        if self._sensor.unit == "mW":
            return total * self._sensor.scale / 1e3, {rail: value / 1e3 for rail, value in each.items()}, None
        span = (now - before) * 1e6
        rails = {rail: (value - each_before[rail]) / span for rail, value in each.items() if rail in each_before}
        return (total - sum_before) / span, rails, None


class _Gpus:
    def __init__(self, root, library):
        self._root = root
        try:
            self._nvml, self._why = _nvml.Library(library).gpus(), None
        except OSError as error:
            self._nvml, self._why = [], str(error)

    def read(self):
        """``(figures of each, why there are none)``."""
        found = [_discrete(gpu) for gpu in self._nvml] or _jetson_gpus(self._root)
        return found, None if found else self._why


def _discrete(gpu):
    memory = _ask(gpu.memory)
    power = _ask(gpu.power_mw)
    return {
        "name": _ask(gpu.name) or "GPU",
        "percent": _ask(gpu.utilisation),
        "memory_used_mib": None if memory is None else (memory[0] - memory[1]) / (1 << 20),
        "memory_total_mib": None if memory is None else memory[0] / (1 << 20),
        "mhz": _ask(gpu.clock_mhz, _nvml.SM_CLOCK),
        "temperature_c": _ask(gpu.temperature_c),
        "power_w": None if power is None else power / 1e3,
    }


def _jetson_gpus(root):
    """A Jetson's GPU, which shares the machine's memory; its heat and power are zones and rails."""
    found = []
    for folder in sorted(glob.glob(root + "/sys/class/devfreq/*")):
        name = (_system.read(folder + "/device/of_node/name") or "").strip("\0")
        if not re.fullmatch(JETSON_GPU, name):
            continue
        load, clock = _system.read_int(folder + "/device/load"), _system.read_int(folder + "/cur_freq")
        figures = dict.fromkeys(("memory_used_mib", "memory_total_mib", "temperature_c", "power_w"))
        figures.update(name=name, percent=None if load is None else load / 10, mhz=clock and clock / 1e6)
        found.append(figures)
    return found


def _ask(question, *arguments):
    try:
        return question(*arguments)
    except OSError:
        return None


def _ticks(root):
    """``(busy, all)`` ticks of each processor since boot. Source: proc(5), ``/proc/stat``."""
    found = []
    for line in (_system.read(root + "/proc/stat") or "").splitlines():
        fields = line.split()
        if fields and re.fullmatch(r"cpu\d+", fields[0]) and len(fields) >= 9:
            user, nice, system, idle, waiting, irq, softirq, steal = (int(field) for field in fields[1:9])
            busy = user + nice + system + irq + softirq + steal
            found.append((busy, busy + idle + waiting))
    return found


def _busy(before, now):
    """Percent of each processor's time, None where it is not told."""
    if not now or len(before) != len(now):
        return None
    shares = []
    for place, (busy, whole) in enumerate(now):
        span = whole - before[place][1]
        shares.append(round(100.0 * max(0, busy - before[place][0]) / span, 1) if span > 0 else 0.0)
    return shares


def _clocks(root):
    told = [policy["now"] for policy in _system.cpu_policies(root) if policy["now"] is not None]
    fastest = None if told else _system.cpu_mhz(root)
    return told or ([] if fastest is None else [fastest])


def _memory(root):
    text = _system.read(root + "/proc/meminfo") or ""
    found = {name: re.search(r"^%s:\s+(\d+) kB" % name, text, re.MULTILINE) for name in ("MemTotal", "MemAvailable")}
    if not all(found.values()):
        return None
    total, available = (int(found[name].group(1)) / 1024 for name in ("MemTotal", "MemAvailable"))
    return {"total_mib": total, "available_mib": available}


def _temperatures(root):
    found = {}
    for zone in sorted(glob.glob(root + "/sys/class/thermal/thermal_zone*")):
        value = _system.read_int(zone + "/temp")
        if value is not None and 1000 <= value <= 150_000:
            name = _system.read(zone + "/type") or os.path.basename(zone)
            found[name if name not in found else "%s %s" % (name, os.path.basename(zone))] = value / 1000
    return found


def _battery(root):
    for folder in _system.batteries(root):
        percent = _system.read_int(folder + "/capacity")
        return {"percent": percent, "charging": _system.charging(root)}
    return None


def main(argv):
    """Writes readings to standard output until there are enough, or nobody reads.

    Returns:
        The exit code.
    """
    period, count = float(argv[1]), int(argv[2])
    watch = Watch()
    sleep(min(period, SOON_S))
    due = monotonic()
    done = 0
    try:
        while True:
            sys.stdout.write(json.dumps(watch.read(), separators=(",", ":"), allow_nan=False) + "\n")
            sys.stdout.flush()
            done += 1
            if done == count:
                return 0
            due = max(due + period, monotonic())
            sleep(max(0.0, due - monotonic()))
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)  # what is left in the buffer has no reader


if __name__ == "__main__":
    sys.exit(main(sys.argv))
