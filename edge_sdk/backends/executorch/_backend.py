"""Lowers PyTorch graphs to one ExecuTorch program, a method for each part, through XNNPACK."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from edge_sdk.backends._causes import first_cause
from edge_sdk.backends.base import Backend, Graph
from edge_sdk.errors import EdgeSdkError, ModelError, UnsupportedError

if TYPE_CHECKING:
    from edge_sdk.pipeline import values
    from edge_sdk.pipeline.values import Captured, Lowered, Quantized
    from edge_sdk.schema.target import RuntimeRule, Target

logger = logging.getLogger(__name__)

PROGRAM = "model.pte"


_NO_WEIGHT_SCALE = "ENN reads a weight's scale from a quantizer before it, and this one leaves none; use fp32"


class ExecuTorchBackend(Backend):
    """ExecuTorch; the delegate is XNNPACK, or Samsung's ENN where its SDK is installed."""

    name: ClassVar[str] = "executorch"
    extra: ClassVar[str] = "executorch"
    requires: ClassVar[tuple[str, ...]] = ("torch", "executorch", "torchao")
    runner_requires: ClassVar[tuple[str, ...]] = ("torch", "executorch")
    packages: ClassVar[tuple[str, ...]] = ("torch", "executorch", "torchao")
    graphs: ClassVar[frozenset[Graph]] = frozenset({"torch"})
    delegates: ClassVar[frozenset[str]] = frozenset({"xnnpack", "enn"})
    float_outputs: ClassVar[frozenset[str]] = frozenset({"xnnpack"})
    quantizers: ClassVar[dict[str, Graph]] = {
        "fp32": "torch",
        "fp16": "torch",
        "int8-dynamic": "torch",
        "int8-static": "torch",
        "int8-lsq": "torch",
        "int4-weight": "torch",
    }
    refusals: ClassVar[dict[tuple[str, str], str]] = {
        ("enn", "int8-static"): _NO_WEIGHT_SCALE,
        ("enn", "int8-lsq"): _NO_WEIGHT_SCALE,
        ("enn", "int8-dynamic"): _NO_WEIGHT_SCALE,
        ("enn", "int4-weight"): _NO_WEIGHT_SCALE,
        ("enn", "fp16"): "ENN chooses the arithmetic of float graphs itself; use fp32",
    }
    rewrites: ClassVar[dict[str, str]] = {
        "drop_identities": "removes dropout, contiguous copies and the like",
        "padding_in_numbers": "writes a convolution's padding 'same' or 'valid' in numbers",
        "fold_batch_norm": "folds batch normalisation into the convolution before it",
        "mean_to_average_pool": "a mean over height and width becomes an average pool, which XNNPACK takes",
        "fold_symmetric_padding": "moves zero padding into the convolution behind it",
        "attention_to_products": "writes attention out as two products around a softmax",
        "layer_norm_to_products": "writes layer normalisation out as products with a constant",
        "views_to_slices": "writes selections as slices and views, and drops expansions that expand nothing",
    }

    @classmethod
    def rewrites_for(cls, delegate: str) -> frozenset[str]:
        """ENN takes attention, layer normalisation and means as they are."""
        if delegate == "enn":
            return frozenset({"drop_identities", "padding_in_numbers", "fold_batch_norm", "fold_symmetric_padding"})
        return frozenset(cls.rewrites)

    @classmethod
    def delegate_problem(cls, delegate: str) -> str | None:
        """ENN needs Samsung's SDK."""
        from edge_sdk.backends.executorch import _enn

        return _enn.problem() if delegate == "enn" else None

    def operators(self, captured: Captured) -> Iterator[tuple[str, str, str]]:
        """All operators by PyTorch's names, such as ``conv2d.default``."""
        for graph in captured.graphs:
            assert graph.torch is not None  # it takes no other
            for node in graph.torch.graph.nodes:
                if node.op == "call_function":
                    name = getattr(node.target, "__name__", str(node.target))
                    yield graph.name, ".".join(name.split(".")[-2:]), node.name

    def rewrite(self, captured: Captured, enabled: frozenset[str]) -> Captured:
        """Rewrites the graph into what the delegate takes."""
        from edge_sdk.backends import _rewrites as common
        from edge_sdk.backends.executorch import _rewrites as own

        table = {name: getattr(common, name, None) or getattr(own, name) for name in self.rewrites}
        return common.apply_rewrites(captured, table, enabled)

    def lower(self, quantized: Quantized, target: Target, rule: RuntimeRule) -> Lowered:
        """One ``.pte`` with a method for each part.

        Raises:
            ModelError: ExecuTorch refuses the graph.
            UnsupportedError: ENN does not know the chip, or takes no operator.
        """
        from importlib.metadata import version

        import torch
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        from edge_sdk.backends.executorch import _enn
        from edge_sdk.backends.executorch._partition import Reasons, report
        from edge_sdk.pipeline.values import Lowered
        from edge_sdk.schema.manifest import PartSpec, RuntimeRef

        programs = {}
        with Reasons() as reasons, torch.no_grad():
            try:
                for graph in quantized.graphs:
                    programs[graph.name] = _without_history(_export(graph))
                if rule.delegate == "enn":
                    edge = _enn.lower(programs, target, rule)
                else:
                    edge = to_edge_transform_and_lower(
                        programs, partitioner={name: [XnnpackPartitioner()] for name in programs}
                    )
                program = edge.to_executorch()
            except EdgeSdkError:
                raise
            except Exception as error:
                raise ModelError(
                    f"ExecuTorch cannot lower the model: {first_cause(error)}. "
                    "Try --runtime onnxruntime, or another quantizer."
                ) from error
        exported = {graph.name: edge.exported_program(graph.name) for graph in quantized.graphs}
        why = reasons.of if rule.delegate == "xnnpack" else lambda _: "Samsung's partitioner left it"
        partition = report(exported, why, list(quantized.rewrites), rule.delegate)
        if rule.delegate == "enn" and not partition.delegated:
            raise UnsupportedError(f"ENN takes no operator of the model; target '{target.name}' is no help to it.")
        options = {name: value for name, value in rule.options.items() if name not in _enn.COMPILE_OPTIONS}
        return Lowered(
            files={PROGRAM: bytes(program.buffer)},
            parts=tuple(
                PartSpec(
                    name=graph.name,
                    program=PROGRAM,
                    entry=graph.name,
                    inputs=list(graph.inputs),
                    outputs=list(graph.outputs),
                )
                for graph in quantized.graphs
            ),
            runtime=RuntimeRef(name=self.name, version=version("executorch"), delegate=rule.delegate, options=options),
            quantization=quantized.quantization,
            partition=partition,
        )


def _export(graph: values.Graph):
    """The graph exported again, so that what the rewrites and quantizers did to it has types and shapes."""
    import torch

    from edge_sdk.backends.executorch._dynamic import with_dynamic_inputs

    assert graph.torch is not None
    module: torch.nn.Module = with_dynamic_inputs(graph.torch)

    class Named(torch.nn.Module):
        """Gives the graph a name of its own: ExecuTorch's passes trip over weights like ``0.weight``."""

        def __init__(self, net: torch.nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, *inputs: torch.Tensor):
            return self.net(*inputs)

    shapes = graph.dynamic_shapes
    if any(name[0].isdigit() for name, _ in module.named_children()):
        module, shapes = Named(module), (shapes,) if shapes else None
    return torch.export.export(module, graph.example_inputs, dynamic_shapes=shapes, strict=False)


def _without_history(program):
    """The program without each node's chain of origins.

    ExecuTorch's passes copy that chain for every node, which costs a sixth of the lowering and
    leaves no trace in the result.
    """
    for node in program.graph.nodes:
        for key in ("from_node", "nn_module_stack", "source_fn_stack", "torch_fn"):
            node.meta.pop(key, None)
    return program
