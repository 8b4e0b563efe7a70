"""Power that a Linux device draws from its battery, by the files of ``/sys/class/power_supply``.

Source: Documentation/ABI/testing/sysfs-class-power of Linux: microwatts, microamperes, microvolts
and microampere-hours. Some phones, such as Samsung's, give the current in milliamperes all the same.
"""

from __future__ import annotations

import glob
from time import monotonic

from _system import batteries, read, read_int

PLUGGED = ("Charging", "Full", "Not charging")
PHONE_UAH = 5_000_000
SMALLEST_UAH = 100_000
FASTEST_PER_HOUR = 4.0
CABLE_S = 0.5


class PowerSupply:
    """What all batteries of the device give, in milliwatts; refused while it is on a cable.

    A current is read as microamperes first. Its unit is settled once, by ``scale``, when the largest
    current is known.
    """

    name, unit = "power_supply", "mW"

    def __init__(self, root=""):
        self._cells = [_Cell(folder) for folder in batteries(root) if read_int(folder + "/present") != 0]
        if not self._cells:
            raise OSError("this system has no battery in /sys/class/power_supply")
        supplies = glob.glob(root + "/sys/class/power_supply/*")
        self._feeds = [supply for supply in supplies if read(supply + "/type") not in (None, "Battery")]
        self.rails = [cell.name for cell in self._cells]
        self._scale = None
        self._look_at = 0.0
        self.read()

    def read(self):
        """Milliwatts, before ``scale``."""
        if monotonic() >= self._look_at:
            self._refuse_cable()
            self._look_at = monotonic() + CABLE_S
        return sum(cell.read() for cell in self._cells)

    @property
    def scale(self):
        """By which readings are to be multiplied. From the first time on it is settled."""
        if self._scale is None:
            cell = self._busiest()
            self._scale = cell.factor() if cell.largest_ua else 1.0
        return self._scale

    @property
    def assumed(self):
        """What was assumed of the unit, None where power is given as such."""
        cell = self._busiest()
        return cell.words(self.scale) if cell.largest_ua else None

    def _busiest(self):
        # The cells of a device have one driver, and so one unit; the largest current tells most of it.
        return max(self._cells, key=lambda cell: cell.largest_ua)

    def _refuse_cable(self):
        for cell in self._cells:
            status = read(cell.folder + "/status")
            if status in PLUGGED:
                raise OSError("the battery %s is on a cable (status '%s'); unplug it" % (cell.name, status))
        for supply in self._feeds:
            if read_int(supply + "/online") == 1:
                raise OSError("the device is fed by %s; unplug it" % supply.rpartition("/")[2])


class _Cell:
    """One battery."""

    def __init__(self, folder):
        self.folder = folder
        self.name = folder.rpartition("/")[2]
        self.largest_ua = 0

    def read(self):
        power = read_int(self.folder + "/power_now")
        if power is not None:
            return abs(power) / 1e3
        current = read_int(self.folder + "/current_now")
        volts = read_int(self.folder + "/voltage_now")
        if current is None or volts is None:
            raise OSError("the battery %s tells neither power_now nor current_now and voltage_now" % self.name)
        self.largest_ua = max(self.largest_ua, abs(current))
        return abs(current) * volts / 1e9

    def capacity_uah(self):
        """Its capacity as (uAh, which file told it); a typical phone's where none does."""
        for file in ("charge_full", "charge_full_design"):
            charge = read_int(self.folder + "/" + file)
            if charge:
                return (charge if charge >= SMALLEST_UAH else charge * 1000), file
        counter, percent = read_int(self.folder + "/charge_counter"), read_int(self.folder + "/capacity")
        if counter and counter > 0 and percent:
            whole = counter * 100 // percent
            return (whole if whole >= SMALLEST_UAH else whole * 1000), "charge_counter and capacity"
        return PHONE_UAH, None

    def factor(self):
        """1000 where the current must be in milliamperes, else 1.

        As milliamperes no device empties its battery in less than a quarter of an hour: a larger
        figure is in microamperes. A smaller one would as microamperes last for more than ten days.
        """
        capacity, _ = self.capacity_uah()
        return 1000.0 if self.largest_ua * 1000 <= FASTEST_PER_HOUR * capacity else 1.0

    def words(self, factor):
        capacity, told = self.capacity_uah()
        source = "a capacity of %.0f mAh (%s)" % (capacity / 1000, told or "assumed, as the battery tells none")
        unit, other = ("mA", "uA") if factor > 1 else ("uA", "mA")
        return "current_now is in %s: its largest figure, %d, would in %s not fit %s" % (
            unit,
            self.largest_ua,
            other,
            source,
        )
