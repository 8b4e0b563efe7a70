"""From a part's ONNX graph to its program, for each execution provider."""

from __future__ import annotations

from typing import ClassVar

import onnx

from edge_sdk.backends.onnxruntime import _partition, nnapi
from edge_sdk.backends.onnxruntime._optimise import optimise, same_machine
from edge_sdk.backends.onnxruntime._rewrites import difference
from edge_sdk.backends.onnxruntime._shield import shield_float_layers
from edge_sdk.errors import UnsupportedError
from edge_sdk.pipeline.values import Graph, Quantized
from edge_sdk.quantization.base import STATIC_INT8
from edge_sdk.schema.manifest import Partition, Rewrite
from edge_sdk.schema.target import RuntimeRule, Target


class Cpu:
    """What the CPU provider makes of the parts."""

    extras: ClassVar[dict[str, bytes]] = {}

    def __init__(self, quantized: Quantized, target: Target, rule: RuntimeRule) -> None:
        self.options = rule.options
        self._rule, self._method = rule, quantized.quantization.method
        # Of FP32 graphs the fusions are quick, and fusions for one kind of processor may not suit another.
        self._ahead = self._method in STATIC_INT8 and same_machine(target)
        self._optimised: dict[str, onnx.ModelProto] = {}
        self._kept = {graph.name for graph in quantized.graphs if graph.keeps_float}

    def part(
        self, graph: Graph, model: onnx.ModelProto, enabled: frozenset[str]
    ) -> tuple[onnx.ModelProto, list[Rewrite]]:
        """The program of a part, and what was done to it; the graph is edited in place."""
        if self._method in STATIC_INT8:
            shield_float_layers(model)
        self._optimised[graph.name] = fused = optimise(graph.name, model)
        if not (self._ahead and "fuse_ahead" in enabled and graph.example_inputs):
            return model, []
        return fused, [Rewrite(name="fuse_ahead", count=1, max_abs_err=difference(graph, model, fused))]

    def report(self, rewrites: list[Rewrite]) -> Partition:
        """The partition report of all parts so far."""
        return _partition.report(self._optimised, self._method, self._rule.delegate, rewrites, self._kept)


class Nnapi:
    """What the NNAPI provider makes of the parts."""

    def __init__(self, target: Target, rule: RuntimeRule) -> None:
        self.options = {name: value for name, value in rule.options.items() if name not in nnapi.COMPILE_OPTIONS}
        self.extras: dict[str, bytes] = {}
        self._target, self._rule = target, rule
        self._cuts: dict[str, nnapi.Cut] = {}
        self._rewritten = True

    def part(
        self, graph: Graph, model: onnx.ModelProto, enabled: frozenset[str]
    ) -> tuple[onnx.ModelProto, list[Rewrite]]:
        """The program of a part, and what was done to it."""
        self._rewritten = bool(enabled)
        program, done, self._cuts[graph.name] = nnapi.finish(graph, model, enabled, self._rule)
        self.extras[f"{graph.name}.ort"] = nnapi.ort_format(graph.name, program)
        return program, done

    def report(self, rewrites: list[Rewrite]) -> Partition:
        """The partition report of all parts so far; refuses a program of which NNAPI takes nothing."""
        found = nnapi.report(self._cuts, self._rule.delegate, rewrites)
        if not found.delegated:
            left = "; ".join(f"{one.op}: {one.reason}" for one in found.fallback[:3])
            way = "" if self._rewritten else "without --no-rewrites, or "
            raise UnsupportedError(
                f"NNAPI takes no operator of the model ({left}), so that target '{self._target.name}' would run it on "
                f"the CPU. Compile {way}for {self._target.beside or 'a CPU target'} instead."
            )
        return found
