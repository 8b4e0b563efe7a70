"""Sustained running: blocks of iterations for minutes, told window by window in bounded memory."""

from __future__ import annotations

import gc
from time import perf_counter_ns

import _heat
import _stats
import _system
import _timing


def sustain(recorder, request, typical_ns, origin_ns, channel, at_end, root="", look=lambda: None):
    """Runs for ``time_s`` and sends a ``window`` message at the end of each window, between two blocks.

    Args:
        recorder: Its buffers are overwritten. A window ends early where it fills them.
        request: ``sustain`` of the request.
        typical_ns: A typical time of one iteration.
        origin_ns: The zero of the protocol's clock.
        channel: Where the messages go; its stage is set.
        at_end: Called at the end of each window.
        root: Goes before paths of ``/sys``.
        look: As that of `_heat.Throttle`.
    """
    total_s = request["time_s"]
    channel.progress("sustain", 0, round(total_s))
    size = max(1, _timing.TIMED_BLOCK_NS // typical_ns)
    window_ns = max(1, int(request["window_s"] * 1e9))
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        begin = now = perf_counter_ns()
        last = begin + int(total_s * 1e9)
        end, count, throttle = begin + window_ns, 0, _heat.Throttle(root, look)
        while now < last:
            block = min(size, recorder.capacity - count)
            recorder.block(count, block)
            count += block
            now = perf_counter_ns()
            if now >= min(end, last) or count == recorder.capacity:
                spans = sorted(recorder.spans[:count])
                channel.send("window", **_window(spans, now - origin_ns, throttle.happened(), root))
                at_end()
                count, throttle = 0, _heat.Throttle(root, look)
                if now >= end:
                    end += window_ns * ((now - end) // window_ns + 1)
            channel.beat(round((now - begin) / 1e9), round(total_s))
    finally:
        if collecting:
            gc.enable()


def _window(spans, end_ns, throttled, root):
    return {
        "end_ns": end_ns,
        "runs": len(spans),
        "p50_ns": round(_stats.percentile(spans, 0.5)),
        "p90_ns": round(_stats.percentile(spans, 0.9)),
        "max_ns": spans[-1],
        "temperature_c": _heat.temperature_c(root),
        "cpu_mhz": _system.cpu_mhz(root),
        "throttled": throttled,
    }
