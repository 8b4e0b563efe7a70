"""Compares bundles by letting their runners take turns on one device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING

from edge_sdk.errors import DeviceError
from edge_sdk.profiling._blocks import t95
from edge_sdk.profiling._run import make_request, run_once
from edge_sdk.schema.request import Timing

if TYPE_CHECKING:
    from edge_sdk.bundle import Bundle
    from edge_sdk.devices.base import Device
    from edge_sdk.schema.target import Target

TURN = Timing(warmup_max_s=2.0, min_runs=20, min_time_s=0.5, max_time_s=1.5)
"""How long one turn lasts: short, so that the turns meet the same state of the machine."""


@dataclass(frozen=True)
class Ratio:
    """How many times slower than another: above 1 is slower. ``ci95`` is its 95 % interval."""

    value: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """What taking turns gave; everything in the order of the bundles.

    Attributes:
        rounds_ms: Raw samples of each bundle, ``[bundle][round][sample]``.
        medians_ms: The median over all samples of each bundle.
        ratios: Each bundle's latency over the first bundle's.
        warnings: What the runners say makes the figures less believable, each once.
    """

    rounds_ms: tuple[tuple[tuple[float, ...], ...], ...]
    medians_ms: tuple[float, ...]
    ratios: tuple[Ratio, ...]
    warnings: tuple[str, ...]

    @property
    def fastest(self) -> int:
        """The place of the bundle with the smallest ratio."""
        return min(range(len(self.ratios)), key=lambda place: self.ratios[place].value)


def interleave(
    bundles: Sequence[Bundle],
    device: Device,
    target: Target | None = None,
    *,
    rounds: int = 5,
    timing: Timing = TURN,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Comparison:
    """Times bundles in turns, each turn in a process of its own: A B, B A, A B and so on.

    Args:
        bundles: At least two.
        device: Where; it is locked meanwhile.
        target: Gives threads and processors; None leaves them to the runtimes.
        rounds: Turns of each bundle; at least two.
        timing: Of one turn.
        threads: Goes before the target's figure.
        progress: Called with a line as each turn starts.

    Raises:
        DeviceError: The device is in use, or a runner failed or answered wrongly.
        MissingDependencyError: A runtime is not installed on the device.
        ValueError: Fewer than two bundles or rounds.
    """
    if len(bundles) < 2 or rounds < 2:
        raise ValueError(f"taking turns needs two bundles and two rounds; found {len(bundles)} and {rounds}")
    say = progress or (lambda _: None)
    samples: list[list[tuple[float, ...]]] = [[] for _ in bundles]
    warnings: dict[str, None] = {}
    with device.lock("edge-sdk, a comparison of bundles"):
        requests = [
            make_request(bundle, device.push(bundle.path), target, threads).model_copy(update={"timing": timing})
            for bundle in bundles
        ]
        for turn in range(rounds):
            places = range(len(bundles))
            for place in places if turn % 2 == 0 else reversed(places):
                bundle = bundles[place]
                runtime = bundle.manifest.runtime.name
                say(f"comparing on {device.uri}: {runtime}, turn {turn + 1} of {rounds}")
                run = run_once(bundle, device, requests[place], lambda _: None)
                samples[place].append(run.samples_ms)
                warnings.update((f"{runtime}: {text}", None) for text in run.result.conditions.warnings)
    return compare_rounds(samples, tuple(warnings))


def compare_rounds(rounds_ms: Sequence[Sequence[Sequence[float]]], warnings: tuple[str, ...] = ()) -> Comparison:
    """Ratios with intervals from samples that were taken in turns.

    A round's ratio is that of the two medians in the same round, so that what slows both cancels
    out. The logarithms of the rounds' ratios are averaged, with Student's interval: rounds are few,
    and resampling few values gives intervals that are too narrow.

    Args:
        rounds_ms: ``[bundle][round][sample]``; every bundle with as many rounds, at least two.
        warnings: To be passed on.
    """
    medians = [[median(samples) for samples in rounds] for rounds in rounds_ms]
    if any(value <= 0 for rounds in medians for value in rounds):
        raise DeviceError("a runner says that its inferences took no time; its figures are not used.")
    return Comparison(
        rounds_ms=tuple(tuple(map(tuple, rounds)) for rounds in rounds_ms),
        medians_ms=tuple(median(value for samples in rounds for value in samples) for rounds in rounds_ms),
        ratios=tuple(_ratio(own, medians[0]) for own in medians),
        warnings=warnings,
    )


def _ratio(own: Sequence[float], base: Sequence[float]) -> Ratio:
    logs = [log(a / b) for a, b in zip(own, base, strict=True)]
    middle, half = fmean(logs), t95(len(logs) - 1) * stdev(logs) / sqrt(len(logs))
    return Ratio(exp(middle), (exp(middle - half), exp(middle + half)))
