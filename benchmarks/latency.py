"""INT8 latency here: Edge SDK's program, on the runtime that it picks, beside plain ones made by hand."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from benchmarks._by_hand import made
from benchmarks._context import Case, Context
from benchmarks._machine import cores
from benchmarks._rows import Limit, Row

if TYPE_CHECKING:
    from edge_sdk.bundle import Bundle
    from edge_sdk.devices.base import Device
    from edge_sdk.schema.target import Target

TITLE = "INT8 latency"
TARGET = "desktop-cpu"
ROUNDS, QUICK_ROUNDS = 10, 2
QUICK_TURN = {"warmup_max_s": 0.1, "min_runs": 3, "min_time_s": 0.0, "max_time_s": 0.1}
NO_WORSE = Limit(at_most=1.0, by_interval=True)
PLAIN = {"executorch": "by_hand_executorch", "onnxruntime": "by_hand_onnxruntime"}


def run(context: Context) -> Iterator[Row]:
    """The ratio to the better of the plain ones, for every model."""
    for case in context.models:
        yield from compare(context, case)


def compare(context: Context, case: Case, runtime: str = "auto") -> Iterator[Row]:
    """Times three programs of one model in turns, by the same runners with as many threads.

    The plain ones travel in bundles as well, with the same inputs and FP32 outputs, so that it can be
    seen that they compute the same thing.

    Args:
        context: How long to take.
        case: The model.
        runtime: Edge SDK's runtime; it picks one unless told.
    """
    import edge_sdk
    from edge_sdk.devices import open_device
    from edge_sdk.profiling.interleave import TURN, compare_rounds, interleave
    from edge_sdk.schema.request import Timing

    threads = cores()
    rounds, timing = (QUICK_ROUNDS, Timing(**QUICK_TURN)) if context.quick else (ROUNDS, TURN)
    target = edge_sdk.load_target(TARGET)
    context.say(f"{case.title}: compiling for runtime {runtime}")
    ours = edge_sdk.compile(
        case.model, target, quantize="int8-static", runtime=runtime, settings=case.settings, threads=threads
    )
    plain = [plain_bundle(context, case, name, ours) for name in PLAIN]
    with open_device("local") as device:
        found = interleave(
            [*plain, ours],
            device,
            target,
            rounds=rounds,
            timing=timing,
            threads=threads,
            progress=lambda line: context.say(f"{case.title}: {line}"),
        )
        cosines = [_cosine(bundle, device, target) for bundle in (*plain, ours)]
    for warning in summarised(found.warnings):
        context.warn(f"{case.title}: {warning}")
    names = [*(f"plain {name}" for name in PLAIN), f"Edge SDK ({ours.manifest.runtime.name})"]
    best = min(range(len(plain)), key=lambda place: found.ratios[place].value)
    own = compare_rounds([found.rounds_ms[best], found.rounds_ms[-1]]).ratios[1]
    how = f"{rounds} rounds of processes in turns, {threads} threads, batch 1; {_reason(ours)}"
    yield Row(f"{case.title}: {names[-1]} / {names[best]}", own.value, "ratio", how, own.ci95, NO_WORSE)
    for name, milliseconds, cosine in zip(names, found.medians_ms, cosines, strict=True):
        yield Row(f"{case.title}: {name}", milliseconds, "ms", f"median; cosine to FP32 {cosine:.4f}")


def _reason(bundle: Bundle) -> str:
    """Why Edge SDK picked the runtime."""
    assert bundle.selection is not None
    return f"picked because {bundle.selection.reason}"


def summarised(warnings: Sequence[str]) -> list[str]:
    """Warnings of many turns: of those that differ only in their figures the first, and how many there are."""
    kinds: dict[str, list[str]] = {}
    for warning in warnings:
        kinds.setdefault(re.sub(r"[\d.]+", "", warning), []).append(warning)
    return [alike[0] + (f" (and {len(alike) - 1} like it)" if alike[1:] else "") for alike in kinds.values()]


def plain_bundle(context: Context, case: Case, runtime: str, like: Bundle) -> Bundle:
    """A bundle of the program that the script by hand makes.

    Args:
        context: Where to put it.
        case: The model.
        runtime: Which script.
        like: A bundle of the same model, whose inputs, outputs and reference it gets.
    """
    from edge_sdk.bundle import write_bundle
    from edge_sdk.schema.manifest import Partition, Quantization, RuntimeRef

    path = made(context, case, PLAIN[runtime])
    content = path.read_bytes()
    (part,) = like.manifest.parts
    delegate = {"executorch": "xnnpack", "onnxruntime": "cpu"}[runtime]
    manifest = like.manifest.model_copy(
        update={
            "name": f"plain-{runtime}",
            "key": hashlib.sha256(content).hexdigest(),
            "runtime": RuntimeRef(name=runtime, version=version(runtime), delegate=delegate),
            "quantization": Quantization(method="int8-static"),
            "parts": [part.model_copy(update={"program": path.name, "entry": "forward"})],
            "partition": Partition(delegate=delegate, delegated=0, pieces=0),  # not looked at: no report is made of it
        }
    )
    reference = (like.path / like.manifest.reference).read_bytes()
    return write_bundle(path.with_suffix(".edge"), manifest, {path.name: content, like.manifest.reference: reference})


def _cosine(bundle: Bundle, device: Device, target: Target) -> float:
    from edge_sdk.profiling.measure import measure

    return measure(bundle, device, target, timed=False).numerics.cosine
