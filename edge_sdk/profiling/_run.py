"""One run of a bundle on a device: the request that is sent, and the answer with its raw samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import DeviceError, LinkLostError
from edge_sdk.schema.messages import Hello, Message, Power, Progress, Result, Samples, Window
from edge_sdk.schema.request import PartRequest, RunRequest

if TYPE_CHECKING:
    from edge_sdk.bundle import Bundle
    from edge_sdk.devices.base import Device
    from edge_sdk.schema.target import RuntimeRule, Target

_STAGES = {
    "build": "building the engine",
    "cooling": "waiting until it is cool",
    "idle": "sampling idle power",
    "load": "loading the model",
    "first": "first inference",
    "warmup": "warming up",
    "timed": "measuring",
    "sustain": "running on, to see how it holds up",
    "samples": "running the samples",
}
_TRIES = 3
"""How often a run is begun before a link that drops is an error."""


@dataclass(frozen=True)
class Run:
    """One runner's answer.

    Attributes:
        hello: Which runtime answered.
        result: Its figures.
        start_ms: When each timed iteration began, counted from the first.
        samples_ms: How long each took, in the order of measurement.
        parts_ms: The same for each part, where there are several.
        power: Readings of a power sensor, by phase, in the order of reading.
        windows: Stretches of the sustained part.
    """

    hello: Hello
    result: Result
    start_ms: tuple[float, ...]
    samples_ms: tuple[float, ...]
    parts_ms: dict[str, tuple[float, ...]]
    power: tuple[Power, ...] = ()
    windows: tuple[Window, ...] = ()

    def raw(self) -> dict[str, Any]:
        """The raw samples as they are kept beside the report."""
        parts = {name: list(samples) for name, samples in self.parts_ms.items()}
        samples = {"unit": "ms", "start": list(self.start_ms), "latency": list(self.samples_ms), "parts": parts}
        return {"complete": True, **samples, "power": _power(self.power)}


def rule_of(bundle: Bundle, target: Target) -> RuntimeRule | None:
    """The target's rule for the runtime and delegate of a bundle, None where it has none."""
    runtime = bundle.manifest.runtime
    rules = (rule for rule in target.runtimes if (rule.name, rule.delegate) == (runtime.name, runtime.delegate))
    return next(rules, None)


def make_request(bundle: Bundle, folder: str, target: Target | None, threads: int | None) -> RunRequest:
    """A request for a bundle that lies at ``folder`` on the device; it times nothing yet and wants no outputs.

    Threads are those asked for, else the target's for this runtime, else the runtime's own choice.
    """
    manifest = bundle.manifest
    rule = rule_of(bundle, target) if target else None
    return RunRequest(
        bundle=folder,
        parts=[
            PartRequest(
                name=part.name,
                program=part.program,
                entry=part.entry,
                inputs=[spec.name for spec in part.inputs],
                outputs=[spec.name for spec in part.outputs],
            )
            for part in manifest.parts
        ],
        reference=manifest.reference,
        threads=threads or (rule.threads if rule else None),
        affinity=rule.cpus if rule else None,
        options=manifest.runtime.options,
        timing=None,
    )


def run_once(bundle: Bundle, device: Device, request: RunRequest, say: Callable[[str], None]) -> Run:
    """Runs one request on a device that the caller holds; where the link drops, runs it again.

    Raises:
        DeviceError: The runner failed or answered wrongly; it carries the samples that had come.
        MissingDependencyError: The runtime is not installed on the device.
    """
    attempt, kept = 1, None
    while True:
        came: list[Message] = []
        try:
            return _answer(bundle, device, request, say, came)
        except LinkLostError as error:
            error.samples = kept = _incomplete(came) or kept
            if attempt == _TRIES or error.is_final:
                raise
            attempt += 1
            say(f"the link to {device.uri} dropped; running again")
        except DeviceError as error:
            error.samples = _incomplete(came) or kept
            raise


def _answer(
    bundle: Bundle, device: Device, request: RunRequest, say: Callable[[str], None], came: list[Message]
) -> Run:
    """One run; every message but signs of life is put into ``came`` as it comes."""
    stage = None
    with closing(device.run(bundle.manifest.runtime.name, request)) as answer:
        for message in answer:
            if not isinstance(message, Progress):
                came.append(message)
            elif message.stage != stage:
                stage = message.stage
                if stage in _STAGES:
                    say(f"{_STAGES[stage]} on {device.uri}")
    hello, *between, result = came
    batches = [message for message in between if isinstance(message, Samples)]
    run = _checked(hello, batches, result, request, device.uri)  # type: ignore[arg-type]
    power = tuple(message for message in between if isinstance(message, Power))
    windows = tuple(message for message in between if isinstance(message, Window))
    return replace(run, power=power, windows=windows)


def _incomplete(came: list[Message]) -> dict[str, Any] | None:
    """The raw samples of a run that broke off."""
    batches = [message for message in came if isinstance(message, Samples)]
    if not batches:
        return None
    start = list(_milliseconds(value for batch in batches for value in batch.start_ns))
    latency = list(_milliseconds(value for batch in batches for value in batch.ns))
    power = tuple(message for message in came if isinstance(message, Power))
    return {"complete": False, "unit": "ms", "start": start, "latency": latency, "parts": {}, "power": _power(power)}


def _power(messages: tuple[Power, ...]) -> list[dict[str, Any]]:
    return [message.model_dump(exclude={"type"}) for message in messages]


def _checked(hello: Hello, batches: list[Samples], result: Result, request: RunRequest, uri: str) -> Run:
    """The answer as one value, where its samples are as many as it says and were asked for."""
    names = [part.name for part in request.parts] if len(request.parts) > 1 else []
    start_ms = _milliseconds(value for batch in batches for value in batch.start_ns)
    samples_ms = _milliseconds(value for batch in batches for value in batch.ns)
    parts_ms = {name: _milliseconds(v for batch in batches for v in batch.parts.get(name, [])) for name in names}
    if (result.latency is None) != (request.timing is None):
        raise DeviceError(f"device '{uri}': the runner answered another request than the one it was given.")
    counted = result.latency.samples if result.latency else 0
    sent = [len(start_ms), len(samples_ms), *map(len, parts_ms.values())]
    if set(sent) != {counted}:
        raise DeviceError(
            f"device '{uri}': the runner counts {counted} samples but sent {sent}; its figures are not used."
        )
    return Run(hello, result, start_ms, samples_ms, parts_ms if result.latency else {})


def _milliseconds(values: Iterable[int]) -> tuple[float, ...]:
    return tuple(value / 1e6 for value in values)
