"""Which runtime serves the target best: by measurement where the device is at hand, else by its order."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from pydantic import ValidationError

from edge_sdk._files import write_atomic
from edge_sdk._paths import cache_dir
from edge_sdk.schema.manifest import Selection

if TYPE_CHECKING:
    from pathlib import Path

    from edge_sdk.bundle import Bundle
    from edge_sdk.devices.base import Device
    from edge_sdk.profiling.interleave import Comparison, Ratio
    from edge_sdk.schema.target import Target

logger = logging.getLogger(__name__)


def only(bundle: Bundle, requested: bool, refused: Mapping[str, str]) -> Bundle:
    """The one bundle there is, with why there is no other."""
    if requested:
        return replace(bundle, selection=Selection(by="request", reason="asked for"))
    others = "; ".join(f"{label}: {reason}" for label, reason in refused.items())
    reason = f"the others cannot serve it: {others}" if others else "the target names no other"
    return replace(bundle, selection=Selection(by="only", reason=reason))


def by_order(bundles: Sequence[Bundle], why: str) -> Bundle:
    """The first in the target's order, saying why nothing was measured."""
    return replace(bundles[0], selection=Selection(by="order", reason=f"first in the target's order; {why}"))


def by_measurement(
    bundles: Sequence[Bundle],
    device: Device,
    target: Target,
    threads: int | None,
    use_cache: bool,
    progress: Callable[[str], None],
) -> Bundle:
    """The fastest on the device, their runners taking turns; the verdict is kept for the same bundles there.

    Args:
        bundles: At least two, in the target's order.
        device: Where to measure.
        target: Gives threads and processors.
        threads: Goes before the target's figure.
        use_cache: Whether an earlier verdict may be taken.
        progress: Called with a line as each turn starts.

    Raises:
        DeviceError: The device failed.
    """
    path = _verdict_path(bundles, device, threads)
    kept = _read(path) if use_cache else None
    if kept is not None and kept[0] < len(bundles):
        return replace(bundles[kept[0]], selection=kept[1])
    from edge_sdk.profiling.interleave import interleave

    found = interleave(bundles, device, target, threads=threads, progress=progress)
    place, selection = _verdict(found, [bundle.manifest.runtime.name for bundle in bundles])
    write_atomic(path, json.dumps({"place": place, "selection": selection.model_dump()}))
    return replace(bundles[place], selection=selection)


def _verdict(found: Comparison, names: Sequence[str]) -> tuple[int, Selection]:
    """The fastest; where the turns do not tell two apart, the one with the best single turn."""
    place = found.fastest
    first = found.ratios[place].value
    others = [other for other in range(len(names)) if other != place]
    told = ", ".join(f"{names[other]} takes {found.ratios[other].value / first:.2f} times as long" for other in others)
    reason = f"the fastest of {len(names)}, taking turns on this device: {told}"
    if any(_overlap(found.ratios[place], found.ratios[other]) for other in others):
        best = [min(median(turn) for turn in turns) for turns in found.rounds_ms]
        place = best.index(min(best))
        turns = ", ".join(f"{name} {value:.3g} ms" for name, value in zip(names, best, strict=True))
        reason = f"too close to tell apart on this device, so by the best of {len(found.rounds_ms[0])} turns: {turns}"
    medians = dict(zip(names, found.medians_ms, strict=True))
    return place, Selection(by="measurement", reason=reason, medians_ms=medians)


def _overlap(one: Ratio, other: Ratio) -> bool:
    return one.ci95[0] <= other.ci95[1] and other.ci95[0] <= one.ci95[1]


def _verdict_path(bundles: Sequence[Bundle], device: Device, threads: int | None) -> Path:
    about = device.describe()
    facts = [[bundle.manifest_sha256 for bundle in bundles], about.model_dump(exclude={"uri"}), device.uri, threads]
    return cache_dir() / "verdicts" / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()}.json"


def _read(path: Path) -> tuple[int, Selection] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return int(content["place"]), Selection.model_validate(content["selection"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        logger.warning("%s is damaged (%s); the runtimes are measured again", path, error)
        return None
