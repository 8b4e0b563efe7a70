"""Power of a Jetson by its INA3221 monitors, through the files of Linux's ``hwmon``.

Standard library only, Python 3.8 and newer. A runner opens it as it opens its own sensors; see
``runtimes/_sensors.py`` for what a sensor has.
"""

from __future__ import annotations

import glob
import re

TOTALS = ("VDD_IN", "POM_5V_IN")
"""Rails that feed the whole module. Source: NVIDIA Jetson Linux Developer Guide 35.6, "Jetson Orin Nano
Series, Orin NX Series and AGX Orin Series", table of INA3221 channels, and the guides of Xavier NX and Nano."""

PARTS = {
    "VDD_CPU_GPU_CV": TOTALS,
    "VDD_SOC": TOTALS,
    "POM_5V_GPU": TOTALS,
    "POM_5V_CPU": TOTALS,
    "VDDQ_VDD2_1V8AO": ("VIN_SYS_5V0",),
}
"""Rails that another one feeds. Source: the same tables; of AGX Orin they say that the power of
VDDQ_VDD2_1V8AO is included in that of VIN_SYS_5V0."""

INPUTS = (
    *("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin
    *("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier
    *("VDD_GPU", "VDD_CPU_SOC_MSS"),  # AGX Thor
)
"""Rails that are fed from outside the module and add up to its power. Source: the same guide of each."""

FOLDERS = ("/sys/bus/i2c/devices/*/hwmon/hwmon*", "/sys/class/hwmon/hwmon*")
CHANNELS = (1, 2, 3)


class PowerRails:
    """Milliwatts of the module: the rail that feeds all, else the sum of those that feed it."""

    name, unit, scale = "ina3221", "mW", 1.0

    def __init__(self, root=""):
        found = find(root)
        if not found:
            raise OSError(
                "this system shows no labelled INA3221 channel in hwmon; a Jetson with JetPack 5 or newer does"
            )
        self.rails, self.assumed = chosen(list(found))
        self._found = found

    def read(self):
        """The power now."""
        return sum(self._power(rail) for rail in self.rails)

    def each(self):
        """The power now of every rail that is monitored, those that another one feeds too."""
        return {rail: self._power(rail) for rail in self._found}

    def _power(self, rail):
        volts, current = self._found[rail]
        return _number(volts) * _number(current) / 1e3


def find(root=""):
    """The monitored rails, ``{label: (file of mV, file of mA)}``.

    Channels 4 to 7 of the driver are shunt voltages and sums of the first three.
    Source: Documentation/hwmon/ina3221.rst of Linux.
    """
    found = {}
    for pattern in FOLDERS:
        for folder in sorted(glob.glob(root + pattern)):
            if _text(folder + "/name") != "ina3221":
                continue
            for channel in CHANNELS:
                label = _text("%s/in%d_label" % (folder, channel))
                if label and label != "NC" and label not in found:
                    found[label] = "%s/in%d_input" % (folder, channel), "%s/curr%d_input" % (folder, channel)
        if found:
            break
    return found


def chosen(labels):
    """Which rails to add up so that no power counts twice.

    Returns:
        ``(rails, assumed)``: the second says what had to be assumed, or None.
    """
    for total in TOTALS:
        if total in labels:
            return [total], None
    rails = [label for label in labels if not any(feeder in labels for feeder in PARTS.get(label, ()))]
    unknown = [label for label in rails if label not in INPUTS]
    if unknown:
        return rails, "no rail feeds another; not known of %s" % ", ".join(unknown)
    return rails, None


def _text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(256).strip()
    except OSError:
        return None


def _number(path):
    with open(path, encoding="ascii", errors="replace") as file:
        text = file.read(64).strip()
    if not re.fullmatch(r"-?\d+", text):
        raise OSError("%s holds no number: %.40r" % (path, text))
    # Near zero the monitor's offset can make a current negative.
    return max(0, int(text))
