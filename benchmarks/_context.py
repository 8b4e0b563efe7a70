"""What every suite is given: the models, where to put things, how long to take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


class BenchmarkError(Exception):
    """A program of a suite failed, or gave no figure."""


@dataclass(frozen=True)
class Case:
    """A model to measure with.

    Attributes:
        title: Its name in the tables.
        model: What `edge_sdk.compile` takes.
        settings: The model's settings.
    """

    title: str
    model: str
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def arguments(self) -> list[str]:
        """The model and its settings, as the programs of ``benchmarks/programs`` take them."""
        return [self.model, *(f"{key}={value}" for key, value in self.settings.items())]


EFFICIENTNET = Case("EfficientNet-Lite0", "efficientnet_lite0")
RESNET = Case("ResNet-18", "photo_tagging", {"variant": "resnet18"})
SMALL = Case("ResNet-18 at 32 pixels", "photo_tagging", {"variant": "resnet18", "input_size": "32"})


@dataclass(frozen=True)
class Context:
    """How to run.

    Attributes:
        folder: For scratch files.
        quick: Few and short rounds: the suites are tried out, and their figures mean nothing.
        say: Called with a line as each step starts.
        warn: Called with what makes the figures less believable.
        models: The models to measure with; the first one is also the one that compile times are taken with.
    """

    folder: Path
    quick: bool = False
    say: Callable[[str], None] = lambda _: None
    warn: Callable[[str], None] = lambda _: None
    models: tuple[Case, ...] = ()
