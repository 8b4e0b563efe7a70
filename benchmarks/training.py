"""Training: what learned steps cost beside FP32, what kept memory saves, and whether the loader keeps up."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from time import perf_counter

from benchmarks._context import Context
from benchmarks._rows import Limit, Row
from benchmarks._turns import in_turns, median_s

TITLE = "Training"
SIZES, QUICK_SIZES = ((64, 32), (224, 8)), ((32, 4),)
ROUNDS, QUICK_ROUNDS = 15, 2
CLASSES = 80
PHOTOS, QUICK_PHOTOS = 512, 32
PHOTO_SIZE = (640, 480)
BATCH = 16
STEPS = 5
LOADER = Limit(at_least=1.0)
LSQ_FORWARD = Limit(at_most=1.6, by_interval=True)


def run(context: Context) -> Iterator[Row]:
    """A training step of ResNet-18 with LSQ's quantizers over one in FP32 with batch normalisation."""
    for size, batch in QUICK_SIZES if context.quick else SIZES:
        yield from lsq_cost(context, size, batch)
    yield memory_kept(context)
    yield loader_speed(context)


def memory_kept(context: Context) -> Row:
    """A training step of SVQ where freed memory goes back to the kernel, over one where it is kept, as in a run."""
    import torch

    from edge_sdk.models.svq.network import SVQ
    from edge_sdk.profiling.interleave import compare_rounds
    from edge_sdk.training.memory import kept_memory

    torch.manual_seed(0)
    size = 32 if context.quick else 64
    network, images = SVQ(image_size=size), torch.rand(BATCH, 3, size, size)

    def steps(keep: bool) -> list[float]:
        times = []
        with kept_memory() if keep else nullcontext():
            for _ in range(1 + STEPS):
                begin = perf_counter()
                (network(images)["recon"] - images).square().mean().backward()
                network.zero_grad()
                times.append((perf_counter() - begin) * 1e3)
        return times[1:]

    rounds = QUICK_ROUNDS if context.quick else ROUNDS
    sides = {"given back": partial(steps, False), "kept": partial(steps, True)}
    times = in_turns(sides, rounds, lambda line: context.say(f"memory: {line}"))
    found = compare_rounds([times["kept"], times["given back"]])
    kept_ms, given_ms = found.medians_ms
    how = f"SVQ, batch {BATCH}, {rounds} rounds of {STEPS} steps in turns; {given_ms:.1f} ms and {kept_ms:.1f} ms"
    return Row("memory given back / kept, training step", found.ratios[1].value, "ratio", how, found.ratios[1].ci95)


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


def loader_speed(context: Context) -> Row:
    """Photos a second that the loader and the augmentation give, over those that ResNet-18 trains on at 224 pixels."""
    import numpy as np
    import torch

    from edge_sdk.models.photo_tagging._augment import augment
    from edge_sdk.models.photo_tagging._config import Augment
    from edge_sdk.models.photo_tagging._loader import Photos, loader
    from edge_sdk.models.photo_tagging.coco import Index
    from edge_sdk.models.photo_tagging.resnet import ResNet
    from edge_sdk.training.seeds import generator

    count = QUICK_PHOTOS if context.quick else PHOTOS
    files = _photos(context.folder / "photos", count)
    index = Index(context.folder, "train", ("any",), files, np.ones((count, 1), np.uint8))
    workers = os.cpu_count() or 1
    batches = loader(Photos(index, 224, seed=0), BATCH, workers)
    changes = Augment(scale=(0.5, 1.0), ratio=1.333, flip=0.5, brightness=0.2, contrast=0.2, saturation=0.2)
    network = ResNet("resnet18", CLASSES).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def feed() -> float:
        begin = perf_counter()
        for batch in batches:
            augment(batch["images"], 224, changes, generator(0))
        return (perf_counter() - begin) / count

    images = torch.randn(BATCH, 3, 224, 224).contiguous(memory_format=torch.channels_last)

    def train() -> float:
        begin = perf_counter()
        network(images).square().mean().backward()
        network.zero_grad()
        return (perf_counter() - begin) / BATCH

    sides = {"loader": feed, "training": train}
    rounds = QUICK_ROUNDS if context.quick else ROUNDS
    times = in_turns(sides, rounds, lambda line: context.say(f"loader: {line}"))
    fed_s, trained_s = median_s(times["loader"])[0], median_s(times["training"])[0]
    width, height = PHOTO_SIZE
    how = (
        f"JPEGs of {width} x {height}, {workers} processes to read, medians of {rounds} rounds in turns; "
        f"{1 / fed_s:.0f} and {1 / trained_s:.0f} photos/s"
    )
    name = "the loader's photos/s / ResNet-18's in training, 224 pixels"
    return Row(name, trained_s / fed_s, "ratio", how, limit=LOADER)


def _photos(folder: Path, count: int) -> tuple[Path, ...]:
    """Real photos as files of one size, each as often as it takes to have so many."""
    from PIL import Image

    from edge_sdk.models._photos import calibration_photos

    folder.mkdir()
    files = tuple(folder / f"{number:04d}.jpg" for number in range(count))
    sources = calibration_photos()[:count]
    for path, source in zip(files, sources, strict=False):
        Image.open(source).convert("RGB").resize(PHOTO_SIZE).save(path, quality=90)
    for number in range(len(sources), count):
        shutil.copyfile(files[number % len(sources)], files[number])
    return files
