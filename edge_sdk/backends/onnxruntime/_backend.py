"""Lowers PyTorch graphs and ONNX files to ONNX programs, one for each part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from edge_sdk.backends._onnx_export import export
from edge_sdk.backends.base import Backend, Graph

if TYPE_CHECKING:
    from edge_sdk.pipeline import values
    from edge_sdk.pipeline.values import Captured, Lowered, Quantized
    from edge_sdk.schema.manifest import SkippedLayer
    from edge_sdk.schema.target import RuntimeRule, Target

OPSET = 18
_ON_TORCH = ("drop_identities", "padding_in_numbers", "fold_batch_norm", "fold_symmetric_padding")
_ON_ONNX = ("fold_padding", "mean_to_global_average_pool", "unsigned_activations")


class OnnxRuntimeBackend(Backend):
    """ONNX Runtime; the delegate is its execution provider for the CPU, or for Android's NNAPI."""

    name: ClassVar[str] = "onnxruntime"
    extra: ClassVar[str] = "onnxruntime"
    requires: ClassVar[tuple[str, ...]] = ("torch", "torchao", "onnx", "onnxruntime", "onnxscript")
    runner_requires: ClassVar[tuple[str, ...]] = ("onnxruntime", "numpy")
    packages: ClassVar[tuple[str, ...]] = ("torch", "torchao", "onnx", "onnxruntime", "onnxscript")
    graphs: ClassVar[frozenset[Graph]] = frozenset({"torch", "onnx"})
    delegates: ClassVar[frozenset[str]] = frozenset({"cpu", "nnapi"})
    float_outputs: ClassVar[frozenset[str]] = frozenset({"cpu"})
    quantizers: ClassVar[dict[str, Graph]] = {
        "fp32": "torch",
        "fp16": "torch",
        "int8-static": "torch",
        "int8-lsq": "torch",
        "int8-dynamic": "onnx",
        "int4-weight": "onnx",
    }
    refusals: ClassVar[dict[tuple[str, str], str]] = {
        ("nnapi", "int8-dynamic"): "NNAPI has no operator that quantizes as values come; use int8-static",
        ("nnapi", "int4-weight"): "NNAPI has no weights of 4 bits; use int8-static",
    }
    by_option: ClassVar[dict[tuple[str, str], str]] = {("nnapi", "fp16"): "nnapi_use_fp16"}
    rewrites: ClassVar[dict[str, str]] = {
        "drop_identities": "removes dropout, contiguous copies and the like",
        "padding_in_numbers": "writes a convolution's padding 'same' or 'valid' in numbers",
        "fold_batch_norm": "folds batch normalisation into the convolution before it",
        "fold_symmetric_padding": "moves zero padding into the convolution behind it",
        "fold_padding": "the same for padding that differs from side to side, which ONNX convolutions take",
        "mean_to_global_average_pool": "a mean over height and width becomes a pool, which has an INT8 kernel",
        "unsigned_activations": "shifts INT8 activations to UINT8, the form that ONNX Runtime fuses; exact",
        "nnapi_reshapes": "for NNAPI, writes Flatten, Squeeze and Unsqueeze as Reshape",
        "nnapi_hard_sigmoids": "for NNAPI, writes HardSigmoid and HardSwish with a Clip from 0 to 6",
        "nnapi_softmaxes": "for NNAPI, gives a softmax that spans 0 to 1 the scale 1/256 that NNAPI asks for",
        "nnapi_means": "for NNAPI, writes a quantized mean over height and width as a pool",
        "nnapi_global_pools": "for NNAPI, writes a global average pool as an average pool or a convolution",
        "nnapi_products": "for NNAPI, writes a quantized product with a constant as a 1x1 convolution",
        "nnapi_reshape_pairs": "for NNAPI, makes one of two reshapes in a row",
        "nnapi_max_pools": "for NNAPI, runs a max pool behind a quantized convolution on UINT8",
        "nnapi_float_operators": "for NNAPI, parts what it takes in float only from the quantizers around it",
        "nnapi_quantized_edges": "for NNAPI, leaves the quantizers of inputs and outputs to the CPU",
        "fuse_ahead": "does ONNX Runtime's INT8 fusions at compile time, so that loading takes half as long",
    }

    def rewrite(self, captured: Captured, enabled: frozenset[str]) -> Captured:
        """Rewrites PyTorch graphs; what needs ONNX's own operators follows in `lower`."""
        from edge_sdk.backends import _rewrites

        if any(graph.onnx is not None for graph in captured.graphs):
            return captured
        return _rewrites.apply_rewrites(captured, {name: getattr(_rewrites, name) for name in _ON_TORCH}, enabled)

    @classmethod
    def rewrites_for(cls, delegate: str) -> frozenset[str]:
        """NNAPI takes none of the operators that ONNX Runtime fuses for the CPU, and the CPU needs none of NNAPI's."""
        ours = delegate == "nnapi"
        return frozenset(name for name in cls.rewrites if name != "fuse_ahead" and (ours or "nnapi" not in name)) | (
            frozenset() if ours else {"fuse_ahead"}
        )

    def operators(self, captured: Captured) -> Iterator[tuple[str, str, str]]:
        """All operators of ONNX graphs, those within others too; of PyTorch graphs what becomes control flow."""
        from edge_sdk.backends.onnxruntime._operators import of_onnx, of_torch

        for graph in captured.graphs:
            yield from of_onnx(graph.name, graph.onnx.graph) if graph.onnx is not None else of_torch(graph)

    def lower(self, quantized: Quantized, target: Target, rule: RuntimeRule) -> Lowered:
        """One ``.onnx`` for each part; for NNAPI also its ``.ort``.

        Raises:
            ModelError: The exporter or ONNX Runtime refuses the graph.
            UnsupportedError: The target does not allow an operator, its delegate takes none of them, or there is
                nothing to quantize.
        """
        from importlib.metadata import version

        from edge_sdk.backends.onnxruntime import _operators
        from edge_sdk.backends.onnxruntime._programs import Cpu, Nnapi
        from edge_sdk.pipeline.values import Lowered
        from edge_sdk.schema.manifest import PartSpec, RuntimeRef

        finish = Nnapi(target, rule) if rule.delegate == "nnapi" else Cpu(quantized, target, rule)
        files, parts, skipped = {}, [], []
        rewrites = list(quantized.rewrites)
        is_quantized = quantized.on_onnx is None
        for graph in quantized.graphs:
            model, applied, left, changed = self._lower_part(graph, quantized)
            is_quantized |= changed
            self.check_operators(_operators.of_onnx(graph.name, model.graph), target, rule)
            model, more = finish.part(graph, model, quantized.enabled)
            rewrites += [*applied, *more]
            skipped += left
            program = f"{graph.name}.onnx"
            files[program] = model.SerializeToString()
            parts.append(
                PartSpec(
                    name=graph.name,
                    program=program,
                    entry=graph.name,
                    inputs=list(graph.inputs),
                    outputs=list(graph.outputs),
                )
            )
        method = quantized.quantization
        if not is_quantized:
            from edge_sdk.quantization._onnx import nothing_to_quantize

            raise nothing_to_quantize(method.method)
        return Lowered(
            files=files,
            parts=tuple(parts),
            runtime=RuntimeRef(
                name=self.name, version=version("onnxruntime"), delegate=rule.delegate, options=finish.options
            ),
            quantization=method.model_copy(update={"skipped": [*method.skipped, *skipped]}),
            partition=finish.report(rewrites),
            extras=finish.extras,
        )

    def _lower_part(self, graph: values.Graph, quantized: Quantized):
        from edge_sdk.backends.onnxruntime import _rewrites
        from edge_sdk.quantization.base import Data

        model = (
            graph.onnx
            if graph.onnx is not None
            else export(graph, OPSET, "Try --runtime executorch, or another quantizer.")
        )
        model, applied = _rewrites.apply(model, graph, quantized.enabled & frozenset(_ON_ONNX))
        skipped: list[SkippedLayer] = []
        before = model
        if quantized.on_onnx is not None and not graph.keeps_float:
            data = Data(calibration=quantized.calibration)
            model, skipped = quantized.on_onnx.apply_onnx(model, graph.name, data)
        return model, applied, skipped, model is not before
