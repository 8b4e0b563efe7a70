"""A run's measuring, step by step: cool down, idle power, load, warm up, timed part, sustained part."""

from __future__ import annotations

import os

import _doubts
import _heat
import _system
import _timing
from _power import Meter
from _stats import summary
from _sustain import sustain

BATCH_FIGURES = 8000


class Measuring:
    """Measures one request; what makes the figures less believable gathers in ``warnings``.

    Args:
        request: The request.
        channel: Where messages go.
        usable: The processors that this process might use before it was pinned, or None.
        root: Goes before paths of ``/sys``.
    """

    def __init__(self, request, channel, usable=None, root=""):
        self.warnings = []
        self.meter = None
        self._request = request
        self._channel = channel
        self._root = root
        self._load_average = _system.load_average()
        self._others = sorted(set(usable or ()) - set(request["affinity"] or ())) or None
        self._start_c = self._waited_s = self._throttled = None

    def cool(self):
        """Waits at the thermal gate, where the request has one."""
        self._start_c = _heat.temperature_c(self._root)
        if self._request["gate"] is not None:
            self._start_c, self._waited_s, doubt = _heat.wait_until_cool(
                self._request["gate"], self._channel, self._root
            )
            self.warnings += [doubt] if doubt else []

    def run(self, feeds, load, look=lambda: None, make_recorder=_timing.Recorder):
        """Measures up to the end of the timed part.

        Args:
            feeds: The inputs of each part by name.
            load: Loads every part; returns ``(parts by name, nanoseconds)``.
            look: Whether a processor of the runtime's own throttles now, None where nothing tells.
            make_recorder: Makes what times the parts of given names.

        Returns:
            ``latency`` and ``memory`` of the result.
        """
        channel, timing, self._look = self._channel, self._request["timing"], look
        self.meter = meter = Meter(self._request["power"], self._others, self._root)
        meter.idle(channel)
        self._recorder = recorder = make_recorder(list(feeds))
        memory = _system.Memory()
        parts, load_ns = load()
        memory.look()
        recorder.calls = [parts[name].bind(feed) for name, feed in feeds.items()]

        channel.progress("first")
        first_ns = recorder.first()
        memory.look()

        channel.progress("warmup")
        warmup, steady, self._typical_ns = recorder.warm_up(timing, first_ns, channel.beat)
        channel.progress("timed", 0, timing["min_runs"])
        throttle = _heat.Throttle(self._root, look)
        samples = _SampleStream(channel, recorder, throttle.look)
        meter.start()
        others = _system.OtherLoad()
        count, narrow, elapsed_ns = recorder.measure(timing, self._typical_ns, samples.beat)
        meter.keep("timed")
        shares = others.shares()
        meter.stop()
        figures = recorder.memory(memory.figures())

        self._throttled = throttle.happened()
        self._origin_ns = recorder.starts[0]
        latency = dict(summary(recorder.spans[:count]), unit="ms", samples=count, warmup=warmup)
        latency.update(first=first_ns / 1e6, load=(load_ns if recorder.load_ns is None else recorder.load_ns) / 1e6)
        latency["parts"] = {name: summary(spans[:count])["p50"] for name, spans in recorder.parts.items()}
        samples.rest(count)
        self._send_power()
        self.warnings += [
            *recorder.doubts(),
            *_doubts.of_run(timing, latency, steady, narrow, elapsed_ns, count == recorder.capacity),
            *_doubts.of_drift(recorder.spans[:count]),
            *_doubts.of_load(shares, self._load_average, self._throttled),
            *_doubts.of_clock(_system.limited_clocks(self._root)),
        ]
        return {"latency": latency, "memory": figures}

    def sustain(self):
        """Keeps running, where the request asks for it. To be called after ``run``."""
        if self._request["sustain"] is None:
            return

        def at_end():
            self.meter.keep("sustain")
            self._send_power()

        self.meter.start()
        sustain(
            self._recorder,
            self._request["sustain"],
            self._typical_ns,
            self._origin_ns,
            self._channel,
            at_end,
            self._root,
            self._look,
        )
        self.meter.stop()

    def power(self):
        """``power`` of the result. What went wrong with the sensor joins the warnings."""
        if self.meter is None:
            return None
        self.warnings += self.meter.doubts()
        return self.meter.facts()

    def conditions(self, threads):
        """``conditions`` of the result, as they are now.

        Args:
            threads: How many the runtime uses.
        """
        affinity = self._request["affinity"]
        return {
            "throttled": self._throttled,
            "charging": _system.charging(self._root),
            "governor": _system.governor(self._root),
            "temperature_c": _heat.temperature_c(self._root),
            "temperature_start_c": self._start_c,
            "waited_s": self._waited_s,
            "threads": threads,
            "affinity": None if affinity is None else sorted(os.sched_getaffinity(0)),
            "load_average": self._load_average,
            "cpu_mhz": _system.cpu_mhz(self._root),
            "warnings": self.warnings,
        }

    def _send_power(self):
        self.meter.send(self._channel, self._origin_ns, BATCH_FIGURES // 2)


class _SampleStream:
    """Sends raw samples, each once and in order: a batch at each sign of life, the rest at the end.

    So the host has most of what was measured when the link drops. All is sent between timed blocks.
    """

    def __init__(self, channel, recorder, look):
        self._channel = channel
        self._recorder = recorder
        self._look = look
        self._batch = max(1, BATCH_FIGURES // (2 + len(recorder.parts)))
        self._sent = 0

    def beat(self, count):
        """To be called between blocks with the number of samples so far."""
        if self._channel.beat(count):
            self._look()
            self._send(min(count, self._sent + self._batch))

    def rest(self, count):
        """Sends what is left."""
        while self._sent < count:
            self._send(min(count, self._sent + self._batch))

    def _send(self, last):
        first, recorder = self._sent, self._recorder
        origin = recorder.starts[0]
        self._channel.send(
            "sample",
            start_ns=[start - origin for start in recorder.starts[first:last]],
            ns=list(recorder.spans[first:last]),
            parts={name: list(spans[first:last]) for name, spans in recorder.parts.items()},
        )
        self._sent = last
