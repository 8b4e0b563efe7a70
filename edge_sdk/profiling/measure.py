"""Runs a bundle on a device, checks what comes back and keeps the raw samples."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import DeviceError, EdgeSdkError, UnsupportedError
from edge_sdk.schema.messages import Hello, Progress, Result, Samples
from edge_sdk.schema.report import Numerics, ReportDevice
from edge_sdk.schema.request import PartRequest, RunRequest, Timing

if TYPE_CHECKING:
    import numpy as np

    from edge_sdk.bundle import Bundle
    from edge_sdk.devices.base import Device
    from edge_sdk.models.base import Sample
    from edge_sdk.schema.target import RuntimeRule, Target

_STAGES = {
    "load": "loading the model",
    "first": "first inference",
    "warmup": "warming up",
    "timed": "measuring",
    "samples": "running the samples",
}
_MAX_OUTPUT_BYTES = 8 << 30


@dataclass(frozen=True)
class Run:
    """One runner's answer.

    Attributes:
        hello: Which runtime answered.
        result: Its figures.
        start_ms: When each timed iteration began, counted from the first.
        samples_ms: How long each took, in the order of measurement.
        parts_ms: The same for each part, where there are several.
    """

    hello: Hello
    result: Result
    start_ms: tuple[float, ...]
    samples_ms: tuple[float, ...]
    parts_ms: dict[str, tuple[float, ...]]

    def raw(self) -> dict[str, Any]:
        """The raw samples as they are kept beside the report."""
        parts = {name: list(samples) for name, samples in self.parts_ms.items()}
        return {"unit": "ms", "start": list(self.start_ms), "latency": list(self.samples_ms), "parts": parts}


@dataclass(frozen=True)
class Measurement:
    """What a device did with a bundle.

    Attributes:
        run: The runner's answer.
        device: What the device says of itself.
        numerics: Distance of its outputs from the bundle's reference.
        outputs: Outputs of the inputs that were given, in their order.
    """

    run: Run
    device: ReportDevice
    numerics: Numerics
    outputs: tuple[Sample, ...] = ()

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """How long each timed iteration took, in the order of measurement."""
        return self.run.samples_ms


def measure(
    bundle: Bundle,
    device: Device,
    target: Target | None = None,
    *,
    timing: Timing | None = None,
    threads: int | None = None,
    inputs: Sequence[Sample] = (),
    timed: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Measurement:
    """Runs a bundle: times it, compares it with its reference, and gets the outputs of further inputs.

    Args:
        bundle: What to run.
        device: Where; it is locked meanwhile.
        target: Gives threads and processors; None leaves them to the runtime.
        timing: When to start and stop counting; None: the defaults.
        threads: Goes before the target's figure.
        inputs: More inputs whose outputs are wanted; all of the same shapes.
        timed: False: only outputs are wanted, nothing is timed.
        progress: Called with a line as each stage starts.

    Raises:
        DeviceError: The device is in use, or its runner failed or answered wrongly.
        MissingDependencyError: The runtime is not installed on the device.
        UnsupportedError: The inputs differ in their shapes.
    """
    say = progress or (lambda _: None)
    with device.lock(f"edge-sdk, bundle '{bundle.manifest.name}'"), tempfile.TemporaryDirectory() as folder:
        say(f"copying the bundle to {device.uri}")
        given = None
        if inputs:
            given = device.push(_write_inputs(Path(folder) / "inputs.npz", bundle, inputs))
        request = _request(bundle, device.push(bundle.path), target, threads).model_copy(
            update={
                "inputs": given,
                "outputs": device.scratch("outputs.npz"),
                "timing": (timing or Timing()) if timed else None,
            }
        )
        run = run_once(bundle, device, request, say)
        say("checking the outputs")
        local = Path(folder) / "outputs.npz"
        device.pull(str(request.outputs), local)
        arrays = _read_outputs(local, device.uri)
        about = device.describe()
    return Measurement(run, about, _numerics(bundle, device, arrays), _split(bundle, arrays, len(inputs)))


def run_once(bundle: Bundle, device: Device, request: RunRequest, say: Callable[[str], None]) -> Run:
    """Runs one request on a device that the caller holds.

    Raises:
        DeviceError: The runner failed or answered wrongly.
        MissingDependencyError: The runtime is not installed on the device.
    """
    hello = result = None
    batches: list[Samples] = []
    stage = None
    with closing(device.run(bundle.manifest.runtime.name, request)) as messages:
        for message in messages:
            if isinstance(message, Hello):
                hello = message
            elif isinstance(message, Samples):
                batches.append(message)
            elif isinstance(message, Result):
                result = message
            elif isinstance(message, Progress) and message.stage != stage:
                stage = message.stage
                if stage in _STAGES:
                    say(f"{_STAGES[stage]} on {device.uri}")
    if hello is None or result is None:
        raise DeviceError(f"device '{device.uri}' ended the run of '{bundle.manifest.name}' without a result.")
    run = Run(
        hello=hello,
        result=result,
        start_ms=_milliseconds(value for batch in batches for value in batch.start_ns),
        samples_ms=_milliseconds(value for batch in batches for value in batch.ns),
        parts_ms={
            part.name: _milliseconds(value for batch in batches for value in batch.parts[part.name])
            for part in bundle.manifest.parts
            if all(part.name in batch.parts for batch in batches) and batches
        },
    )
    counted = result.latency.samples if result.latency else 0
    if not counted == len(run.samples_ms) == len(run.start_ms):
        raise DeviceError(
            f"device '{device.uri}' counts {counted} samples but sent {len(run.samples_ms)}; its figures are not used."
        )
    if (result.latency is None) != (request.timing is None):
        raise DeviceError(f"device '{device.uri}' answered another request than the one it was given.")
    return run


def rule_of(bundle: Bundle, target: Target) -> RuntimeRule | None:
    """The target's rule for the runtime and delegate of a bundle, None where it has none."""
    runtime = bundle.manifest.runtime
    rules = (rule for rule in target.runtimes if (rule.name, rule.delegate) == (runtime.name, runtime.delegate))
    return next(rules, None)


def _request(bundle: Bundle, folder: str, target: Target | None, threads: int | None) -> RunRequest:
    """A request that times nothing yet and wants no outputs."""
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


def _milliseconds(values) -> tuple[float, ...]:
    return tuple(value / 1e6 for value in values)


def _write_inputs(path: Path, bundle: Bundle, inputs: Sequence[Sample]) -> Path:
    import numpy as np

    arrays = {}
    for part in bundle.manifest.parts:
        for spec in part.inputs if part.name in inputs[0] else ():
            column = [np.asarray(sample[part.name][spec.name]) for sample in inputs]
            shapes = {array.shape for array in column}
            if len(shapes) != 1:
                raise UnsupportedError(
                    f"input '{spec.name}' of part '{part.name}' has {len(shapes)} different shapes in "
                    f"{len(inputs)} inputs, such as {sorted(shapes)[:2]}; run them in groups of one shape."
                )
            arrays[f"{part.name}/inputs/{spec.name}"] = np.stack(column)
    np.savez(path, **arrays)
    return path


def _read_outputs(path: Path, uri: str) -> dict[str, np.ndarray]:
    """The arrays of a file that a device wrote, with nothing in it trusted."""
    import numpy as np

    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > _MAX_OUTPUT_BYTES:
            raise ValueError(f"it unpacks to {size} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DeviceError(f"device '{uri}': the outputs cannot be read: {error}") from error


def _numerics(bundle: Bundle, device: Device, arrays: dict[str, np.ndarray]) -> Numerics:
    from edge_sdk.profiling.numerics import compare

    prefix = "reference/"
    found = {key[len(prefix) :]: value for key, value in arrays.items() if key.startswith(prefix)}
    try:
        return compare(bundle.manifest.parts, bundle.reference(), found)
    except DeviceError as error:
        raise DeviceError(f"device '{device.uri}', bundle '{bundle.manifest.name}': {error}") from error


def _split(bundle: Bundle, arrays: dict[str, np.ndarray], count: int) -> tuple[Sample, ...]:
    """The stacked outputs of the inputs as one `Sample` for each."""
    columns: dict[str, dict[str, np.ndarray]] = {}
    for part in bundle.manifest.parts:
        for spec in part.outputs:
            stacked = arrays.get(f"inputs/{part.name}/outputs/{spec.name}")
            if stacked is None:
                continue
            if stacked.ndim == 0 or len(stacked) != count:
                raise DeviceError(f"output '{spec.name}' of '{part.name}' does not hold {count} samples.")
            columns.setdefault(part.name, {})[spec.name] = stacked
    if count and not columns:
        raise DeviceError("the runner wrote no outputs for the inputs.")
    return tuple({part: {name: a[index] for name, a in outs.items()} for part, outs in columns.items()} for index in range(count))
