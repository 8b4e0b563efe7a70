"""Runs a bundle on a device, times it there and checks what comes back."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import DeviceError
from edge_sdk.profiling._run import Run, make_request, run_once
from edge_sdk.schema.messages import NO_OUTPUTS
from edge_sdk.schema.report import Numerics, ReportDevice, Unavailable
from edge_sdk.schema.request import Gate, PowerRequest, Sustain, Timing

if TYPE_CHECKING:
    import numpy as np

    from edge_sdk.bundle import Bundle
    from edge_sdk.devices.base import Device
    from edge_sdk.models.base import Sample
    from edge_sdk.schema.target import Target


_RATE_HZ = 20.0
_SLOW_GAUGES = {"battery", "power_supply"}
_SENSOR_TIME_S = 3.0
_GAUGE_TIME_S = 30.0
"""Fuel gauges of batteries renew their figure about once a second."""


@dataclass(frozen=True)
class Measurement:
    """What a device did with a bundle.

    Attributes:
        run: The runner's answer.
        device: What the device says of itself.
        numerics: Distance of its outputs from the bundle's reference, or why there are none.
        outputs: Outputs of the inputs that were given, in their order.
    """

    run: Run
    device: ReportDevice
    numerics: Numerics | Unavailable
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
    energy: bool = True,
    sustain_s: float | None = None,
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
        energy: Whether power is sampled, where the target names a sensor.
        sustain_s: How long to run on afterwards, to see how the device holds up; None: not at all.
        progress: Called with a line as each stage starts.

    Raises:
        DeviceError: The device is in use, or its runner failed or answered wrongly.
        MissingDependencyError: The runtime is not installed on the device.
        UnsupportedError: The inputs differ in their shapes.
        StorageError: The disk is full.
    """
    from edge_sdk.profiling._samples import of_inputs, read_outputs, write_inputs

    say = progress or (lambda _: None)
    parts = bundle.manifest.parts
    with device.lock(f"edge-sdk, bundle '{bundle.manifest.name}'"), tempfile.TemporaryDirectory() as folder:
        given = None
        if inputs:
            write_inputs(Path(folder) / "inputs.npz", parts, inputs)
            given = device.push(Path(folder) / "inputs.npz")
        wanted: dict[str, Any] = {
            "inputs": given,
            "outputs": device.scratch("outputs.npz"),
            "timing": (timing or Timing()) if timed else None,
        }
        if timed:
            wanted |= _conditions(target, timing, energy, sustain_s)
        say(f"bringing the bundle to {device.uri}")
        request = make_request(bundle, device.push(bundle.path), target, threads).model_copy(update=wanted)
        run = run_once(bundle, device, request, say)
        about = device.describe()
        if run.result.outputs is None:
            reason = run.result.facts.get(NO_OUTPUTS, "the runner gives no outputs")
            return Measurement(run, about, Unavailable(unavailable=reason))
        say("checking the outputs")
        device.pull(wanted["outputs"], Path(folder) / "outputs.npz")
        try:
            arrays = read_outputs(Path(folder) / "outputs.npz")
            numerics = _numerics(bundle, arrays)
            outputs = of_inputs(arrays, parts, len(inputs))
        except DeviceError as error:
            raise DeviceError(f"device '{device.uri}', bundle '{bundle.manifest.name}': {error}") from error
    return Measurement(run, about, numerics, outputs)


def _conditions(target: Target | None, timing: Timing | None, energy: bool, sustain_s: float | None) -> dict[str, Any]:
    """What the target says of heat and power, for the request; its sensors decide how long a run has to be."""
    below = target.thermal.start_below_c.value if target else None
    sensors = target.power.sensors if target and energy else []
    if timing is None:
        timing = Timing()
        if sensors:
            least = _GAUGE_TIME_S if set(sensors) & _SLOW_GAUGES else _SENSOR_TIME_S
            timing = timing.model_copy(update={"min_time_s": least, "max_time_s": max(timing.max_time_s, least)})
    return {
        "timing": timing,
        "gate": Gate(below_c=below) if below is not None else None,
        "power": PowerRequest(sensors=sensors, rate_hz=_RATE_HZ) if sensors else None,
        "sustain": Sustain(time_s=sustain_s) if sustain_s is not None else None,
    }


def _numerics(bundle: Bundle, arrays: Mapping[str, np.ndarray]) -> Numerics:
    from edge_sdk.profiling._samples import of_reference
    from edge_sdk.profiling.numerics import compare

    return compare(bundle.manifest.parts, bundle.reference(), of_reference(arrays))
