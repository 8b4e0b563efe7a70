"""Power of a Jetson by ``jtop``, where the user has installed jetson-stats.

jetson-stats is AGPL-3.0: nothing of it is brought along, and it is used only where it is there.
"""

from __future__ import annotations

from power_rails import chosen

INTERVAL_S = 0.1


class JtopRails:
    """Milliwatts of the module as jtop's service reads them.

    jtop's own total is taken only where it is one rail: its sum counts VDDQ_VDD2_1V8AO of an AGX
    Orin twice. Source: ``total_power`` in jtop/core/power.py of jetson-stats.
    """

    name, unit, scale = "jtop", "mW", 1.0

    def __init__(self, root=""):
        try:
            from jtop import jtop
        except ImportError as error:
            raise OSError("jetson-stats is not installed: %s" % error) from error
        try:
            self._jtop = jtop(interval=INTERVAL_S)
            self._jtop.start()
        except Exception as error:  # jtop's exceptions are classes of its own
            raise OSError("jtop's service does not answer: %s" % error) from error
        power = self._power()
        total = power.get("tot", {}).get("name")
        if total:
            self.rails, self.assumed = [total], None
        else:
            self.rails, self.assumed = chosen(list(power.get("rail", {})))
        if not self.rails:
            raise OSError("jtop shows no power rails")
        self._total = bool(total)

    def read(self):
        """The power at jtop's last look, a tenth of a second ago at most."""
        power = self._power()
        try:
            if self._total:
                return power["tot"]["power"]
            return sum(power["rail"][rail]["power"] for rail in self.rails)
        except (LookupError, TypeError) as error:
            raise OSError("jtop no longer shows the rails %s" % ", ".join(self.rails)) from error

    def _power(self):
        try:
            return self._jtop.power
        except Exception as error:
            raise OSError("jtop's service does not answer: %s" % error) from error
