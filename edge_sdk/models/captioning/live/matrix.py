"""Both models in all precisions, measured in turns on one device: one table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from edge_sdk._files import write_atomic
from edge_sdk.errors import EdgeSdkError, StorageError, UnsupportedError, first_line
from edge_sdk.models.captioning.live.captioner import DeviceCaptioner
from edge_sdk.models.captioning.live.choices import MODELS, PRECISIONS, Choice, Offers
from edge_sdk.models.captioning.live.compiling import Compiler
from edge_sdk.models.captioning.metrics import cider
from edge_sdk.profiling.interleave import compare_rounds
from edge_sdk.schema._base import Frozen
from edge_sdk.schema.report import Report

if TYPE_CHECKING:
    import numpy as np

    from edge_sdk.bundle import Bundle

BASE = Choice("original", "fp32")
"""What all are compared with."""
TURNS, RESULT, PAGE = "turns.json", "matrix.json", "matrix.md"
_WARM = 3
_FEWEST_ROUNDS = 2

Say = Callable[[str], None]


class Turn(Frozen):
    """What one turn of a model and precision gave, photo by photo; milliseconds."""

    captions: list[str]
    latency: list[float]
    encoder: list[float]
    steps: list[float]
    step_counts: list[int]
    with_host: list[float]
    resident_mib: float | None


class Measured(Frozen):
    """All that was measured of a model and precision. ``key`` is what it was measured of."""

    key: str
    turns: list[Turn] = []
    report: Report | None = None


class Kept(Frozen):
    """The file of what was measured so far, by ``MODEL-PRECISION``."""

    measured: dict[str, Measured] = Field(default={}, max_length=len(MODELS) * len(PRECISIONS))


@dataclass(frozen=True)
class Photos:
    """What is captioned: squares as the encoders take them, and what people wrote of each."""

    views: Sequence[Any]
    references: Sequence[tuple[str, ...]]

    @staticmethod
    def of(checkpoint: Path) -> Photos:
        """The photos that a checkpoint's data keeps for judging.

        Raises:
            EdgeSdkError: There are none, or the checkpoint cannot be read.
        """
        from edge_sdk.models.captioning.plugin import Captioning

        found = Captioning(checkpoint=str(checkpoint))._photos("evaluation")
        if not found:
            raise UnsupportedError(
                "there are no photos to caption: Debian's opencv-doc and pip install 'edge-sdk[demo]' bring some."
            )
        return Photos([view for view, _ in found], [captions for _, captions in found])

    def pixels(self, captioner: DeviceCaptioner) -> list[np.ndarray]:
        """The squares for a captioner."""
        return [captioner.pixels(view.read(captioner.plan.image_size)) for view in self.views]

    @property
    def identity(self) -> str:
        """A hash of them."""
        from edge_sdk.models._views import identity

        return identity(self.views)


def measure(
    offers: Offers,
    device: str,
    *,
    threads: int | None = None,
    rounds: int = 3,
    out: Path | None = None,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Compiles what is not compiled, measures all in turns, and gives the table as JSON.

    Args:
        offers: The models, and for what they are compiled.
        device: Where.
        threads: Goes before the target's figure.
        rounds: Turns of each.
        out: The folder for what was measured, which is then not measured again, and for the table; None keeps none.
        say: Called with a line as each stage starts.

    Raises:
        UnsupportedError: The original in FP32 cannot be had, or there are too few rounds.
        EdgeSdkError: Something failed; what was measured until then is kept.
    """
    if rounds < _FEWEST_ROUNDS:
        raise UnsupportedError(f"--rounds is {rounds}; expected {_FEWEST_ROUNDS} or more: one tells no interval.")
    offers.check(BASE)
    kept = _read(out)
    photos = Photos.of(offers.checkpoints[BASE.model])
    bundles, missing = _bundles(offers, say)
    keys = {choice: _key(bundle, device, threads, photos) for choice, bundle in bundles.items()}
    measured = {choice: _same(kept, choice, keys[choice]) for choice in bundles}

    def keep(choice: Choice, **news: Any) -> None:
        measured[choice] = measured[choice].model_copy(update=news)
        if out is not None:
            content = Kept(measured={_name(one): what for one, what in measured.items()})
            write_atomic(out / TURNS, content.model_dump_json() + "\n")

    _take_turns(bundles, measured, photos, device, threads, rounds, keep, say)
    _profile(bundles, measured, device, threads, keep, say)
    document = _document(offers, bundles, measured, missing, photos, device)
    if out is not None:
        from edge_sdk.reporting.caption import matrix_page

        write_atomic(out / RESULT, json.dumps(document, indent=2, allow_nan=False) + "\n")
        write_atomic(out / PAGE, matrix_page(document))
    return document


def _bundles(offers: Offers, say: Say) -> tuple[dict[Choice, Bundle], dict[Choice, str]]:
    """The bundle of each choice, and why there is none of the others."""
    bundles: dict[Choice, Bundle] = {}
    missing: dict[Choice, str] = {}
    compiler = Compiler()
    try:
        for choice in (Choice(model, precision) for model in MODELS for precision in PRECISIONS):
            try:
                offers.check(choice)
                bundles[choice] = compiler.bundle(choice, offers, lambda stage, of=choice: say(f"{of.title}: {stage}"))
            except EdgeSdkError as error:
                if choice == BASE:
                    raise
                missing[choice] = str(error)
    finally:
        compiler.stop()
    return bundles, missing


def _take_turns(
    bundles: Mapping[Choice, Bundle],
    measured: Mapping[Choice, Measured],
    photos: Photos,
    device: str,
    threads: int | None,
    rounds: int,
    keep: Callable[..., None],
    say: Say,
) -> None:
    """Every choice captions all photos once a round, each time in a process of its own: A B, B A and so on."""
    from edge_sdk.devices import open_device

    with open_device(device) as place, place.lock("edge-sdk caption --matrix"):
        for turn in range(rounds):
            for choice in list(bundles) if turn % 2 == 0 else reversed(list(bundles)):
                if len(measured[choice].turns) > turn:
                    continue
                say(f"{choice.title}: captions of {len(photos.views)} photos, turn {turn + 1} of {rounds}")
                one = _turn(bundles[choice], photos, device, threads)
                keep(choice, turns=[*measured[choice].turns, one])


def _turn(bundle: Bundle, photos: Photos, device: str, threads: int | None) -> Turn:
    with closing(DeviceCaptioner(bundle, device, threads)) as captioner:
        pixels = photos.pixels(captioner)
        for one in pixels[:_WARM]:
            captioner.caption_pixels(one)
        said = [captioner.caption_pixels(one) for one in pixels]
    return Turn(
        captions=[one.text for one in said],
        latency=[one.latency_ms for one in said],
        encoder=[one.encoder_ms for one in said],
        steps=[sum(one.steps_ms) for one in said],
        step_counts=[len(one.steps_ms) for one in said],
        with_host=[one.wall_ms for one in said],
        resident_mib=said[-1].memory.resident_mib,
    )


def _profile(
    bundles: Mapping[Choice, Bundle],
    measured: Mapping[Choice, Measured],
    device: str,
    threads: int | None,
    keep: Callable[..., None],
    say: Say,
) -> None:
    """Peak memory and energy of each, by the same run that ``edge-sdk profile`` makes."""
    from edge_sdk import api

    for choice, bundle in bundles.items():
        if measured[choice].report is None:
            say(f"{choice.title}: memory and energy")
            keep(choice, report=api.profile(bundle, device=device, threads=threads))


def _document(
    offers: Offers,
    bundles: Mapping[Choice, Bundle],
    measured: Mapping[Choice, Measured],
    missing: Mapping[Choice, str],
    photos: Photos,
    device: str,
) -> dict[str, Any]:
    rounds = min(len(one.turns) for one in measured.values())
    compared = compare_rounds([[turn.latency for turn in one.turns[:rounds]] for one in measured.values()])
    ratios = dict(zip(measured, compared.ratios, strict=True))
    base = measured[BASE].turns[0].captions
    rows: list[dict[str, Any]] = []
    for choice in (Choice(model, precision) for model in MODELS for precision in PRECISIONS):
        who = {"model": choice.model, "precision": choice.precision, "title": choice.title}
        if choice in missing:
            rows.append({**who, "unavailable": missing[choice]})
            continue
        one, bundle = measured[choice], bundles[choice]
        rows.append({**who, **_figures(one, bundle, bundles[BASE], base, photos), "ratio": _ratio(ratios[choice])})
    report = measured[BASE].report
    assert report is not None
    return {
        "target": offers.target,
        "runtime": offers.runtime_name,
        "device": report.device.model_dump(mode="json"),
        "conditions": report.conditions.model_dump(mode="json"),
        "photos": len(photos.views),
        "rounds": rounds,
        "rows": rows,
    }


def _figures(one: Measured, bundle: Bundle, base_bundle: Bundle, base: Sequence[str], photos: Photos) -> dict[str, Any]:
    said, report = one.turns[0].captions, one.report
    assert report is not None
    latency_ms = median(value for turn in one.turns for value in turn.latency)
    counts = [count for turn in one.turns for count in turn.step_counts]
    steps_ms = [value for turn in one.turns for value in turn.steps]
    return {
        "bundle": {
            "path": str(bundle.path),
            "sha256": bundle.manifest_sha256,
            "size_bytes": bundle.manifest.size_bytes,
            "share_of_base": bundle.manifest.size_bytes / base_bundle.manifest.size_bytes,
        },
        "layers_in_higher_precision": len(bundle.manifest.quantization.skipped),
        "latency_ms": latency_ms,
        "encoder_ms": median(value for turn in one.turns for value in turn.encoder),
        "step_ms": sum(steps_ms) / sum(counts),
        "steps_per_caption": fmean(counts),
        "with_host_ms": median(value for turn in one.turns for value in turn.with_host),
        "captions_per_s": 1e3 / latency_ms,
        "memory": report.memory.model_dump(mode="json"),
        "energy": report.energy.model_dump(mode="json"),
        "same_captions": fmean(a == b for a, b in zip(said, base, strict=True)),
        "same_words": fmean(same_words(a, b) for a, b in zip(said, base, strict=True)),
        "cider": fmean(cider(said, photos.references)),
        "warnings": report.conditions.warnings,
    }


def same_words(caption: str, other: str) -> float:
    """The share of words that stand at the same place in both, of the longer one; 1 where both are empty."""
    mine, theirs = caption.split(), other.split()
    longer = max(len(mine), len(theirs))
    return sum(a == b for a, b in zip(mine, theirs, strict=False)) / longer if longer else 1.0


def _ratio(ratio: Any) -> dict[str, Any]:
    return {"value": ratio.value, "ci95": list(ratio.ci95)}


def _name(choice: Choice) -> str:
    return f"{choice.model}-{choice.precision}"


def _key(bundle: Bundle, device: str, threads: int | None, photos: Photos) -> str:
    """What a measurement is of: with another bundle, device, number of threads or photo it counts no more."""
    return hashlib.sha256(
        "\0".join([bundle.manifest_sha256, device, str(threads), photos.identity]).encode()
    ).hexdigest()


def _same(kept: Kept, choice: Choice, key: str) -> Measured:
    """What was measured of the same earlier, or nothing."""
    found = kept.measured.get(_name(choice))
    return found if found is not None and found.key == key else Measured(key=key)


def _read(out: Path | None) -> Kept:
    path = None if out is None else out / TURNS
    if path is None or not path.exists():
        return Kept()
    try:
        return Kept.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise StorageError(
            f"{path} is not what an earlier run of this version kept ({first_line(error)}): delete it to measure anew, "
            "or give another --out."
        ) from error
