"""What a native runner program is to the SDK: how it is called, and the figures that its output tells."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from edge_sdk.devices._protocol import BrokenStreamError
from edge_sdk.errors import UnsupportedError
from edge_sdk.schema.report import Unavailable
from edge_sdk.schema.request import RunRequest

Execute = Callable[[list[str]], str]
"""Runs a command line on the device; gives standard output and standard error as text."""

NUMBER = r"(\d{1,15}(?:\.\d{1,15})?(?:e[+-]?\d{1,3})?)"
"""A number without a sign, as C and C++ print it."""
MAX_RUNS = 50_000
"""Inferences of one call: what it prints of each stays within a few MB."""


@dataclass(frozen=True)
class Call:
    """One call of a program.

    Attributes:
        binary: The program.
        model: The model's path on the device.
        entry: The method to run.
        runs: How many inferences.
        threads: How many, None for the program's own choice.
        affinity: Processors to pin it to.
        options: Those of the request.
        inputs: Files of the inputs in order; empty where the program makes up its own.
        outputs: Where outputs are written, as far as the program takes it; None: nowhere.
    """

    binary: str
    model: str
    entry: str
    runs: int
    threads: int | None = None
    affinity: Sequence[int] | None = None
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    inputs: Sequence[str] = ()
    outputs: str | None = None

    @property
    def head(self) -> list[str]:
        """The program, pinned where asked for.

        ``taskset`` takes its mask in hexadecimal in util-linux as in Android's toybox.
        Source: taskset(1); toybox, toys/other/taskset.c.
        """
        if not self.affinity:
            return [self.binary]
        return ["taskset", f"{sum(1 << cpu for cpu in set(self.affinity)):x}", self.binary]


@dataclass(frozen=True)
class Figures:
    """What one call told.

    Attributes:
        spans_ns: Nanoseconds of each inference in order, or one value, their mean.
        each: Whether every inference has its own value.
        runs: How many inferences were timed.
        warmup: How many the program itself ran before it timed.
        first_ms: The first inference after loading.
        load_ms: Loading the model.
        threads: As the program tells.
        facts: What else it tells, for people.
    """

    spans_ns: tuple[int, ...]
    each: bool
    runs: int
    warmup: int
    first_ms: float | Unavailable
    load_ms: float | Unavailable
    threads: int | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


class Program(ABC):
    """A kind of native runner program."""

    name: ClassVar[str]
    runtime: ClassVar[str]
    suffix: ClassVar[str]
    """How the files end that it runs."""
    inputs: ClassVar[str]
    """What it is timed with where no inputs are given."""
    takes_samples: ClassVar[bool] = False
    """Whether it can be given inputs and writes its outputs."""

    def check(self, request: RunRequest) -> None:
        """Refuses options that the program has no way to follow.

        Raises:
            UnsupportedError: There is such an option.
        """
        if request.options:
            raise UnsupportedError(f"{self.name} has no way to follow the options {', '.join(request.options)}.")

    @abstractmethod
    def run(self, execute: Execute, call: Call) -> Figures:
        """Runs the program once.

        Raises:
            BrokenStreamError: Its output is not what it should be.
        """


def number(text: str) -> float:
    """A number that `NUMBER` matched.

    Raises:
        BrokenStreamError: It is too large for a float.
    """
    value = float(text)
    if not math.isfinite(value):
        raise BrokenStreamError(f"it printed a number beyond all bounds: {text[:40]}.")
    return value


def nanoseconds(value: float, unit_ns: float) -> int:
    """A time as whole nanoseconds.

    Raises:
        BrokenStreamError: It is zero or longer than a day.
    """
    span = value * unit_ns
    if not 0 < span < 86_400e9:
        raise BrokenStreamError(f"it printed a time of {span / 1e6:g} ms for an inference.")
    return max(1, round(span))


def one(pattern: str, text: str, what: str) -> re.Match[str] | None:
    """The only line that a pattern matches whole, None where there is none.

    Raises:
        BrokenStreamError: There is more than one.
    """
    found = list(re.finditer(rf"^{pattern}\r?$", text, re.MULTILINE))
    if len(found) > 1:
        raise BrokenStreamError(f"it printed {what} {len(found)} times.")
    return found[0] if found else None
