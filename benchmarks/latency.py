"""INT8 latency here: Edge SDK's program, on the runtime that it picks, beside plain ones made by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
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
ROUNDS, QUICK_ROUNDS = 8, 2
NO_WORSE = Limit(at_most=1.0, by_interval=True)
PLAIN = {"executorch": "by_hand_executorch", "onnxruntime": "by_hand_onnxruntime"}


def run(context: Context) -> Iterator[Row]:
    """The ratio to the better of the plain ones, for every model."""
    for case in context.models:
        yield from compare(context, case)


def compare(context: Context, case: Case) -> Iterator[Row]:
    """Times three programs of one model in turns, by the same runners with as many threads.

    The plain ones travel in bundles as well, with the same inputs and FP32 outputs, so that it can be
    seen that they compute the same thing.
    """
    import edge_sdk
    from edge_sdk.devices import open_device
    from edge_sdk.profiling.interleave import compare_rounds, interleave

    threads = cores()
    context.say(f"{case.title}: compiling, and letting Edge SDK pick a runtime")
    ours = edge_sdk.compile(case.model, TARGET, quantize="int8-static", settings=case.settings, threads=threads)
    plain = [plain_bundle(context, case, runtime, ours) for runtime in PLAIN]
    target = edge_sdk.load_target(TARGET)
    rounds = QUICK_ROUNDS if context.quick else ROUNDS
    with open_device("local") as device:
        found = interleave(
            [*plain, ours],
            device,
            target,
            rounds=rounds,
            threads=threads,
            progress=lambda line: context.say(f"{case.title}: {line}"),
        )
        cosines = [_cosine(bundle, device, target) for bundle in (*plain, ours)]
    for warning in found.warnings:
        context.warn(f"{case.title}: {warning}")
    names = [f"plain {bundle.manifest.runtime.name}" for bundle in plain]
    best = min(range(len(plain)), key=lambda place: found.ratios[place].value)
    own = compare_rounds([found.rounds_ms[best], found.rounds_ms[-1]]).ratios[1]
    title = f"{case.title}: Edge SDK ({ours.manifest.runtime.name}) / {names[best]}"
    how = f"{rounds} rounds of processes in turns, {threads} threads, batch 1"
    yield Row(title, own.value, "ratio", how, own.ci95, NO_WORSE)
    for place, name in enumerate([*names, f"Edge SDK ({ours.manifest.runtime.name})"]):
        how = f"median; cosine to FP32 {cosines[place]:.4f}"
        yield Row(f"{case.title}: {name}", found.medians_ms[place], "ms", how)


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
