"""Puts a measurement together with its bundle and target to a `Report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edge_sdk.errors import MissingDependencyError
from edge_sdk.profiling._run import rule_of
from edge_sdk.profiling.roofline import bound, roofline
from edge_sdk.schema.manifest import BUILT_THERE
from edge_sdk.schema.report import (
    Beside,
    Conditions,
    Energy,
    Prediction,
    Report,
    ReportBundle,
    ReportDevice,
    ReportPartition,
    ReportQuantization,
    ReportRuntime,
    Sustained,
    Unavailable,
)

if TYPE_CHECKING:
    from edge_sdk.bundle import Bundle
    from edge_sdk.profiling.measure import Measurement
    from edge_sdk.schema._base import Precision
    from edge_sdk.schema.manifest import Selection
    from edge_sdk.schema.target import Target


def build_report(
    bundle: Bundle,
    measurement: Measurement,
    target: Target | None = None,
    *,
    selection: Selection | None = None,
    accuracy: Mapping[str, float] | None = None,
    predictions: Sequence[Prediction] | None = None,
    beside: Sequence[Beside] | None = None,
) -> Report:
    """The report of a timed measurement.

    Args:
        bundle: What ran.
        measurement: What `measure` gave, with timing.
        target: Gives the peaks for the roofline; None: the profile is not at hand.
        selection: How the runtime was chosen, where there was a choice.
        accuracy: Metrics on the model's evaluation data.
        predictions: What the model says of the user's inputs.
        beside: How the bundles for the target beside compare on the same device.

    Raises:
        ValueError: The measurement was made without timing.
    """
    manifest, result = bundle.manifest, measurement.run.result
    latency, memory = result.latency, result.memory
    if latency is None or memory is None:
        raise ValueError("a report needs a measurement with timing")
    misfit = _misfit(target, measurement.device) if target else None
    return Report(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=manifest.model,
        target=manifest.target,
        runtime=ReportRuntime(
            name=manifest.runtime.name,
            version=measurement.run.hello.version,
            delegate=manifest.runtime.delegate,
            selection=selection,
        ),
        pruning=manifest.pruning,
        quantization=ReportQuantization(method=manifest.quantization.method, skipped=manifest.quantization.skipped),
        device=measurement.device,
        bundle=ReportBundle(path=str(bundle.path), sha256=bundle.manifest_sha256, size_bytes=manifest.size_bytes),
        latency=latency,
        throughput_per_s=1e3 / latency.mean,
        memory=memory,
        gpu=result.gpu,
        engine=result.engine,
        energy=_energy(measurement, target),
        sustained=_sustained(measurement),
        numerics=measurement.numerics,
        accuracy=dict(accuracy) if accuracy is not None else None,
        conditions=_conditions(bundle, measurement, misfit),
        partition=ReportPartition(
            delegated=manifest.partition.delegated,
            pieces=manifest.partition.pieces,
            fallback=manifest.partition.fallback,
            rewrites=manifest.partition.rewrites,
            warnings=manifest.partition.warnings,
        ),
        roofline=roofline(manifest.cost, _bound(bundle, target, misfit), latency.p50),
        predictions=list(predictions) if predictions is not None else None,
        beside=list(beside) if beside is not None else None,
    )


def _energy(measurement: Measurement, target: Target | None) -> Energy | Unavailable:
    run = measurement.run
    if run.result.power is None:
        if target is None:
            return Unavailable(unavailable="the target's profile is not at hand, so that no sensor is known")
        if not target.power.sensors:
            return Unavailable(unavailable=f"target '{target.name}' names no power sensor")
        return Unavailable(unavailable="the runner did not sample power, or was not asked to")
    from edge_sdk.profiling.energy import energy

    battery = target.power.battery_mwh if target else None
    return energy(
        run.power,
        run.result.power,
        run.start_ms,
        run.samples_ms,
        charging=run.result.conditions.charging,
        battery_mwh=battery.value if battery else None,
    )


def _sustained(measurement: Measurement) -> Sustained | None:
    if not measurement.run.windows:
        return None
    from edge_sdk.profiling.sustained import sustained

    return sustained(measurement.run.windows, measurement.run.power)


def _conditions(bundle: Bundle, measurement: Measurement, misfit: str | None) -> Conditions:
    """The runner's conditions, with what only the host can see."""
    conditions = measurement.run.result.conditions
    compiled, ran = bundle.manifest.runtime, measurement.run.hello
    warnings = list(conditions.warnings)
    if misfit:
        warnings.append(f"{misfit}; the figures are this device's, not the target's")
    if compiled.version not in (ran.version, BUILT_THERE):
        warnings.append(f"compiled with {compiled.name} {compiled.version} but run with {ran.version}")
    return conditions.model_copy(update={"warnings": warnings})


def _misfit(target: Target, device: ReportDevice) -> str | None:
    """Why the device is not the target, None where it may be."""
    if device.abi not in target.abi:
        return f"the device's ABI is {device.abi}, that of target '{target.name}' {' or '.join(target.abi)}"
    models = target.device_models
    if models and not any(model.lower() in device.model.lower() for model in models):
        return f"the device calls itself '{device.model}', target '{target.name}' is {' or '.join(models)}"
    return None


def _bound(bundle: Bundle, target: Target | None, misfit: str | None) -> float | Unavailable:
    if target is None:
        return Unavailable(unavailable=f"the profile of target '{bundle.manifest.target}' is not at hand")
    if misfit:
        return Unavailable(unavailable=misfit)
    rule = rule_of(bundle, target)
    if rule is None:
        return Unavailable(unavailable=f"target '{target.name}' has no rule for {bundle.manifest.runtime.name}")
    method = bundle.manifest.quantization.method
    precision = _precision(method)
    if precision is None:
        return Unavailable(unavailable=f"the precision of quantizer '{method}' is not known")
    return bound(bundle.manifest.cost, target, target.unit(rule.unit), precision)


def _precision(method: str) -> Precision | None:
    """What a quantizer computes in, None for one that is not installed here."""
    from edge_sdk.quantization import QUANTIZERS

    if method not in QUANTIZERS:
        return None
    try:
        return QUANTIZERS.load(method).precision
    except MissingDependencyError:
        return None
