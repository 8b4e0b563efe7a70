"""What an NVIDIA GPU was doing while something ran on it: clocks, heat, throttling, memory; and its own latency.

What the driver does not tell is None, or ``{"unavailable": why}``; nothing is guessed.
"""

from __future__ import annotations

import os

import _nvml
from _stats import percentile

MIB = 1 << 20


class Watch:
    """Looks at one GPU now and then, and keeps what matters of what it saw.

    Args:
        bus: The GPU's PCI address, such as ``0000:01:00.0``; None: the only one that the driver sees.
        library: The driver's library.
    """

    def __init__(self, bus=None, library=_nvml.LIBRARY):
        self.why, self.reasons = None, []
        self._sm_mhz, self._temperature_c, self._looks = None, None, 0
        try:
            self._nvml = _nvml.Library(library)
            self._gpu = self._find(bus)
        except OSError as error:
            self._gpu, self.why = None, str(error)

    def _find(self, bus):
        gpus = self._nvml.gpus()
        if len(gpus) == 1:
            return gpus[0]
        if bus is None:
            raise OSError("there are %d GPUs, and which one is used is not known" % len(gpus))
        return self._nvml.gpu(bus)

    def look(self):
        """Notes clock, temperature and what holds the clock down; whether anything does, None where unknown."""
        if self._gpu is None:
            return None
        try:
            reasons = self._gpu.throttle_reasons()
        except OSError:
            return None
        self._looks += 1
        self.reasons += [reason for reason in reasons if reason not in self.reasons]
        clock = _ask(self._gpu.clock_mhz, _nvml.SM_CLOCK)
        if clock is not None:
            self._sm_mhz = clock if self._sm_mhz is None else min(self._sm_mhz, clock)
        heat = _ask(self._gpu.temperature_c)
        if heat is not None:
            self._temperature_c = heat if self._temperature_c is None else max(self._temperature_c, heat)
        return bool(reasons)

    def figures(self):
        """What it saw, under the keys of the result's ``gpu``."""
        gpu = self._gpu
        return {
            "driver": None if gpu is None else _ask(self._nvml.driver),
            "sm_mhz": self._sm_mhz,
            "sm_most_mhz": None if gpu is None else _ask(gpu.most_clock_mhz, _nvml.SM_CLOCK),
            "memory_mhz": None if gpu is None else _ask(gpu.clock_mhz, _nvml.MEMORY_CLOCK),
            "temperature_c": self._temperature_c,
            "throttle_reasons": list(self.reasons) if self._looks else None,
        }

    def process_mib(self):
        """What the driver counts for this process, or None."""
        held = None if self._gpu is None else _ask(self._gpu.process_memory, os.getpid())
        return None if held is None else held / MIB


def latency(spans_ms):
    """Figures of a GPU's own latencies in milliseconds, as in the result's ``gpu.latency``."""
    ordered = sorted(spans_ms)
    return {
        "unit": "ms",
        "p50": percentile(ordered, 0.5),
        "p90": percentile(ordered, 0.9),
        "mean": sum(ordered) / len(ordered),
        "min": ordered[0],
        "max": ordered[-1],
        "samples": len(ordered),
    }


def _ask(question, *arguments):
    """An answer of the driver, None where it has none."""
    try:
        return question(*arguments)
    except OSError:
        return None
