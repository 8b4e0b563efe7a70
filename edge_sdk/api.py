"""The public calls that compile and measure: compile, profile, monitor, deploy."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.errors import DeviceError, ModelError, TargetError, UnsupportedError

if TYPE_CHECKING:
    from edge_sdk.bundle import Bundle
    from edge_sdk.devices.base import Device
    from edge_sdk.models.base import Model, Sample
    from edge_sdk.pipeline.compile import Job
    from edge_sdk.pipeline.plan import Plan
    from edge_sdk.profiling.live import View
    from edge_sdk.schema.report import Beside, Prediction, Report
    from edge_sdk.schema.request import Timing
    from edge_sdk.schema.target import Target

Progress = Callable[[str], None]
"""Called with one line as each stage starts."""

REPORT = "report.json"
SAMPLES = "samples.json"
PLOT = "sustained.svg"
_QUANTIZER_PREFIX = "quantize."


def compile(
    model: str | Path | Model,
    target: str | Path | Target,
    *,
    quantize: str = "fp32",
    runtime: str = "auto",
    settings: Mapping[str, str] | None = None,
    out: Path | str | None = None,
    program: bool = False,
    calibration: Path | str | None = None,
    max_drop: float | None = None,
    rewrites: bool = True,
    prune: str | None = None,
    device: str | None = None,
    runner: str | None = None,
    threads: int | None = None,
    use_cache: bool = True,
    progress: Progress | None = None,
) -> Bundle:
    """Compiles a model for a target.

    Args:
        model: A plugin's name, ``path/to/file.py:function``, a ``.onnx`` or ``.pt2`` file, or a `Model`.
        target: A profile's name, the path of its YAML file, or a `Target`.
        quantize: A quantizer's name.
        runtime: A runtime that the target names, or ``auto``: all that it names are compiled for, and
            the fastest on the device is taken.
        settings: The model's settings by name; those of the quantizer begin with ``quantize.``.
        out: The folder to put ``NAME.edge`` in; None leaves it in the cache.
        program: Whether the program alone is put there as well, by the name that the model's apps know.
        calibration: A ``.npz`` file or a folder of files to calibrate on, instead of the model's own data.
        max_drop: Largest allowed drop of accuracy, such as 0.01. The layers that cost most are left in
            FP32 until it is met.
        rewrites: Whether the graph may be rewritten into what the delegate takes.
        prune: A recipe that every part is pruned by first, such as ``struct30+mag10``; see `edge_sdk.pruning`. What
            that costs in accuracy is only won back by training.
        device: Where ``auto`` measures; None: here, if the target runs here.
        runner: ``PATH[:KIND]`` of a native runner of one's own for that device.
        threads: Threads to measure with, None for the target's.
        use_cache: Whether an earlier result of the same compilation may be taken.
        progress: Called with a line as each stage starts.

    Returns:
        The bundle, whole and checked. Where the target names another beside itself (the CPU of a phone's
        NPU), the bundles for that are put beside it.

    Raises:
        EdgeSdkError: See `edge_sdk.errors`; nothing half done is left behind.
    """
    _check_program(program, out)
    job, plans, refused = _plan(
        model, target, quantize, runtime, settings, calibration, max_drop, rewrites, prune, use_cache, progress
    )
    from edge_sdk.devices import open_device

    why = _not_here(job.target, plans) if device is None else None
    with nullcontext() if why else open_device(device or "local", runner) as place:
        bundle = _place(_compile(job, plans, refused, runtime, place, threads, why), out)
    _put_program(program, job.model, bundle, out)
    return replace(bundle, beside=tuple(_beside(job, plans, bundle, out)))


def profile(
    bundle: Bundle | Path | str,
    *,
    target: str | Path | Target | None = None,
    device: str = "local",
    runner: str | None = None,
    timing: Timing | None = None,
    threads: int | None = None,
    energy: bool = True,
    sustain_s: float | None = None,
    out: Path | str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Runs a bundle on a device: latency, memory, energy, and its outputs against the reference.

    Args:
        bundle: A bundle, or the path of one.
        target: The profile for threads and peaks; None: the one that the bundle was compiled for.
        device: Where: ``local``, ``ssh://[user@]host[:port]``, ``adb://[serial]``.
        runner: ``PATH[:KIND]`` of a native runner of one's own, for a device behind SSH or ADB.
        timing: When to start and stop counting.
        threads: Goes before the target's figure.
        energy: Whether power is sampled, where the target names a sensor.
        sustain_s: How long to run on afterwards, to see how the device holds up.
        out: The folder for ``report.json`` and ``samples.json``; None writes neither. The latter is also
            written where the device fails in the middle, with what had come by then.
        progress: Called with a line as each stage starts.

    Raises:
        BundleError: The bundle is damaged.
        DeviceError: The device or the runner failed.
    """
    from edge_sdk.bundle import Bundle
    from edge_sdk.devices import open_device
    from edge_sdk.profiling.measure import measure
    from edge_sdk.profiling.report import build_report

    _check_plots(sustain_s, out)
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    profile_target = _target_of(opened, target)
    with _keeping(out), open_device(device, runner) as place:
        found = measure(
            opened,
            place,
            profile_target,
            timing=timing,
            threads=threads,
            energy=energy,
            sustain_s=sustain_s,
            progress=progress,
        )
    report = build_report(opened, found, profile_target, selection=opened.selection)
    _write(report, found.run.raw(), out)
    return report


def monitor(
    bundle: Bundle | Path | str | None = None,
    *,
    device: str = "local",
    period_s: float = 1.0,
    count: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Generator[View, None, None]:
    """Yields what a device is doing, once a period, and how fast a bundle runs there meanwhile.

    Args:
        bundle: What to run there on and on, with the device locked; None: the device is only watched.
        device: Where: ``local``, ``ssh://[user@]host[:port]``, ``adb://[serial]``.
        period_s: Seconds between two views.
        count: How many; 0 goes on until the generator is closed.
        threads: Goes before the target's figure.
        progress: Called with a line as each stage starts.

    Raises:
        BundleError: The bundle is damaged.
        DeviceError: The device or the runner failed.
    """
    from edge_sdk.bundle import Bundle
    from edge_sdk.devices import open_device
    from edge_sdk.profiling.live import watch

    opened = Bundle.open(bundle) if isinstance(bundle, (Path, str)) else bundle
    target = _target_of(opened, None) if opened is not None else None
    with open_device(device) as place:
        yield from watch(place, opened, target, period_s=period_s, count=count, threads=threads, progress=progress)


def deploy(
    model: str | Path | Model,
    target: str | Path | Target,
    *,
    inputs: Path | str | None = None,
    quantize: str = "fp32",
    runtime: str = "auto",
    settings: Mapping[str, str] | None = None,
    out: Path | str | None = None,
    program: bool = False,
    calibration: Path | str | None = None,
    max_drop: float | None = None,
    rewrites: bool = True,
    prune: str | None = None,
    device: str | None = None,
    runner: str | None = None,
    timing: Timing | None = None,
    threads: int | None = None,
    energy: bool = True,
    sustain_s: float | None = None,
    use_cache: bool = True,
    progress: Progress | None = None,
) -> Report:
    """Compiles a model, runs it on a device, and checks it there: `compile` and `profile` in one.

    Args:
        model: See `compile`.
        target: See `compile`.
        inputs: A photo or a folder of photos to tag, in FP32 here and by the bundle on the device.
        quantize: See `compile`.
        runtime: See `compile`.
        settings: See `compile`.
        out: The folder for the bundle, ``report.json`` and ``samples.json``; None leaves the bundle in
            the cache and writes no report.
        program: See `compile`.
        calibration: See `compile`.
        max_drop: See `compile`.
        rewrites: See `compile`.
        prune: See `compile`. The accuracy is then beside that of the whole model.
        device: Where to run; None: here.
        runner: See `profile`.
        timing: When to start and stop counting.
        threads: Goes before the target's figure.
        energy: See `profile`.
        sustain_s: See `profile`.
        use_cache: See `compile`.
        progress: Called with a line as each stage starts.

    Returns:
        The report, with the tags of ``inputs`` and the accuracy where the model has evaluation data.

    Raises:
        EdgeSdkError: See `edge_sdk.errors`.
    """
    from edge_sdk.devices import open_device
    from edge_sdk.pipeline.data import input_files
    from edge_sdk.pipeline.fp32 import fp32_outputs
    from edge_sdk.profiling.measure import measure
    from edge_sdk.profiling.report import build_report

    _check_plots(sustain_s, out)
    _check_program(program, out)
    job, plans, refused = _plan(
        model, target, quantize, runtime, settings, calibration, max_drop, rewrites, prune, use_cache, progress
    )
    files = input_files(Path(inputs)) if inputs is not None else []
    photos = [job.model.preprocess(file) for file in files]
    with _keeping(out), open_device(device or "local", runner) as place:
        bundle = _place(_compile(job, plans, refused, runtime, place, threads), out)
        _put_program(program, job.model, bundle, out)
        beside = _beside(job, plans, bundle, out)
        evaluation = job.model.samples("evaluation")
        exact = [*fp32_outputs(job, photos), *fp32_outputs(job, evaluation)]
        found = measure(
            bundle,
            place,
            job.target,
            timing=timing,
            threads=threads,
            energy=energy,
            sustain_s=sustain_s,
            inputs=[*photos, *evaluation],
            progress=job.progress,
        )
        compared = _compare(job, place, bundle, beside, runner, threads)
    count = len(photos)
    report = build_report(
        bundle,
        found,
        job.target,
        selection=bundle.selection,
        accuracy=job.model.score(found.outputs[count:], exact[count:]) if evaluation and found.outputs else None,
        predictions=_predictions(job.model, files, exact[:count], found.outputs[:count])
        if files and found.outputs
        else None,
        beside=compared,
    )
    if max_drop is not None and evaluation:
        report = _warned(report, "the accuracy is that of the inputs which --max-drop was tuned on, not of others")
    _write(report, found.run.raw(), out)
    return report


def _plan(
    model: str | Path | Model,
    target: str | Path | Target,
    quantize: str,
    runtime: str,
    settings: Mapping[str, str] | None,
    calibration: Path | str | None,
    max_drop: float | None,
    rewrites: bool,
    prune: str | None,
    use_cache: bool,
    progress: Progress | None,
) -> tuple[Job, list[Plan], dict[str, str]]:
    """Everything that can be refused without work."""
    from edge_sdk.models import load_model
    from edge_sdk.pipeline import pruned
    from edge_sdk.pipeline.compile import Job
    from edge_sdk.pipeline.plan import plans
    from edge_sdk.pruning import Recipe
    from edge_sdk.quantization.base import make_quantizer
    from edge_sdk.schema import load_target
    from edge_sdk.schema.target import Target

    settings = settings or {}
    own = {key: value for key, value in settings.items() if not key.startswith(_QUANTIZER_PREFIX)}
    theirs = {key.removeprefix(_QUANTIZER_PREFIX): value for key, value in settings.items() if key not in own}
    profile_target = target if isinstance(target, Target) else load_target(target)
    quantizer = make_quantizer(quantize, theirs)
    quantizer.check()
    recipe = Recipe.parse(prune) if prune is not None else None
    loaded = load_model(model, own)
    if recipe is not None:
        pruned.check(loaded, recipe, quantizer)
    if calibration is not None and not quantizer.needs_calibration:
        raise UnsupportedError(f"quantizer '{quantize}' takes no calibration inputs; leave --calibration out.")
    found, refused = plans(profile_target, loaded, quantizer, runtime)
    job = Job(
        target=profile_target,
        model=loaded,
        quantizer=quantizer,
        calibration_path=Path(calibration) if calibration is not None else None,
        max_drop=max_drop,
        rewrites=rewrites,
        prune=recipe,
        use_cache=use_cache,
        progress=progress or (lambda _: None),
    )
    return job, found, refused


def _compile(
    job: Job,
    plans: Sequence[Plan],
    refused: Mapping[str, str],
    runtime: str,
    device: Device | None,
    threads: int | None,
    why_not_here: str | None = None,
) -> Bundle:
    from edge_sdk.pipeline import select

    bundles, refused = _build_all(job, plans, refused)
    if len(bundles) == 1:
        return select.only(bundles[0], runtime != "auto", refused)
    if device is None:
        return select.by_order(bundles, f"it cannot be measured here: {why_not_here}")
    return select.by_measurement(bundles, device, job.target, threads, job.use_cache, job.progress)


def _check_program(wanted: bool, out: Path | str | None) -> None:
    if wanted and out is None:
        raise UnsupportedError("--program needs --out DIR: the folder to put the program in.")


def _put_program(wanted: bool, model: Model, bundle: Bundle, out: Path | str | None) -> None:
    """Puts the program beside the bundle, by the name that the model has for it."""
    if not wanted or out is None:
        return
    from edge_sdk._files import write_atomic

    manifest = bundle.manifest
    names = {part.program for part in manifest.parts}
    for name in sorted(names):
        own = model.program_name(manifest.quantization.method, manifest.runtime.delegate, name)
        own = own if own and len(names) == 1 else f"{manifest.name}-{name}".replace("/", "-")
        write_atomic(Path(out) / own, (bundle.path / name).read_bytes())


def _beside(job: Job, plans: Sequence[Plan], bundle: Bundle, out: Path | str | None) -> list[Bundle]:
    """The bundles for the target that this one names beside itself, put where the bundle itself is."""
    if job.target.beside is None:
        return []
    from edge_sdk.pipeline.beside import companions

    chosen = (bundle.manifest.runtime.name, bundle.manifest.runtime.delegate)
    plan = next(plan for plan in plans if (plan.rule.name, plan.rule.delegate) == chosen)
    try:
        return [_place(one, out) for one in companions(job, plan)]
    except (ModelError, UnsupportedError) as error:
        job.progress(f"nothing is built for {job.target.beside} beside it: {error}")
        return []


def _compare(
    job: Job, device: Device, bundle: Bundle, others: Sequence[Bundle], runner: str | None, threads: int | None
) -> list[Beside] | None:
    """How long the bundles beside one take on the same device, all taking turns; None where there are none."""
    if runner is not None:  # a native runner runs one runtime's programs
        others = [one for one in others if one.manifest.runtime.name == bundle.manifest.runtime.name]
    if not others:
        return None
    from edge_sdk.profiling.interleave import interleave
    from edge_sdk.schema.report import Beside

    found = interleave([bundle, *others], device, job.target, threads=threads, progress=job.progress)
    return [
        Beside(
            target=one.manifest.target,
            runtime=one.manifest.runtime.name,
            delegate=one.manifest.runtime.delegate,
            bundle=str(one.path),
            median_ms=median_ms,
            times_as_long=ratio.value,
            ci95=ratio.ci95,
        )
        for one, median_ms, ratio in zip(others, found.medians_ms[1:], found.ratios[1:], strict=True)
    ]


def _build_all(job: Job, plans: Sequence[Plan], refused: Mapping[str, str]) -> tuple[list[Bundle], dict[str, str]]:
    """A bundle for each plan; a runtime that turns out not to take the model joins the refused if another does."""
    from edge_sdk.pipeline.compile import build

    bundles, refused = [], dict(refused)
    for plan in plans:
        try:
            bundles.append(build(job, plan))
        except (ModelError, UnsupportedError) as error:
            if not job.is_captured or (plan is plans[-1] and not bundles):
                raise
            job.progress(f"{plan.label} is left out: {error}")
            refused[plan.label] = str(error)
    return bundles, refused


def _not_here(target: Target, plans: Sequence[Plan]) -> str | None:
    """Why the plans' programs do not run on this machine, None where they do."""
    from edge_sdk.support import support

    abilities = {(one.runtime, one.delegate): one.run for one in support(target).runtimes}
    for plan in plans:
        ability = abilities[plan.rule.name, plan.rule.delegate]
        if not ability.ok:
            return ability.reason
    return None


def _target_of(bundle: Bundle, target: str | Path | Target | None) -> Target | None:
    """The profile to read the device by; None where the bundle's own is not known here."""
    from edge_sdk.schema import load_target
    from edge_sdk.schema.target import Target

    if isinstance(target, Target):
        return target
    if target is not None:
        return load_target(target)
    try:
        return load_target(bundle.manifest.target)
    except TargetError:
        return None


def _place(bundle: Bundle, out: Path | str | None) -> Bundle:
    from edge_sdk.pipeline.cache import place

    return bundle if out is None else place(bundle, Path(out))


def _predictions(
    model: Model, files: Sequence[Path], fp32: Sequence[Sample], device: Sequence[Sample]
) -> list[Prediction]:
    from edge_sdk.schema.report import Prediction

    return [
        Prediction(input=file.name, fp32=model.postprocess(exact), device=model.postprocess(found))
        for file, exact, found in zip(files, fp32, device, strict=True)
    ]


def _warned(report: Report, warning: str) -> Report:
    conditions = report.conditions.model_copy(update={"warnings": [*report.conditions.warnings, warning]})
    return report.model_copy(update={"conditions": conditions})


def _check_plots(sustain_s: float | None, out: Path | str | None) -> None:
    """Finds out before the long run whether its picture can be drawn."""
    if sustain_s is not None and out is not None:
        from edge_sdk.reporting.plots import check_plots

        check_plots()


@contextmanager
def _keeping(out: Path | str | None) -> Iterator[None]:
    """Keeps the samples of a run that the device broke off."""
    from edge_sdk._files import write_atomic

    try:
        yield
    except DeviceError as error:
        if out is not None and error.samples:
            path = Path(out) / SAMPLES
            write_atomic(path, json.dumps(error.samples) + "\n")
            error.args = (f"{error}\nWhat was measured until then is kept in {path}.",)
        raise


def _write(report: Report, raw: Mapping[str, object], out: Path | str | None) -> None:
    from edge_sdk._files import write_atomic

    if out is None:
        return
    write_atomic(Path(out) / REPORT, report.model_dump_json(indent=2) + "\n")
    write_atomic(Path(out) / SAMPLES, json.dumps(raw) + "\n")
    if report.sustained is not None:
        from edge_sdk.reporting.plots import sustained_plot

        title = f"{report.model.name} on {report.device.model}, {report.quantization.method}, {report.runtime.name}"
        sustained_plot(report.sustained, Path(out) / PLOT, title)
