"""What removing channels gains: parameters, size and latency of pruned networks beside whole ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from benchmarks._context import EFFICIENTNET, Case, Context
from benchmarks._machine import cores
from benchmarks._rows import Limit, Row
from benchmarks.latency import QUICK_ROUNDS, QUICK_TURN, ROUNDS, summarised

if TYPE_CHECKING:
    from edge_sdk.bundle import Bundle

TITLE = "Pruning"
TARGET = "desktop-cpu"
RECIPE = "struct30"
WAYS = (("fp32", "onnxruntime"), ("fp32", "executorch"), ("int8-static", "onnxruntime"), ("int8-static", "executorch"))
QUICK_WAYS = WAYS[:1]
SMALLER, FASTER = Limit(at_most=0.70), Limit(at_most=0.85, by_interval=True)


def run(context: Context) -> Iterator[Row]:
    """A network that the pipeline prunes, and a captioner, which is pruned as its training does it.

    Training changes no shape, and so neither size nor latency: here nothing is trained.
    """
    for precision, runtime in QUICK_WAYS if context.quick else WAYS:
        case = context.models[0] if context.quick else EFFICIENTNET
        yield from compare(context, case, precision, runtime)
    if not context.quick:
        whole, pruned, parameters = captioners(context)
        yield parameters
        for precision, runtime in WAYS:
            yield from compare(context, whole, precision, runtime, pruned)


def compare(context: Context, case: Case, precision: str, runtime: str, pruned: Case | None = None) -> Iterator[Row]:
    """Pruned over whole.

    Args:
        context: How long to take.
        case: The model.
        precision: The quantizer.
        runtime: The runtime.
        pruned: The model as it was pruned elsewhere; None: the pipeline prunes it.
    """
    import edge_sdk
    from edge_sdk.devices import open_device
    from edge_sdk.profiling.interleave import TURN, interleave
    from edge_sdk.schema.request import Timing

    label = f"{case.title}, {precision}, {runtime}"
    threads, target = cores(), edge_sdk.load_target(TARGET)
    rounds, timing = (QUICK_ROUNDS, Timing(**QUICK_TURN)) if context.quick else (ROUNDS, TURN)

    def built(one: Case, prune: str | None) -> Bundle:
        context.say(f"{label}: compiling{' pruned' if prune or one is pruned else ''}")
        options = {"settings": one.settings, "threads": threads, "prune": prune}
        return edge_sdk.compile(one.model, target, quantize=precision, runtime=runtime, **options)

    whole = built(case, None)
    small = built(pruned or case, None if pruned else RECIPE)
    with open_device("local") as device:
        say = lambda line: context.say(f"{label}: {line}")  # noqa: E731
        found = interleave([whole, small], device, target, rounds=rounds, timing=timing, threads=threads, progress=say)
    for warning in summarised(found.warnings):
        context.warn(f"{label}: {warning}")
    if (about := small.manifest.pruning) is not None:
        yield _parameters(label, about.parameters_before, about.parameters)
    sizes = [bundle.manifest.size_bytes for bundle in (whole, small)]
    how = f"{sizes[0] / 1e6:.2f} MB and {sizes[1] / 1e6:.2f} MB, program files only"
    limit = SMALLER if precision == "fp32" else None
    yield Row(f"{label}: program, pruned / whole", sizes[1] / sizes[0], "ratio", how, limit=limit)
    times = " and ".join(f"{value:.2f} ms" for value in found.medians_ms)
    how = f"{rounds} rounds of processes in turns, {threads} threads, batch 1; {times}"
    ratio = found.ratios[1]
    limit = FASTER if precision == "fp32" else None
    yield Row(f"{label}: latency, pruned / whole", ratio.value, "ratio", how, ratio.ci95, limit)


def _parameters(label: str, before: int, after: int) -> Row:
    how = f"{before:,} and {after:,}, by {RECIPE}"
    return Row(f"{label}: parameters, pruned / whole", after / before, "ratio", how, limit=SMALLER)


def captioners(context: Context) -> tuple[Case, Case, Row]:
    """A captioner with EfficientNet-Lite0 and an untrained decoder, whole and pruned, as checkpoints."""
    import torch

    from edge_sdk.models.captioning._prune import prune_captioner
    from edge_sdk.models.captioning.plugin import Captioning
    from edge_sdk.pruning import Recipe

    context.say(f"Captioner: pruning by {RECIPE}")
    whole = Captioning().captioner
    found = prune_captioner(whole, Recipe.parse(RECIPE))
    cases = []
    for name, captioner in (("whole", whole), ("pruned", found.captioner)):
        path = context.folder / f"captioner_{name}.pt"
        torch.save({**captioner.checkpoint(), "data": "embedded"}, path)
        cases.append(Case("Captioner, image and one word", "captioning", {"checkpoint": str(path)}))
    after = sum(value.numel() for value in found.captioner.parameters())
    return cases[0], cases[1], _parameters("Captioner", found.parameters_before, after)
