"""Heat: temperature, throttling, and the gate that waits for a device to cool.

``root`` goes before paths of ``/sys``.
"""

from __future__ import annotations

import glob
import re
from time import monotonic, sleep

from _system import read, read_int

PROCESSOR_ZONE = re.compile("cpu|soc|pkg|core|tctl|big|little|mid|cluster", re.IGNORECASE)
PROCESSOR_COOLING = re.compile("cpufreq|devfreq|^processor$", re.IGNORECASE)
PI_FIRMWARE = "/sys/devices/platform/soc*/*firmware/get_throttled"
PI_NOW = 0b1110
LOOK_S = 0.25


def temperature_c(root=""):
    """The hottest processor sensor; of all sensors where none names the processor."""
    named, others = [], []
    for zone in glob.glob(root + "/sys/class/thermal/thermal_zone*"):
        value = read_int(zone + "/temp")
        if value is None or not 1000 <= value <= 150_000:
            continue
        (named if PROCESSOR_ZONE.search(read(zone + "/type") or "") else others).append(value / 1000)
    return max(named or others, default=None)


def throttle_events(root=""):
    """How often the processors throttled since boot: for heat on x86, for over-current on Jetson."""
    patterns = ("devices/system/cpu/cpu*/thermal_throttle/core_throttle_count", "class/hwmon/hwmon*/oc*_event_cnt")
    counts = [read_int(path) for pattern in patterns for path in glob.glob("%s/sys/%s" % (root, pattern))]
    told = [count for count in counts if count is not None]
    return sum(told) if told else None


def throttling(root=""):
    """Whether the kernel or the firmware holds the processors' clock down now, None where neither tells.

    Source: "get_throttled" in Raspberry Pi's documentation: bits 1 to 3 are "frequency capped",
    "throttled" and "soft temperature limit", now.
    """
    told = []
    for device in glob.glob(root + "/sys/class/thermal/cooling_device*"):
        if PROCESSOR_COOLING.search(read(device + "/type") or ""):
            state = read_int(device + "/cur_state")
            told += [] if state is None else [state > 0]
    for path in glob.glob(root + PI_FIRMWARE):
        word = read(path) or ""
        told += [bool(int(word, 16) & PI_NOW)] if re.fullmatch(r"(0x)?[0-9a-fA-F]{1,8}", word) else []
    return any(told) if told else None


class Throttle:
    """Whether the processors throttled, from now on.

    Args:
        root: Goes before paths of ``/sys``.
        look: Whether a processor that the system does not tell of throttles now, None where nothing tells.
    """

    def __init__(self, root="", look=lambda: None):
        self._root = root
        self._look = look
        self._events = throttle_events(root)
        self._seen = None
        self.look()

    def look(self):
        """Notes the present state."""
        for now in (throttling(self._root), self._look()):
            if now is not None:
                self._seen = now or bool(self._seen)

    def happened(self):
        """Whether they did, None where nothing tells."""
        self.look()
        events = throttle_events(self._root)
        if self._events is not None and events is not None:
            return events > self._events or bool(self._seen)
        return self._seen


def wait_until_cool(gate, channel, root=""):
    """Waits until the device is cooler than the gate asks, with a sign of life at most once a second.

    Args:
        gate: ``gate`` of the request.
        channel: Told of the stage ``cooling``, where there is anything to wait for.
        root: Goes before paths of ``/sys``.

    Returns:
        ``(temperature_c, waited_s, doubt)``: at the start of the run, how long it took, and what
        the gate could not do, in words, or None.
    """
    begin = monotonic()
    limit, patience = gate["below_c"], gate["wait_s"]
    now = temperature_c(root)
    if now is None:
        return None, 0.0, "no thermal sensor can be read, so that the thermal gate of %g C could not hold" % limit
    if now >= limit and patience > 0:
        channel.progress("cooling", 0, round(patience))
    while now is not None and now >= limit and monotonic() - begin < patience:
        sleep(min(LOOK_S, max(0.0, begin + patience - monotonic())))
        channel.beat(round(monotonic() - begin), round(patience))
        now = temperature_c(root)
    waited = monotonic() - begin
    if now is None:
        return None, waited, "the thermal sensor went away while the thermal gate waited for less than %g C" % limit
    if now >= limit:
        doubt = "the device was still at %.1f C after %.0f s; the thermal gate wants less than %g C"
        return now, waited, doubt % (now, waited, limit)
    return now, waited, None
