"""What the operating system tells of the conditions: memory, clock, charging and other load.

Every reader returns None where the system does not tell; nothing is guessed. ``root`` goes before
paths of ``/sys``.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from time import perf_counter

LIMITED = 0.99


def read(path):
    """A small text file's content without surrounding space, or None where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16).strip()
    except OSError:
        return None


def read_int(path):
    """A number that stands alone in a file, or None."""
    text = read(path)
    return int(text) if text is not None and re.fullmatch(r"-?\d+", text) else None


def status(key):
    """A figure of ``/proc/self/status`` in KiB, or None."""
    found = re.search(r"^%s:\s+(\d+) kB" % key, read("/proc/self/status") or "", re.MULTILINE)
    return int(found.group(1)) if found else None


class Memory:
    """The process's peak resident set from now on, and what it was at the start.

    On Linux the kernel's high-water mark is reset, so that start-up does not count. Where it cannot
    be reset or there is none, the next best figure is used, and ``method`` says which.
    """

    def __init__(self):
        self._seen = []
        self._reset = self._reset_peak()
        self.baseline = self._now()
        self._mark = status("VmHWM")

    @staticmethod
    def _reset_peak():
        try:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
        except OSError:
            return False
        peak, now = status("VmHWM"), status("VmRSS")
        return peak is not None and now is not None and peak - now <= 1024

    @staticmethod
    def _now():
        now = status("VmRSS")
        return now if now is not None else _largest_ever()

    def look(self):
        """Notes the present figure, for systems whose high-water mark cannot be reset."""
        self._seen.append(self._now())

    def figures(self):
        """MiB under the keys of the report's ``memory``, or ``{"unavailable": why}``."""
        self.look()
        if self.baseline is None:
            return {"unavailable": "this system tells no resident set size"}
        peak, method = self._peak()
        return {
            "unit": "MiB",
            "peak": peak / 1024,
            "baseline": self.baseline / 1024,
            "model": max(0, peak - self.baseline) / 1024,
            "method": method,
        }

    def _peak(self):
        mark = status("VmHWM")
        if mark is None:
            return max(self._seen), "getrusage ru_maxrss of the runner's process, which counts its start-up too"
        if self._reset:
            return mark, "VmHWM of the runner's process, reset before the model was loaded"
        if mark > (self._mark or 0):
            return mark, "VmHWM of the runner's process"
        return max(self._seen), "largest VmRSS seen between steps; VmHWM could not be reset"


def _largest_ever():
    try:
        import resource
    except ImportError:
        return None
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest // 1024 if sys.platform == "darwin" else largest


def cpu_policies(root=""):
    """Clock domains that hold a processor this process may use, each as a dict.

    ``name``, ``governor``, and in MHz ``now``, ``limit`` (the highest clock that is allowed at
    present) and ``most`` (the highest that the processor can do); None where it does not tell.
    """
    try:
        usable = os.sched_getaffinity(0)
    except AttributeError:
        usable = None
    found = []
    for folder in sorted(glob.glob(root + "/sys/devices/system/cpu/cpufreq/policy*"), key=_number):
        processors = {int(word) for word in (read(folder + "/related_cpus") or "").split() if word.isdigit()}
        if usable is None or not processors or processors & usable:
            files = {"now": "scaling_cur_freq", "limit": "scaling_max_freq", "most": "cpuinfo_max_freq"}
            khz = {key: read_int(folder + "/" + file) for key, file in files.items()}
            policy = {key: None if value is None else value / 1000 for key, value in khz.items()}
            found.append(dict(policy, name=os.path.basename(folder), governor=read(folder + "/scaling_governor")))
    return found


def _number(path):
    digits = re.search(r"\d+$", path)
    return int(digits.group(0)) if digits else -1


def governor(root=""):
    """The frequency governor of the processors in use; of each clock domain where they differ."""
    told = [(policy["name"], policy["governor"]) for policy in cpu_policies(root) if policy["governor"]]
    if len({governor for _, governor in told}) > 1:
        return ", ".join("%s %s" % pair for pair in told)
    return told[0][1] if told else None


def cpu_mhz(root=""):
    """The clock now of the fastest of the processors in use."""
    told = [policy["now"] for policy in cpu_policies(root) if policy["now"] is not None]
    if not told:
        found = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", read(root + "/proc/cpuinfo") or "", re.MULTILINE)
        told = [float(clock) for clock in found]
    return max(told, default=None)


def limited_clocks(root=""):
    """The clock domains in use that may not run at their highest clock, in words."""
    return [
        "%s %.0f of %.0f MHz" % (policy["name"], policy["limit"], policy["most"])
        for policy in cpu_policies(root)
        if policy["limit"] and policy["most"] and policy["limit"] < LIMITED * policy["most"]
    ]


def batteries(root=""):
    """Folders of the batteries that feed this device; those of a mouse or a headset are left out."""
    return [
        supply
        for supply in sorted(glob.glob(root + "/sys/class/power_supply/*"))
        if read(supply + "/type") == "Battery" and read(supply + "/scope") != "Device"
    ]


def charging(root=""):
    """Whether a battery is being charged. None where there is no battery."""
    states = [read(supply + "/status") for supply in batteries(root)]
    known = [state for state in states if state and state != "Unknown"]
    return any(state == "Charging" for state in known) if known else None


def load_average():
    """The one-minute load average."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def task_count():
    """Threads of this process."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return None


class OtherLoad:
    """How much of the processors others used, from now until ``shares`` is called."""

    def __init__(self):
        self._begin = self._read()

    @staticmethod
    def _read():
        line = (read("/proc/stat") or "").partition("\n")[0].split()
        if len(line) < 9 or line[0] != "cpu":
            return None
        user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in line[1:9])
        own = os.times()
        ticks = os.sysconf("SC_CLK_TCK")
        busy = (user + nice + system + irq + softirq) / ticks
        # Programs that this process started and that have ended are its own.
        ours = own.user + own.system + own.children_user + own.children_system
        return perf_counter(), busy - ours, steal / ticks

    def shares(self):
        """``(others, hypervisor)`` as shares of all processors' time, or None."""
        end = self._read()
        if self._begin is None or end is None:
            return None
        time = (end[0] - self._begin[0]) * (os.cpu_count() or 1)
        if end[1] == self._begin[1] == 0 or time <= 0:
            return None
        return max(0.0, end[1] - self._begin[1]) / time, max(0.0, end[2] - self._begin[2]) / time
