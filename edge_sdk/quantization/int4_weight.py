"""``int4-weight``: linear weights in 4 bits, in groups of 32 along the input, symmetric.

Both runtimes that take it multiply with activations that they round to 8 bits on the way.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from edge_sdk.quantization.base import Data, Quantizer

if TYPE_CHECKING:
    import onnx

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

    from edge_sdk.quantization._weights import linear_modules

    module = copy.deepcopy(graph.torch)
    assert module is not None
    chosen = linear_modules(module, GROUP)
    config = Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4,  # type: ignore[attr-defined]
        weight_granularity=PerGroup(GROUP),
    )
    quantize_(module, config, filter_fn=lambda _, name: name in chosen)
    unwrap_tensor_subclass(module)
    return replace(graph, torch=module)
