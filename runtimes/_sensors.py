"""Power sensors of x86 processors and NVIDIA GPUs, and which sensor of a request can be read.

A sensor has ``name`` (as in the protocol), ``unit`` (``mW`` or ``uJ``), ``rails`` (what is added
up), ``assumed`` (what had to be assumed to read it, or None), ``scale`` (by which readings are
multiplied once all are there) and ``read()``. What cannot be read raises `OSError` with the reason.
``root`` goes before paths of ``/sys``.
"""

from __future__ import annotations

import glob
import importlib
import os
import sys
from pathlib import Path

import _nvml
from _battery import PowerSupply
from _system import read, read_int

JETSON = os.environ.get("EDGE_SDK_JETSON") or str(Path(__file__).resolve().parents[1] / "jetson")
RAPL_ADVICE = "it is readable by root only (since CVE-2020-8694); run as root, or once: sudo chmod a+r %s"


class Rapl:
    """Energy of the processor packages, by Intel's and AMD's running average power limit counters.

    Source: Documentation/power/powercap/powercap.rst of Linux: ``energy_uj`` starts again at 0
    after ``max_energy_range_uj``. The zones inside a package are parts of it, and ``psys`` holds it.
    """

    name, unit, scale, assumed = "rapl", "uJ", 1.0, None

    def __init__(self, root=""):
        zones = sorted(glob.glob(root + "/sys/class/powercap/intel-rapl:*"))
        names = {zone: read(zone + "/name") or "" for zone in zones}
        packages = [zone for zone in zones if names[zone].startswith("package")]
        if not packages:
            raise OSError("this system has no RAPL zone of a processor package in /sys/class/powercap")
        self.rails = [names[zone] for zone in packages]
        self._counters = [_Counter(zone) for zone in packages]

    def read(self):
        """Microjoules of all packages since the sensor was opened."""
        return sum(counter.read() for counter in self._counters)


class _Counter:
    """A counter that starts again at 0, as one that only grows."""

    def __init__(self, zone):
        self._path = zone + "/energy_uj"
        self._range = read_int(zone + "/max_energy_range_uj")
        self._last, self._sum = self._now(), 0

    def _now(self):
        try:
            with open(self._path, encoding="ascii") as file:
                return int(file.read())
        except PermissionError as error:
            raise PermissionError(RAPL_ADVICE % self._path) from error
        except ValueError as error:
            raise OSError("%s holds no number" % self._path) from error

    def read(self):
        now = self._now()
        step = now - self._last
        if step < 0:
            if not self._range:
                raise OSError("%s started again and its range is not told" % self._path)
            step += self._range
        self._last = now
        self._sum += step
        return self._sum


class Nvml:
    """Energy of NVIDIA GPUs by the driver's library: its counter, else its power reading.

    Source: NVML API reference: ``nvmlDeviceGetTotalEnergyConsumption`` gives millijoules since the
    driver was loaded (Volta and newer), ``nvmlDeviceGetPowerUsage`` milliwatts.
    """

    name, scale = "nvml", 1.0

    def __init__(self, library=_nvml.LIBRARY):
        self._gpus = _nvml.Library(library).gpus()
        self.rails = ["GPU %d %s" % (index, gpu.name()) for index, gpu in enumerate(self._gpus)]
        self.assumed = None
        if len(self._gpus) > 1:
            self.assumed = "all %d GPUs are added up; idle power takes off those not used" % len(self._gpus)
        try:
            self._energy()
            self.unit, self.read = "uJ", self._energy
        except OSError:
            self._power()
            self.unit, self.read = "mW", self._power

    def _energy(self):
        return sum(gpu.energy_mj() for gpu in self._gpus) * 1000

    def _power(self):
        return sum(gpu.power_mw() for gpu in self._gpus)


def open_sensor(names, root=""):
    """The first of the sensors that can be read.

    Args:
        names: As in the request, in order of preference.
        root: Goes before paths of ``/sys``.

    Returns:
        ``(sensor, reasons)``: the sensor or None, and for each that came before why not.
    """
    reasons = []
    for name in names:
        try:
            sensor = _OPENERS[name](root)
            sensor.read()
            return sensor, reasons
        except OSError as error:
            reasons.append("%s: %s" % (name, error))
    return None, reasons


def _jetson(module, kind):
    """Opens a sensor of the Jetson side, which lies beside this folder."""

    def opener(root):
        if not os.path.isfile(os.path.join(JETSON, module + ".py")):
            raise OSError("the Jetson side of Edge SDK is not on this device; expected %s" % JETSON)
        sys.path.insert(0, JETSON)
        try:
            return getattr(importlib.import_module(module), kind)(root)
        finally:
            sys.path.remove(JETSON)

    return opener


def _android(root):
    try:
        return PowerSupply(root)
    except OSError as error:
        raise OSError("only the app can read Android's BatteryManager, and of the files: %s" % error) from error


_OPENERS = {
    "rapl": Rapl,
    "nvml": lambda root: Nvml(),
    "ina3221": _jetson("power_rails", "PowerRails"),
    "jtop": _jetson("jtop_rails", "JtopRails"),
    "battery": _android,
    "power_supply": PowerSupply,
}
