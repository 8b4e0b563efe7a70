"""What a runner answers, one JSON line each. ``docs/runner-protocol.md`` describes both sides."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edge_sdk.schema._base import Frozen, Sensor
from edge_sdk.schema.report import Conditions, Engine, Gpu, Latency, Memory, Unavailable

_Text = Annotated[str, Field(max_length=4096)]
_Nanoseconds = Annotated[int, Field(ge=0, le=2**62)]
_Time = Annotated[int, Field(ge=-(2**62), le=2**62)]


NO_OUTPUTS = "no_outputs"
"""Key of `Result.facts` that says why outputs were asked for and none were written."""


class HostFacts(Frozen):
    """The runner's machine as the runner sees it."""

    os: _Text
    abi: _Text
    cpus: int | None = None


class Hello(Frozen):
    """The first message: which runtime answers, after it was imported."""

    type: Literal["hello"]
    protocol_version: Literal[1]
    runtime: _Text
    version: _Text
    python: _Text | None = None
    pid: int
    device: HostFacts


class Progress(Frozen):
    """A stage begins, or is that far. Also the sign of life."""

    type: Literal["progress"]
    stage: _Text
    done: int | None = None
    total: int | None = None


class Samples(Frozen):
    """A batch of raw samples: when each iteration began, counted from the first, and how long it took.

    ``parts`` has the time of each part where there are several.
    """

    type: Literal["sample"]
    start_ns: list[_Nanoseconds]
    ns: list[_Nanoseconds]
    parts: dict[str, list[_Nanoseconds]] = {}


class Power(Frozen):
    """A batch of readings of one power sensor.

    Attributes:
        phase: ``idle`` before the model was loaded, ``timed`` during the timed part, ``sustain`` after it.
        unit: ``mW`` for power, ``uJ`` for a counter of energy, which only grows.
        t_ns: When each was read, on the clock of ``start_ns``, whose zero is the first timed iteration;
            idle readings lie before it.
        value: What was read.
    """

    type: Literal["power"]
    phase: Literal["idle", "timed", "sustain"]
    unit: Literal["mW", "uJ"]
    t_ns: list[_Time]
    value: list[Annotated[float, Field(ge=0, le=1e18)]]


class PowerFacts(Frozen):
    """Which sensor was sampled and how: ``rails`` are the parts that were added up.

    ``assumed`` says what had to be assumed to read it, such as the unit of a current.
    """

    sensor: Sensor
    rails: list[_Text]
    rate_hz: float
    assumed: _Text | None = None


class Window(Frozen):
    """A stretch of the sustained part: when it ended on the clock of ``start_ns``, and what it was like."""

    type: Literal["window"]
    end_ns: _Time
    runs: Annotated[int, Field(ge=1)]
    p50_ns: _Nanoseconds
    p90_ns: _Nanoseconds
    max_ns: _Nanoseconds
    temperature_c: float | None = None
    cpu_mhz: float | None = None
    throttled: bool | None = None


class Result(Frozen):
    """The last message of a run that went well. ``latency`` and ``memory`` are None without timing.

    ``outputs`` is the path of the ``.npz`` that was written; ``facts`` is what the runtime tells of
    itself, such as the execution providers in use; ``power`` is None where none was asked for, ``gpu`` where
    none was timed, ``engine`` where the runtime has none.
    """

    type: Literal["result"]
    latency: Latency | None
    memory: Memory | Unavailable | None
    conditions: Conditions
    facts: dict[str, str] = {}
    outputs: _Text | None
    power: PowerFacts | Unavailable | None = None
    gpu: Gpu | None = None
    engine: Engine | None = None


class Array(Frozen):
    """An array: ``data`` is its bytes row by row, in base64."""

    name: _Text
    dtype: Literal["float32", "float16", "int64", "int32", "int8", "uint8", "bool"]
    shape: Annotated[list[Annotated[int, Field(ge=0, le=2**30)]], Field(max_length=16)]
    data: str


class SessionMemory(Frozen):
    """What the runner's process holds now, in MiB; None where that is not told or there is no GPU."""

    resident_mib: Annotated[float, Field(ge=0)] | None
    gpu_mib: Annotated[float, Field(ge=0)] | None


class Answer(Frozen):
    """What one call of a session gave, and how long the runtime's own call took."""

    type: Literal["answer"]
    ns: _Nanoseconds
    outputs: list[Array]
    memory: SessionMemory | None


class Failure(Frozen):
    """The last message of a run that failed (``"type": "error"``)."""

    type: Literal["error"]
    stage: _Text
    kind: Literal["request", "missing_runtime", "unsupported", "runtime", "data", "memory", "interrupted"]
    message: _Text


Message = Annotated[
    Hello | Progress | Samples | Power | Window | Answer | Result | Failure, Field(discriminator="type")
]
