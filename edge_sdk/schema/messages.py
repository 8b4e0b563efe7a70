"""What a runner answers, one JSON line each. ``docs/runner-protocol.md`` describes both sides."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edge_sdk.schema._base import Frozen
from edge_sdk.schema.report import Conditions, Latency, Memory, Unavailable

_Text = Annotated[str, Field(max_length=4096)]
_Nanoseconds = Annotated[int, Field(ge=0)]


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


class Result(Frozen):
    """The last message of a run that went well. ``latency`` and ``memory`` are None without timing.

    ``outputs`` is the path of the ``.npz`` that was written; ``facts`` is what the runtime tells of
    itself, such as the execution providers in use.
    """

    type: Literal["result"]
    latency: Latency | None
    memory: Memory | Unavailable | None
    conditions: Conditions
    facts: dict[str, str] = {}
    outputs: _Text | None


class Failure(Frozen):
    """The last message of a run that failed (``"type": "error"``)."""

    type: Literal["error"]
    stage: _Text
    kind: Literal["request", "missing_runtime", "unsupported", "runtime", "data", "memory", "interrupted"]
    message: _Text


Message = Annotated[Hello | Progress | Samples | Result | Failure, Field(discriminator="type")]
