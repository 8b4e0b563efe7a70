"""Lowers PyTorch graphs and ONNX files for TensorRT: to an engine, or to the ONNX that the device builds one from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from edge_sdk.backends.base import Backend, Graph
from edge_sdk.quantization.base import Int8Rules

if TYPE_CHECKING:
    from edge_sdk.pipeline.values import Captured, Lowered, Quantized
    from edge_sdk.schema.target import RuntimeRule, Target

_ON_TORCH = ("drop_identities", "padding_in_numbers", "fold_batch_norm", "fold_symmetric_padding")
_NO_LSQ = "LSQ learns steps for activations with a zero point, and TensorRT takes none; use int8-static"


class TensorRtBackend(Backend):
    """TensorRT; the delegate says what computes and where the engine is built.

    ``rtx``: TensorRT for RTX, built here for named compute capabilities. ``gpu``: built on the device by its own
    TensorRT 10 or 11. ``dla``: likewise for a Jetson's DLA, with its GPU for what the DLA does not take.
    """

    name: ClassVar[str] = "tensorrt"
    extra: ClassVar[str] = "tensorrt"
    requires: ClassVar[tuple[str, ...]] = ("torch", "torchao", "onnx", "onnxruntime", "onnxscript")
    runner_requires: ClassVar[tuple[str, ...]] = ("numpy",)
    packages: ClassVar[tuple[str, ...]] = (*requires, "tensorrt_rtx_cu13_bindings", "tensorrt_rtx_cu13_libs")
    graphs: ClassVar[frozenset[Graph]] = frozenset({"torch", "onnx"})
    delegates: ClassVar[frozenset[str]] = frozenset({"gpu", "dla", "rtx"})
    float_outputs: ClassVar[frozenset[str]] = delegates
    int8_rules: ClassVar[Int8Rules] = Int8Rules(symmetric=True, only_inputs=True, half_scales=True)
    quantizers: ClassVar[dict[str, Graph]] = {
        "fp32": "torch",
        "fp16": "torch",
        "bf16": "torch",
        "int8-static": "torch",
        "int8-lsq": "torch",
    }
    refusals: ClassVar[dict[tuple[str, str], str]] = {
        ("gpu", "int8-lsq"): _NO_LSQ,
        ("dla", "int8-lsq"): _NO_LSQ,
        ("rtx", "int8-lsq"): _NO_LSQ,
        ("dla", "fp32"): "the DLA computes in FP16 and INT8 only; use fp16",
        ("dla", "bf16"): "the DLA computes in FP16 and INT8 only; use fp16",
        ("dla", "int8-static"): "the DLA of TensorRT 10 takes no Q/DQ operators; use fp16, or the GPU: "
        "--runtime tensorrt:gpu",
    }
    rewrites: ClassVar[dict[str, str]] = {
        "drop_identities": "removes dropout, contiguous copies and the like",
        "padding_in_numbers": "writes a convolution's padding 'same' or 'valid' in numbers",
        "fold_batch_norm": "folds batch normalisation into the convolution before it",
        "fold_symmetric_padding": "moves zero padding into the convolution behind it",
        "fold_padding": "the same for padding that differs from side to side, which ONNX convolutions take",
    }

    @classmethod
    def delegate_problem(cls, delegate: str) -> str | None:
        """TensorRT for RTX, which builds here; the others' engines are built where they run."""
        from edge_sdk.backends.tensorrt import _here

        return _here.build_problem(delegate)

    @classmethod
    def runner_problem(cls, delegate: str) -> str | None:
        """An NVIDIA GPU, and TensorRT's Python package or ``trtexec``."""
        from edge_sdk.backends.tensorrt import _here

        return _here.run_problem(delegate)

    def operators(self, captured: Captured) -> Iterator[tuple[str, str, str]]:
        """As for ONNX Runtime: what TensorRT parses is ONNX."""
        from edge_sdk.backends.onnxruntime._operators import of_onnx, of_torch

        for graph in captured.graphs:
            yield from of_onnx(graph.name, graph.onnx.graph) if graph.onnx is not None else of_torch(graph)

    def rewrite(self, captured: Captured, enabled: frozenset[str]) -> Captured:
        """Rewrites PyTorch graphs; what needs ONNX's own operators follows in `lower`."""
        from edge_sdk.backends import _rewrites

        if any(graph.onnx is not None for graph in captured.graphs):
            return captured
        return _rewrites.apply_rewrites(captured, {name: getattr(_rewrites, name) for name in _ON_TORCH}, enabled)

    def lower(self, quantized: Quantized, target: Target, rule: RuntimeRule) -> Lowered:
        """One engine for each part where it is built here, else one ``.onnx``.

        Raises:
            ModelError: The exporter refuses the graph, or the builder fails.
            UnsupportedError: The target does not allow an operator, TensorRT refuses one, or a size has no range.
        """
        from edge_sdk.backends.onnxruntime._operators import of_onnx
        from edge_sdk.backends.tensorrt import _build, _models, _options, _partition
        from edge_sdk.pipeline.values import Lowered
        from edge_sdk.schema.manifest import BUILT_THERE, PartSpec, RuntimeRef

        settings = _options.of_rule(rule)
        models, profiles, skipped, rewrites = {}, {}, [], list(quantized.rewrites)
        for graph in quantized.graphs:
            profiles[graph.name] = _options.profiles(graph)
            models[graph.name], applied, left = _models.prepare(graph, quantized, rule)
            self.check_operators(of_onnx(graph.name, models[graph.name].graph), target, rule)
            rewrites += applied
            skipped += left
        engines = {
            name: _build.build(name, model, settings, profiles[name])
            for name, model in (models.items() if rule.delegate == "rtx" else ())
        }
        if engines:
            version = next(iter(engines.values())).version
            programs = {name: (f"{name}.engine", built.engine) for name, built in engines.items()}
        else:
            version = BUILT_THERE
            programs = {name: (f"{name}.onnx", model.SerializeToString()) for name, model in models.items()}
        layers = [layer for built in engines.values() for layer in built.layers]
        method = quantized.quantization
        left = _models.in_their_precision([*method.skipped, *skipped], quantized, rule)
        return Lowered(
            files=dict(programs.values()),
            parts=tuple(
                PartSpec(
                    name=graph.name,
                    program=programs[graph.name][0],
                    entry=graph.name,
                    inputs=list(graph.inputs),
                    outputs=list(graph.outputs),
                )
                for graph in quantized.graphs
            ),
            runtime=RuntimeRef(
                name=self.name,
                version=version,
                delegate=rule.delegate,
                options=_options.of_runner(settings, rule.delegate, version if engines else None, profiles),
            ),
            quantization=method.model_copy(update={"skipped": left}),
            partition=_partition.report(models, layers, quantized, rule.delegate, rewrites),
            extras={f"{name}.layers.txt": built.told.encode() for name, built in engines.items()},
            layers=layers,
        )
