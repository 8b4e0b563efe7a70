"""Lowers PyTorch graphs and ONNX files to ONNX programs, one for each part."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from edge_sdk.backends._causes import first_cause
from edge_sdk.backends.base import Backend, Graph
from edge_sdk.errors import ModelError

if TYPE_CHECKING:
    import onnx

    from edge_sdk.pipeline import values
    from edge_sdk.pipeline.values import Captured, Lowered, Quantized
    from edge_sdk.schema.manifest import SkippedLayer
    from edge_sdk.schema.target import RuntimeRule, Target

OPSET = 18
_ON_TORCH = ("drop_identities", "padding_in_numbers", "fold_batch_norm", "fold_symmetric_padding")
_ON_ONNX = ("fold_padding", "mean_to_global_average_pool", "unsigned_activations")


class OnnxRuntimeBackend(Backend):
    """ONNX Runtime; the delegate is its CPU execution provider."""

    name: ClassVar[str] = "onnxruntime"
    extra: ClassVar[str] = "onnxruntime"
    requires: ClassVar[tuple[str, ...]] = ("torch", "torchao", "onnx", "onnxruntime", "onnxscript")
    runner_requires: ClassVar[tuple[str, ...]] = ("onnxruntime", "numpy")
    packages: ClassVar[tuple[str, ...]] = ("torch", "torchao", "onnx", "onnxruntime", "onnxscript")
    graphs: ClassVar[frozenset[Graph]] = frozenset({"torch", "onnx"})
    delegates: ClassVar[frozenset[str]] = frozenset({"cpu"})
    quantizers: ClassVar[dict[str, Graph]] = {
        "fp32": "torch",
        "fp16": "torch",
        "int8-static": "torch",
        "int8-dynamic": "onnx",
        "int4-weight": "onnx",
    }
    rewrites: ClassVar[dict[str, str]] = {
        "drop_identities": "removes dropout, contiguous copies and the like",
        "padding_in_numbers": "writes a convolution's padding 'same' or 'valid' in numbers",
        "fold_batch_norm": "folds batch normalisation into the convolution before it",
        "fold_symmetric_padding": "moves zero padding into the convolution behind it",
        "fold_padding": "the same for padding that differs from side to side, which ONNX convolutions take",
        "mean_to_global_average_pool": "a mean over height and width becomes a pool, which has an INT8 kernel",
        "unsigned_activations": "shifts INT8 activations to UINT8, the form that ONNX Runtime fuses; exact",
        "fuse_ahead": "does ONNX Runtime's INT8 fusions at compile time, so that loading takes half as long",
    }

    def rewrite(self, captured: Captured, enabled: frozenset[str]) -> Captured:
        """Rewrites PyTorch graphs; what needs ONNX's own operators follows in `lower`."""
        from edge_sdk.backends import _rewrites

        if any(graph.onnx is not None for graph in captured.graphs):
            return captured
        return _rewrites.apply_rewrites(captured, {name: getattr(_rewrites, name) for name in _ON_TORCH}, enabled)

    def lower(self, quantized: Quantized, target: Target, rule: RuntimeRule) -> Lowered:
        """One ``.onnx`` for each part.

        Raises:
            ModelError: The exporter or ONNX Runtime refuses the graph.
        """
        from importlib.metadata import version

        from edge_sdk.backends.onnxruntime._optimise import optimise, same_machine
        from edge_sdk.backends.onnxruntime._partition import report
        from edge_sdk.backends.onnxruntime._rewrites import difference
        from edge_sdk.pipeline.values import Lowered
        from edge_sdk.schema.manifest import PartSpec, Rewrite, RuntimeRef

        files, parts, skipped, optimised = {}, [], [], {}
        method = quantized.quantization
        # Of FP32 graphs the fusions are quick, and fusions for one kind of processor may not suit another.
        ahead = "fuse_ahead" in quantized.enabled and method.method == "int8-static" and same_machine(target)
        rewrites = list(quantized.rewrites)
        for graph in quantized.graphs:
            model, applied, left = self._lower_part(graph, quantized)
            rewrites += applied
            skipped += left
            optimised[graph.name] = fused = optimise(graph.name, model)
            if ahead and graph.example_inputs:
                rewrites.append(Rewrite(name="fuse_ahead", count=1, max_abs_err=difference(graph, model, fused)))
                model = fused
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
        return Lowered(
            files=files,
            parts=tuple(parts),
            runtime=RuntimeRef(
                name=self.name, version=version("onnxruntime"), delegate=rule.delegate, options=rule.options
            ),
            quantization=method.model_copy(update={"skipped": [*method.skipped, *skipped]}),
            partition=report(optimised, method.method, rule.delegate, rewrites),
        )

    def _lower_part(self, graph: values.Graph, quantized: Quantized):
        from edge_sdk.backends.onnxruntime import _rewrites
        from edge_sdk.backends.onnxruntime._shield import shield_float_layers
        from edge_sdk.quantization.base import Data

        model = graph.onnx if graph.onnx is not None else _export(graph)
        model, applied = _rewrites.apply(model, graph, quantized.enabled & frozenset(_ON_ONNX))
        skipped: list[SkippedLayer] = []
        if quantized.on_onnx is not None:
            data = Data(calibration=quantized.calibration)
            model, skipped = quantized.on_onnx.apply_onnx(model, graph.name, data)
        if quantized.quantization.method == "int8-static":
            shield_float_layers(model)
        return model, applied, skipped


def _export(graph: values.Graph) -> onnx.ModelProto:
    import contextlib
    import io
    import logging
    import warnings

    import torch

    assert graph.torch is not None
    noise = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = noise.level
    noise.setLevel(logging.ERROR)  # it warns once for every torchvision operator that it cannot translate
    try:
        with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            exported = torch.export.export(
                graph.torch, graph.example_inputs, dynamic_shapes=graph.dynamic_shapes, strict=False
            )
            program = torch.onnx.export(
                exported,
                (),
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.name for spec in graph.inputs],
                output_names=[spec.name for spec in graph.outputs],
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        raise ModelError(
            f"part '{graph.name}' cannot be exported to ONNX: {first_cause(error)}. "
            "Try --runtime executorch, or another quantizer."
        ) from error
    finally:
        noise.setLevel(level)
    assert program is not None
    return _without_source_paths(program.model_proto)


def _without_source_paths(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the exporter's notes, which quote source lines and paths of this machine."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    return model
