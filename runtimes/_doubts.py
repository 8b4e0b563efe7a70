"""What makes a measurement less believable, in plain words for the report's warnings."""

from __future__ import annotations

import os

from _stats import percentile

NOISY_SHARE = 0.1
NOISY_VARIATION = 0.1
DRIFT = 0.1
DRIFT_RUNS = 40


def of_run(timing, latency, steady, narrow, elapsed_ns, full):
    """Doubts about how the run went: warm-up, number of runs, width of the interval, spread."""
    if not steady and timing["warmup_max_s"] > 0:
        yield "the latency was not steady after %d runs of warm-up" % latency["warmup"]
    if latency["samples"] < timing["min_runs"]:
        yield "only %d of %d runs fitted into max_time_s" % (latency["samples"], timing["min_runs"])
    if full and elapsed_ns < timing["min_time_s"] * 1e9:
        yield "the sample buffer was full after %.2f s" % (elapsed_ns / 1e9)
    if not narrow:
        yield "the 95 %% interval of the median, %.4g to %.4g ms, is wider than %.3g %% of it after %.1f s" % (
            *latency["ci95"],
            timing["ci_within"] * 100,
            elapsed_ns / 1e9,
        )
    if latency["std"] > NOISY_VARIATION * latency["mean"]:
        share = 100 * latency["std"] / latency["mean"]
        yield "the latency varies: its standard deviation is %.0f %% of its mean" % share


def of_drift(spans):
    """A doubt where the last quarter of the run was slower than the first."""
    quarter = len(spans) // 4
    if len(spans) < DRIFT_RUNS:
        return
    early, late = (percentile(sorted(part), 0.5) for part in (spans[:quarter], spans[-quarter:]))
    if late > early * (1 + DRIFT):
        yield (
            "the latency rose by %.0f %% from the first quarter of the run to the last; perhaps the processor "
            "throttled" % ((late / early - 1) * 100)
        )


def of_load(shares, load_average, throttled):
    """Doubts about the machine: throttling, and what else ran on it.

    Args:
        shares: Of `_system.OtherLoad`; the load average is looked at only where this is None.
        load_average: Before the start, or None.
        throttled: Whether the processor throttled, or None.
    """
    if throttled:
        yield "the processor throttled during the run"
    cpus = os.cpu_count() or 1
    if shares is None:
        if load_average is not None and load_average > 0.5 * cpus:
            yield "the load average was %.1f on %d processors before the start" % (load_average, cpus)
        return
    others, hypervisor = shares
    for share, who in ((others, "other programs"), (hypervisor, "the hypervisor")):
        if share > NOISY_SHARE:
            yield "%s took %.0f %% of the processors' time during the run" % (who, share * 100)


def of_clock(limited):
    """A doubt where a power mode, the user or heat holds the clock below what the processor can do.

    Args:
        limited: Of `_system.limited_clocks`.
    """
    if limited:
        yield "the highest clock that is allowed is lower than the processor's: %s" % ", ".join(limited)
