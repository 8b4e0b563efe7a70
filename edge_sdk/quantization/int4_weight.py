"""``int4-weight``: linear weights in 4 bits, in groups of 32 along the input, symmetric.

Both runtimes that take it multiply with activations that they round to 8 bits on the way.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from edge_sdk.quantization.base import Data, Quantizer

if TYPE_CHECKING:
    import onnx
    import torch

    from edge_sdk.pipeline.values import Captured, Graph, Quantized
    from edge_sdk.schema.manifest import SkippedLayer


GROUP = 32


@dataclass(frozen=True)
class Int4Weight(Quantizer):
    """4-bit linear weights."""

    name: ClassVar[str] = "int4-weight"
    summary: ClassVar[str] = "linear weights in INT4, groups of 32; convolutions stay FP32"
    precision: ClassVar = "int4"

    def apply_torch(self, captured: Captured, data: Data) -> Quantized:
        """Quantizes the linear layers whose input size is a multiple of 32.

        Raises:
            UnsupportedError: The model has no such layer.
        """
        from edge_sdk.pipeline.values import Quantized
        from edge_sdk.quantization._weights import refuse_without_linear, skipped_layers
        from edge_sdk.schema.manifest import Quantization

        del data
        refuse_without_linear(self.name, captured, GROUP)
        graphs = tuple(_quantize(graph) for graph in captured.graphs)
        skipped = skipped_layers(self.name, captured, GROUP)
        quantization = Quantization(method=self.name, options={"group": GROUP}, skipped=skipped)
        return Quantized(graphs, quantization, captured.rewrites)

    def apply_onnx(self, model: onnx.ModelProto, part: str, data: Data) -> tuple[onnx.ModelProto, list[SkippedLayer]]:
        """Quantizes the matrix products of an ONNX graph."""
        from edge_sdk.quantization._onnx import quantize_int4

        del data
        return quantize_int4(model, part, GROUP)


def _quantize(graph: Graph) -> Graph:
    """The graph with 4-bit weights and dynamically rounded inputs around each linear operator."""
    import torch
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerGroup, quantize_
    from torchao.utils import unwrap_tensor_subclass

    module = copy.deepcopy(graph.torch)
    assert module is not None
    chosen = _linear_modules(module)
    config = Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4,  # type: ignore[attr-defined]
        weight_granularity=PerGroup(GROUP),
    )
    quantize_(module, config, filter_fn=lambda _, name: name in chosen)
    unwrap_tensor_subclass(module)
    return replace(graph, torch=module)


def _linear_modules(module: torch.fx.GraphModule) -> set[str]:
    """Turns each linear operator that can be quantized into a module, as torchao wants them; their names."""
    import torch

    from edge_sdk.quantization._annotate import layers
    from edge_sdk.quantization._weights import takes

    names = set()
    for index, node in enumerate([node for node in layers(module) if takes(node, GROUP)]):
        weight, bias = (_value(module, argument) for argument in (node.args[1], (*node.args, None)[2]))
        assert weight is not None, "a linear operator has a weight"
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        layer.weight = torch.nn.Parameter(weight.detach(), requires_grad=False)
        if bias is not None:
            layer.bias = torch.nn.Parameter(bias.detach(), requires_grad=False)
        name = f"int4_linear_{index}"
        module.add_submodule(name, layer)
        with module.graph.inserting_before(node):
            call = module.graph.call_module(name, (node.args[0],))
        node.replace_all_uses_with(call)
        module.graph.erase_node(node)
        names.add(name)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return names


def _value(module: torch.fx.GraphModule, argument: Any) -> torch.Tensor | None:
    """The value of an argument that depends on no input: of a parameter, or of what is computed from some."""
    from torch.fx import Node
    from torch.fx.node import map_arg

    if not isinstance(argument, Node):
        return argument
    if argument.op != "get_attr":
        args, kwargs = map_arg((argument.args, argument.kwargs), lambda node: _value(module, node))
        return argument.target(*args, **kwargs)  # type: ignore[operator]
    value: Any = module
    for step in str(argument.target).split("."):
        value = getattr(value, step)
    return value
