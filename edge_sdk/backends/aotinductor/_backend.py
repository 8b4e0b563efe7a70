"""Lowers PyTorch graphs to AOTInductor packages, one for each part, for an NVIDIA GPU or the processor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from edge_sdk.backends.base import Backend, Graph

if TYPE_CHECKING:
    from edge_sdk.pipeline import values
    from edge_sdk.pipeline.values import Captured, Lowered, Quantized
    from edge_sdk.quantization.base import Data, Quantizer
    from edge_sdk.schema.manifest import Fallback
    from edge_sdk.schema.target import RuntimeRule, Target


class AotInductorBackend(Backend):
    """AOTInductor; the delegate is the device that a package is compiled for."""

    name: ClassVar[str] = "aotinductor"
    extra: ClassVar[str] = "aotinductor"
    requires: ClassVar[tuple[str, ...]] = ("torch",)
    runner_requires: ClassVar[tuple[str, ...]] = ("torch", "numpy")
    packages: ClassVar[tuple[str, ...]] = ("torch", "torchao", "triton")
    graphs: ClassVar[frozenset[Graph]] = frozenset({"torch"})
    delegates: ClassVar[frozenset[str]] = frozenset({"cuda", "cpu"})
    float_outputs: ClassVar[frozenset[str]] = frozenset({"cuda", "cpu"})
    quantizers: ClassVar[dict[str, Graph]] = {
        "fp32": "torch",
        "fp16": "torch",
        "bf16": "torch",
        "int8-dynamic": "torch",
        "int8-static": "torch",
        "int8-lsq": "torch",
        "int4-weight": "torch",
    }
    refusals: ClassVar[dict[tuple[str, str], str]] = {
        (
            "cuda",
            "int4-weight",
        ): "torchao's product with INT4 weights on GPUs needs the package mslk, which is not part "
        "of Edge SDK; use bf16, fp16 or int8-dynamic",
    }
    rewrites: ClassVar[dict[str, str]] = {
        "drop_identities": "removes dropout, contiguous copies and the like",
        "padding_in_numbers": "writes a convolution's padding 'same' or 'valid' in numbers",
        "fold_batch_norm": "folds batch normalisation into the convolution before it",
        "fold_symmetric_padding": "moves zero padding into the convolution behind it",
        "mean_to_average_pool": "a mean over height and width becomes an average pool, which INT8 takes",
    }

    @classmethod
    def delegate_problem(cls, delegate: str) -> str | None:
        """A C++ compiler; for ``cuda`` a GPU, its driver and PyTorch's build for them."""
        from edge_sdk.backends.aotinductor import _machine

        return _machine.problem(delegate)

    @classmethod
    def facts(cls, delegate: str) -> dict[str, str]:
        """GPU, compute capability and driver, or the processor."""
        from edge_sdk.backends.aotinductor import _machine

        return _machine.facts(delegate)

    def operators(self, captured: Captured) -> Iterator[tuple[str, str, str]]:
        """All operators by PyTorch's names, such as ``conv2d.default``."""
        for graph in captured.graphs:
            assert graph.torch is not None  # it takes no other
            for node in graph.torch.graph.nodes:
                if node.op == "call_function":
                    name = getattr(node.target, "__name__", str(node.target))
                    yield graph.name, ".".join(name.split(".")[-2:]), node.name

    def rewrite(self, captured: Captured, enabled: frozenset[str]) -> Captured:
        """Rewrites the graph into what the compiler does best with."""
        from edge_sdk.backends import _rewrites

        return _rewrites.apply_rewrites(captured, {name: getattr(_rewrites, name) for name in self.rewrites}, enabled)

    def quantize(self, captured: Captured, quantizer: Quantizer, data: Data) -> Quantized | None:
        """Dynamic INT8 in torchao's own form; the other methods' graphs are taken as they are."""
        from edge_sdk.backends.aotinductor import _dynamic

        del data
        return _dynamic.quantize(captured, quantizer) if quantizer.name == "int8-dynamic" else None

    def lower(self, quantized: Quantized, target: Target, rule: RuntimeRule) -> Lowered:
        """One ``.pt2`` package for each part.

        Raises:
            ModelError: AOTInductor refuses the graph.
            UnsupportedError: The rule has an option that the delegate does not have.
            DeviceError: The GPU cannot be used, or its memory is full.
        """
        from edge_sdk.backends.aotinductor import _machine, _package, _partition
        from edge_sdk.pipeline.values import Lowered
        from edge_sdk.quantization.base import STATIC_INT8
        from edge_sdk.schema.manifest import PartSpec, RuntimeRef

        _machine.check_options(rule)
        options = _machine.runner_options(rule)
        is_int8 = quantized.quantization.method in STATIC_INT8
        programs, packages, parts, left = {}, {}, [], []
        for graph in quantized.graphs:
            source = graph
            if is_int8 and not graph.keeps_float:
                graph, kept = self._int8(graph, rule)
                left += kept
            programs[graph.name] = _package.export(graph, rule.delegate)
            packages[graph.name] = _package.compile_part(
                graph.name,
                programs[graph.name],
                rule.delegate,
                max_autotune=bool(rule.options.get("max_autotune", False)),
                tf32=bool(rule.options.get("tf32", False)),
            )
            if rule.delegate == "cpu":
                left += _partition.in_float(source, quantized.quantization.method, packages[graph.name])
            parts.append(
                PartSpec(
                    name=graph.name,
                    program=f"{graph.name}.pt2",
                    entry="model",
                    inputs=list(graph.inputs),
                    outputs=list(graph.outputs),
                )
            )
        return Lowered(
            files={part.program: packages[part.name] for part in parts},
            parts=tuple(parts),
            runtime=RuntimeRef(name=self.name, version=str(options["torch"]), delegate=rule.delegate, options=options),
            quantization=quantized.quantization,
            partition=_partition.report(
                programs, packages, rule.delegate, left, list(quantized.rewrites), _stand_in(target, rule)
            ),
        )

    def _int8(self, graph: values.Graph, rule: RuntimeRule) -> tuple[values.Graph, list[Fallback]]:
        """A static INT8 graph in the form that the device computes in integers, and what it computes in float."""
        import copy
        from dataclasses import replace

        from edge_sdk.backends.aotinductor import _int8, _unsigned

        if rule.delegate == "cpu":
            return replace(graph, torch=_unsigned.with_unsigned_activations(graph.torch)), []
        tune = bool(rule.options.get("max_autotune", False))
        module, left = _int8.lower(replace(graph, torch=copy.deepcopy(graph.torch)), rule.delegate, tune=tune)
        return replace(graph, torch=module), left


def _stand_in(target: Target, rule: RuntimeRule) -> Iterator[str]:
    """A warning where the package is not for what the target is about."""
    if not rule.stands_in:
        return
    chief = next(other for other in target.runtimes if other.name == rule.name and not other.stands_in)
    why = AotInductorBackend.delegate_problem(chief.delegate)
    yield (
        f"compiled for {rule.delegate}, not for {chief.delegate}, which '{target.name}' is about: "
        + (f"{chief.delegate} {why}" if why else "as was asked for")
    )
