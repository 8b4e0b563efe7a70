"""Samples power in a thread of its own, and keeps what belongs to each phase of a run."""

from __future__ import annotations

import os
import threading
from array import array
from time import monotonic, perf_counter_ns, sleep

import _sensors

CAPACITY = 100_000
LOOK_S = 0.1


class Sampler:
    """Reads a sensor at a steady rate, between ``start`` and ``stop``.

    Deadlines are absolute, so that the rate does not drift; those that were missed are left out.
    The buffers are bounded: what does not fit is counted in ``lost``.

    Args:
        sensor: As in `_sensors`.
        rate_hz: Readings a second.
        processors: Those the thread may use, None for any: it leaves the pinned ones to the runtime.
        capacity: How many readings are kept until ``take``.
    """

    def __init__(self, sensor, rate_hz, processors=None, capacity=CAPACITY):
        self.failures, self.lost, self.error = 0, 0, None
        self._sensor = sensor
        self._period_ns = max(1, int(1e9 / rate_hz))
        self._processors = processors
        self._times, self._values = array("q", bytes(8 * capacity)), array("d", bytes(8 * capacity))
        self._count = 0
        self._lock = threading.Lock()
        self._stop = None
        self._thread = None

    def start(self):
        """Starts the thread; its first reading comes at once."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._stop,), name="power", daemon=True)
        self._thread.start()

    def stop(self):
        """Ends the thread."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None

    def now(self):
        """Takes one reading, dated in the middle of the time that it took."""
        with self._lock:
            before = perf_counter_ns()
            try:
                value = self._sensor.read()
            except OSError as error:
                self.failures, self.error = self.failures + 1, str(error)
                return
            after = perf_counter_ns()
            if self._count == len(self._times):
                self.lost += 1
                return
            self._times[self._count] = (before + after) // 2
            self._values[self._count] = value
            self._count += 1

    def take(self):
        """The readings since the last time, ``(times_ns, values)``; makes room for more."""
        with self._lock:
            taken = self._times[: self._count], self._values[: self._count]
            self._count = 0
            return taken

    def _run(self, stop):
        if self._processors is not None:
            try:
                os.sched_setaffinity(0, self._processors)
            except (AttributeError, OSError):
                pass  # it then runs where the main thread runs
        due = perf_counter_ns()
        while True:
            self.now()
            due += self._period_ns
            late = perf_counter_ns() - due
            if late > 0:
                due += (late // self._period_ns + 1) * self._period_ns
            if stop.wait(max(0, due - perf_counter_ns()) / 1e9):
                return


class Meter:
    """Power over one run, by phase: ``idle``, ``timed``, ``sustain``. Without a sensor it does nothing.

    Args:
        request: ``power`` of the request, None where none is asked for.
        processors: For `Sampler`.
        root: Goes before paths of ``/sys``.
    """

    def __init__(self, request, processors=None, root=""):
        self._request = request
        self._kept = []
        self._sampler = None
        if request is not None:
            self._sensor, self._reasons = _sensors.open_sensor(request["sensors"], root)
            if self._sensor is not None:
                self._sampler = Sampler(self._sensor, request["rate_hz"], processors)

    def idle(self, channel):
        """Samples while nothing runs."""
        if self._sampler is None or self._request["idle_s"] <= 0:
            return
        channel.progress("idle", 0, round(self._request["idle_s"]))
        end = monotonic() + self._request["idle_s"]
        self.start()
        while monotonic() < end:
            sleep(min(LOOK_S, max(0.0, end - monotonic())))
            channel.beat(round(self._request["idle_s"] - (end - monotonic())), round(self._request["idle_s"]))
        self.keep("idle")
        self.stop()

    def start(self):
        """Starts sampling, with a reading before it returns."""
        if self._sampler is not None:
            self._sampler.now()
            self._sampler.start()

    def keep(self, phase):
        """Ends a phase with a reading at once. What was sampled since the last phase is this one's."""
        if self._sampler is not None:
            self._sampler.now()
            self._kept.append((phase, *self._sampler.take()))

    def stop(self):
        """Stops sampling; what was not kept is dropped."""
        if self._sampler is not None:
            self._sampler.stop()
            self._sampler.take()

    def send(self, channel, origin_ns, batch):
        """Sends what was kept, each reading once.

        Args:
            channel: Where to.
            origin_ns: The start of the first timed iteration.
            batch: How many readings a message holds at most.
        """
        for phase, times, values in self._kept:
            for first in range(0, len(times), batch):
                channel.send(
                    "power",
                    phase=phase,
                    unit=self._sensor.unit,
                    t_ns=[time - origin_ns for time in times[first : first + batch]],
                    value=[value * self._sensor.scale for value in values[first : first + batch]],
                )
        self._kept = []

    def facts(self):
        """What was sampled and how, ``{"unavailable": why}`` or None, as in the result."""
        if self._request is None:
            return None
        if self._sampler is None:
            return {"unavailable": "; ".join(self._reasons)}
        return {
            "sensor": self._sensor.name,
            "rails": self._sensor.rails,
            "rate_hz": self._request["rate_hz"],
            "assumed": self._sensor.assumed,
        }

    def doubts(self):
        """What went wrong while sampling, in words."""
        sampler = self._sampler
        if sampler is not None and sampler.failures:
            yield "%d readings of the power sensor %s failed: %s" % (
                sampler.failures,
                self._sensor.name,
                sampler.error,
            )
        if sampler is not None and sampler.lost:
            yield "%d power readings did not fit into the buffer" % sampler.lost
