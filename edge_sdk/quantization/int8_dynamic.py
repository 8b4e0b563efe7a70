"""``int8-dynamic``: linear weights in 8 bits, their inputs quantized as they come.

For matrix products only: convolutions stay in float, because a dynamic range costs them more than
INT8 gains (ONNX Runtime's dynamic convolution is slower than FP32).
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from edge_sdk.quantization.base import Data, Quantizer

if TYPE_CHECKING:
    import onnx

    from edge_sdk.pipeline.values import Captured, Graph, Quantized
    from edge_sdk.schema.manifest import SkippedLayer


@dataclass(frozen=True)
class Int8Dynamic(Quantizer):
    """Dynamic INT8 of linear layers, weights per output channel."""

    name: ClassVar[str] = "int8-dynamic"
    summary: ClassVar[str] = "linear weights in INT8, activations quantized at run time; convolutions stay FP32"
    precision: ClassVar = "int8"

    def apply_torch(self, captured: Captured, data: Data) -> Quantized:
        """Quantizes the linear layers of every part.

        Raises:
            UnsupportedError: The model has no linear layer.
        """
        from edge_sdk.pipeline.values import Quantized
        from edge_sdk.quantization._weights import refuse_without_linear, skipped_layers
        from edge_sdk.schema.manifest import Quantization

        refuse_without_linear(self.name, captured)
        graphs = tuple(_quantize(graph) for graph in captured.graphs)
        skipped = skipped_layers(self.name, captured)
        return Quantized(graphs, Quantization(method=self.name, skipped=skipped), captured.rewrites)

    def apply_onnx(self, model: onnx.ModelProto, part: str, data: Data) -> tuple[onnx.ModelProto, list[SkippedLayer]]:
        """Quantizes the matrix products of an ONNX graph."""
        from edge_sdk.quantization._onnx import quantize_dynamic

        del data
        return quantize_dynamic(model, part)


def _quantize(graph: Graph) -> Graph:
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    from edge_sdk.quantization._weights import takes

    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    quantizer = XNNPACKQuantizer().set_operator_type(torch.ops.aten.linear.default, config)  # type: ignore[arg-type]
    quantizer.set_filter_function(takes)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torchao warns of its own deprecated calls
        prepared = prepare_pt2e(copy.deepcopy(graph.torch), quantizer)  # type: ignore[arg-type]
        prepared(*graph.example_inputs)
        return replace(graph, torch=convert_pt2e(prepared))
