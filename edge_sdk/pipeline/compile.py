"""The pipeline: capture, quantize, lower, package; each result kept in the cache by its key."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import edge_sdk
from edge_sdk.errors import ModelError, UnsupportedError
from edge_sdk.pipeline import cache, data, kept, key
from edge_sdk.pipeline.fp32 import Forward, fp32_forward
from edge_sdk.pipeline.plan import Plan, check_data
from edge_sdk.schema.manifest import Cost, Manifest, ModelRef, Quantization, Rewrite

if TYPE_CHECKING:
    from edge_sdk.bundle import Bundle
    from edge_sdk.models.base import Model, Purpose, Sample
    from edge_sdk.pipeline.values import Captured, Lowered, Quantized
    from edge_sdk.pruning import Recipe
    from edge_sdk.quantization.base import Int8Rules, Quantizer
    from edge_sdk.schema.target import Target

logger = logging.getLogger(__name__)

_MAX_REFERENCE = 8


@dataclass(frozen=True)
class Job:
    """What to compile. The graphs and the data are made once, when first needed.

    Attributes:
        target: The profile.
        model: The model.
        quantizer: The quantizer.
        calibration_path: The user's own calibration data, None for the model's.
        max_drop: Largest allowed drop of accuracy, None for no budget.
        rewrites: Whether graph rewrites are on.
        prune: How the model is pruned before it is quantized; None: not at all.
        use_cache: Whether a bundle of the same key may be taken from the cache.
        progress: Called with a line as each stage starts.
        seconds: How long each stage took so far.
        quantized: What was quantized so far, by the rewrites before it and the rules of the runtime.
    """

    target: Target
    model: Model
    quantizer: Quantizer
    calibration_path: Path | None = None
    max_drop: float | None = None
    rewrites: bool = True
    prune: Recipe | None = None
    use_cache: bool = True
    progress: Callable[[str], None] = lambda _: None
    seconds: dict[str, float] = field(default_factory=dict, repr=False)
    quantized: dict[tuple[tuple[Rewrite, ...], Int8Rules], Quantized] = field(default_factory=dict, repr=False)

    @contextmanager
    def stage(self, name: str, said: str) -> Iterator[None]:
        """Says that a stage starts, and keeps how long it took."""
        self.progress(said)
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + perf_counter() - start, 3)

    @cached_property
    def captured(self) -> Captured:
        """The model's graphs."""
        from edge_sdk.pipeline.capture import capture

        pruned = f", pruned by {self.prune}" if self.prune else ""
        with self.stage("capture", f"capturing {self.model.name}{pruned}"):
            return capture(self.model, self.prune)

    @property
    def is_captured(self) -> bool:
        """Whether the graphs were made; what fails then is the runtime's matter and not the model's."""
        return "captured" in self.__dict__

    @cached_property
    def calibration(self) -> Sequence[Sample]:
        """The calibration inputs, none where the quantizer needs none."""
        if not self.quantizer.needs_calibration:
            return ()
        return data.read_calibration(self.model, self.calibration_path)

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """What decides weights, graph and data; for a user's own function that means loading it."""
        if fingerprint := self.model.fingerprint():
            return fingerprint
        purposes: list[Purpose] = ["reference", *(["evaluation"] if self.max_drop is not None else [])]
        used = {purpose: self.model.samples(purpose) for purpose in purposes}
        if self.calibration_path is None:
            used["calibration"] = list(self.calibration)
        samples = {f"samples/{purpose}": key.samples_identity(found) for purpose, found in used.items()}
        return {**key.captured_identity(self.captured), **samples, "labels": str(self.model.labels)}

    @cached_property
    def reference(self) -> bytes:
        """``reference.npz``: a few real inputs with their FP32 outputs."""
        with self.stage("reference", "computing the FP32 reference"):
            return _reference(self.model, self.captured)

    def for_target(self, target: Target) -> Job:
        """The same job for another target; what was made of the model so far is taken over."""
        other = replace(self, target=target, seconds=dict(self.seconds))
        for name in ("captured", "calibration", "identity", "reference"):
            if name in self.__dict__:
                other.__dict__[name] = self.__dict__[name]
        return other

    def key(self, plan: Plan) -> str:
        """The key of the job on one runtime."""
        own = _file_identity(self.calibration_path) if self.calibration_path else ""
        return key.compile_key(
            self.target, self.model, self.identity, self.quantizer, plan, own, self.max_drop, self.rewrites, self.prune
        )


def build(job: Job, plan: Plan) -> Bundle:
    """The bundle of a job on one runtime: from the cache, or compiled now.

    Raises:
        EdgeSdkError: A stage failed; nothing half done is left.
    """
    name = _name(job, plan)
    digest = job.key(plan)
    if job.use_cache and (found := cache.find(digest, name)):
        job.progress(f"found in the cache: {found.manifest.name}")
        return found
    check_data(job.model, job.quantizer, job.calibration, job.max_drop)
    data.check_samples(job.captured, job.calibration, "calibration")
    _check_shapes(job, plan)
    backend = plan.backend
    backend.check_operators(backend.operators(job.captured), job.target, plan.rule)
    enabled = backend.rewrites_for(plan.rule.delegate) if job.rewrites else frozenset()
    with job.stage(f"{backend.name} rewrite", f"rewriting the graph for {backend.name}"):
        rewritten = backend.rewrite(job.captured, enabled)
    with job.stage(f"{backend.name} quantize", f"quantizing to {job.quantizer.name} for {backend.name}"):
        quantized = replace(_quantize(job, plan, rewritten), enabled=enabled)
    with job.stage(f"{backend.name} lower", f"lowering for {backend.name} ({plan.rule.delegate})"):
        lowered = backend.lower(quantized, job.target, plan.rule)
    return _package(job, plan, name, digest, lowered)


def _quantize(job: Job, plan: Plan, captured: Captured) -> Quantized:
    from edge_sdk.pipeline.values import Quantized
    from edge_sdk.quantization.base import Data

    quantizer = job.quantizer
    if quantizer.name == "fp32":
        return Quantized(captured.graphs, Quantization(method=quantizer.name), captured.rewrites)
    quantizable = kept.without(captured, quantizer.name)
    if option := plan.backend.by_option.get((plan.rule.delegate, quantizer.name)):
        if len(quantizable.graphs) < len(captured.graphs):
            raise UnsupportedError(
                f"{plan.rule.delegate} sets {quantizer.name} by its option {option} for all parts, and model "
                f"'{job.model.name}' has parts that stay in FP32. Use fp32 or int8-static."
            )
        options = {**quantizer.options, "graph": "fp32", "by": option}
        return Quantized(captured.graphs, Quantization(method=quantizer.name, options=options), captured.rewrites)
    where = "onnx" if job.model.onnx else plan.backend.quantizers[quantizer.name]
    rules = plan.backend.int8_rules
    if where == "torch":
        if (own := plan.backend.quantize(quantizable, quantizer, Data(job.calibration, rules=rules))) is not None:
            return kept.merged(captured, own)
        # Runtimes whose rewrites came to the same start from the same graph: it is quantized once.
        if (done := job.quantized.get((captured.rewrites, rules))) is not None:
            return done
        budget = None
        if job.max_drop is not None:
            from edge_sdk.pipeline.budget import make_budget

            budget = make_budget(job.model, job.max_drop, _reference_samples(job.model, job.captured))
            budget = kept.with_outputs(budget, captured)
        done = quantizer.apply_torch(quantizable, Data(job.calibration, budget, job.progress, rules))
        done = kept.merged(captured, done)
        job.quantized[captured.rewrites, rules] = done
        return done
    return Quantized(
        graphs=captured.graphs,
        quantization=Quantization(method=quantizer.name, options=quantizer.options, skipped=kept.layers_of(captured)),
        rewrites=captured.rewrites,
        on_onnx=quantizer,
        calibration=job.calibration,
    )


def _package(job: Job, plan: Plan, name: str, digest: str, lowered: Lowered) -> Bundle:
    from edge_sdk.bundle import write_bundle

    reference = job.reference
    job.progress("writing the bundle")
    specs = [spec for graph in job.captured.graphs for spec in (*graph.inputs, *graph.outputs)]
    manifest = Manifest(
        name=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        sdk_version=edge_sdk.__version__,
        key=digest,
        target=job.target.name,
        model=ModelRef(name=job.model.name, variant=job.model.variant),
        runtime=lowered.runtime,
        pruning=job.captured.pruning,
        quantization=lowered.quantization,
        parts=list(lowered.parts),
        partition=lowered.partition,
        cost=Cost(
            macs=job.captured.macs,
            weight_bytes=sum(len(content) for content in lowered.files.values()),
            activation_bytes=sum(_bytes(spec) for spec in specs),
        ),
        versions=key.versions(plan.backend.packages),
        compile_s=dict(job.seconds),
        labels=list(job.model.labels) if job.model.labels else None,
        facts=dict(job.model.facts()),
        layers=list(lowered.layers),
        extras=sorted(lowered.extras),
        files={},
    )
    files = {**lowered.files, **lowered.extras, manifest.reference: reference}
    return write_bundle(cache.slot(digest, name), manifest, files)


def _bytes(spec) -> int:
    import numpy as np

    return int(np.prod([size or 1 for size in spec.shape], dtype=np.int64)) * np.dtype(spec.dtype).itemsize


def _reference_samples(model: Model, captured: Captured) -> list[Sample]:
    """The model's reference inputs; where it has none, the example inputs of its parts."""
    samples = model.samples("reference")[:_MAX_REFERENCE]
    if samples:
        data.check_samples(captured, samples, "reference")
        return samples
    return [
        {
            graph.name: {
                spec.name: tensor.numpy() for spec, tensor in zip(graph.inputs, graph.example_inputs, strict=True)
            }
            for graph in captured.graphs
        }
    ]


def _reference(model: Model, captured: Captured) -> bytes:
    import numpy as np

    samples = _reference_samples(model, captured)
    forward = fp32_forward(model) if model.onnx else _forward(captured)
    arrays: dict[str, list] = {}
    for sample in samples:
        outputs = forward(sample)
        for part, values in sample.items():
            for name, array in values.items():
                arrays.setdefault(f"{part}/inputs/{name}", []).append(array)
            for name, array in outputs[part].items():
                arrays.setdefault(f"{part}/outputs/{name}", []).append(array)
    for name, column in arrays.items():
        if len(shapes := {array.shape for array in column}) > 1:
            raise ModelError(
                f"the reference samples differ in the shape of {name}: {sorted(map(list, shapes))}. "
                "Give samples of one shape from samples('reference'), or a single one."
            )
    buffer = io.BytesIO()
    stacked: dict[str, Any] = {name: np.stack(column) for name, column in arrays.items()}
    np.savez_compressed(buffer, **stacked)
    return buffer.getvalue()


def _forward(captured: Captured) -> Forward:
    """The captured graphs in FP32, as they were before any rewrite."""
    import torch

    from edge_sdk.pipeline.capture import flat_outputs

    def forward(sample: Sample) -> Sample:
        found = {}
        for graph in captured.graphs:
            assert graph.torch is not None
            inputs = [torch.from_numpy(sample[graph.name][spec.name]) for spec in graph.inputs]
            with torch.no_grad():
                outputs = flat_outputs(graph.torch(*inputs))
            found[graph.name] = {spec.name: output.numpy() for spec, output in zip(graph.outputs, outputs, strict=True)}
        return found

    return forward


def _check_shapes(job: Job, plan: Plan) -> None:
    """Refuses sizes that vary where the target takes fixed ones only."""
    if plan.rule.shapes == "dynamic":
        return
    where = f"target '{job.target.name}' takes fixed shapes only on {plan.rule.name} ({plan.rule.delegate})"
    for graph in job.captured.graphs:
        for spec in graph.inputs:
            if None not in spec.shape:
                continue
            fixed = f"Fix it: --set shape.{spec.name}={','.join(str(size or 1) for size in spec.shape)}."
            raise UnsupportedError(
                f"input '{spec.name}' of model '{job.model.name}' has sizes that vary, {data.shown(spec.shape)}, and "
                f"{where}. {fixed if job.model.onnx else 'Leave them out of Part.dynamic.'}"
            )
        for spec in graph.outputs:
            if None in spec.shape:
                raise UnsupportedError(
                    f"output '{spec.name}' of model '{job.model.name}' has a size that only its data decides, "
                    f"{data.shown(spec.shape)}, and {where}."
                )


def _name(job: Job, plan: Plan) -> str:
    model = job.model
    named = f"{model.name}_{model.variant}" if model.variant else model.name
    pruned = f"-{job.prune}".replace("+", "_") if job.prune else ""
    return f"{named}{pruned}-{job.target.name}-{job.quantizer.name}-{plan.rule.name}"


def _file_identity(path: Path) -> str:
    """A hash of a file's content, or of all files of a folder."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(item for item in path.glob("*") if item.is_file()):
        digest.update(f"{file.name}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
