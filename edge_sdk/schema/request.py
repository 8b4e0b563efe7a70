"""What the host tells a runner, as one JSON file. ``docs/runner-protocol.md`` describes both sides."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edge_sdk.schema._base import Frozen, Sensor

PROTOCOL_VERSION = 1


class Timing(Frozen):
    """When to start counting and when to stop.

    The runner warms up until the median of successive blocks moves by less than ``steady_within``
    or ``warmup_max_s`` has passed. It then measures until ``min_runs`` and ``min_time_s`` are both
    reached and the 95 % interval of the median is narrower than ``ci_within`` of the median, or
    until ``max_time_s``.
    """

    warmup_min_runs: int = Field(default=5, ge=0)
    warmup_max_s: float = Field(default=5.0, ge=0)
    steady_within: float = Field(default=0.02, gt=0)
    min_runs: int = Field(default=50, ge=1)
    min_time_s: float = Field(default=1.0, ge=0)
    max_time_s: float = Field(default=10.0, gt=0)
    ci_within: float = Field(default=0.02, gt=0)


class Gate(Frozen):
    """Waits until the device is cooler than ``below_c``, for ``wait_s`` at most, before anything is loaded."""

    below_c: float
    wait_s: float = Field(default=120.0, ge=0)


class PowerRequest(Frozen):
    """Power to sample: the first of ``sensors`` that can be read, ``rate_hz`` times a second.

    Idle power is sampled for ``idle_s`` before the model is loaded.
    """

    sensors: list[Sensor] = Field(min_length=1)
    rate_hz: float = Field(default=10.0, gt=0, le=1000)
    idle_s: float = Field(default=3.0, ge=0)


class Sustain(Frozen):
    """Keeps running after the timed part for ``time_s``, reporting one window every ``window_s``."""

    time_s: float = Field(gt=0)
    window_s: float = Field(default=1.0, gt=0)


class PartRequest(Frozen):
    """A part to load. ``program`` is relative to the bundle folder."""

    name: str
    program: str
    entry: str
    inputs: list[str]
    outputs: list[str]


class RunRequest(Frozen):
    """``request.json``.

    ``bundle``, ``inputs`` and ``outputs`` are absolute paths of the device; ``reference`` and each
    part's ``program`` are relative to ``bundle`` and must not lead out of it.

    ``reference`` is a ``.npz`` with ``PART/inputs/NAME`` and ``PART/outputs/NAME``, each with a
    leading sample dimension. ``inputs``, where given, is a ``.npz`` with ``PART/inputs/NAME``. The
    runner runs every sample of both and writes ``outputs``, one ``.npz`` with
    ``reference/PART/outputs/NAME`` and ``inputs/PART/outputs/NAME``. Each part is timed with its
    first sample of ``reference``. ``timing`` None means no timing, only the samples; ``gate``,
    ``power`` and ``sustain`` then do nothing.
    """

    protocol_version: Literal[1] = PROTOCOL_VERSION
    bundle: str
    parts: list[PartRequest]
    reference: str
    inputs: str | None = None
    outputs: str | None = None
    threads: int | None = Field(default=None, ge=1)
    affinity: list[int] | None = None
    options: dict[str, str | int | float | bool] = {}
    timing: Timing | None = Timing()
    gate: Gate | None = None
    power: PowerRequest | None = None
    sustain: Sustain | None = None
