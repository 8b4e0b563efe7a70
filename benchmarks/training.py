"""Training: what learned steps cost beside FP32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter

from benchmarks._context import Context
from benchmarks._rows import Limit, Row
from benchmarks._turns import in_turns

TITLE = "Training"
SIZES, QUICK_SIZES = ((64, 32), (224, 8)), ((32, 4),)
ROUNDS, QUICK_ROUNDS = 15, 2
CLASSES = 80
LSQ_FORWARD = Limit(at_most=1.6, by_interval=True)


def run(context: Context) -> Iterator[Row]:
    """A training step of ResNet-18 with LSQ's quantizers over one in FP32 with batch normalisation."""
    for size, batch in QUICK_SIZES if context.quick else SIZES:
        yield from lsq_cost(context, size, batch)


def lsq_cost(context: Context, size: int, batch: int) -> Iterator[Row]:
    """The forward pass, which has the limit, and the whole step."""
    import torch

    from edge_sdk.models.photo_tagging.resnet import ResNet
    from edge_sdk.profiling.interleave import compare_rounds
    from edge_sdk.quantization.lsq import LsqNetwork, Recipe

    torch.manual_seed(0)
    images, labels = torch.randn(batch, 3, size, size), (torch.rand(batch, CLASSES) < 0.05).float()
    learned = LsqNetwork(ResNet("resnet18", CLASSES), images[:1], Recipe())
    learned.initialise(images)
    networks = {"FP32": ResNet("resnet18", CLASSES).train(), "LSQ": learned.train()}

    def step(network: torch.nn.Module) -> tuple[float, float]:
        begin = perf_counter()
        logits = network(images)
        forward_s = perf_counter() - begin
        torch.nn.functional.binary_cross_entropy_with_logits(logits, labels).backward()
        whole_s = perf_counter() - begin
        network.zero_grad()
        return forward_s, whole_s

    sides: dict[str, Callable[[], tuple[float, float]]] = {
        name: partial(step, network) for name, network in networks.items()
    }
    for side in sides.values():
        side()
    rounds = QUICK_ROUNDS if context.quick else ROUNDS
    times = in_turns(sides, rounds, lambda line: context.say(f"training at {size} pixels: {line}"))
    for place, (name, limit) in enumerate((("forward pass", LSQ_FORWARD), ("training step", None))):
        found = compare_rounds([[[one[place] * 1e3] for one in times[side]] for side in networks])
        fp32_ms, lsq_ms = found.medians_ms
        how = f"ResNet-18, batch {batch}, {rounds} rounds in turns; {lsq_ms:.1f} ms and {fp32_ms:.1f} ms"
        yield Row(
            f"LSQ / FP32, {name}, {size} pixels", found.ratios[1].value, "ratio", how, found.ratios[1].ci95, limit
        )
