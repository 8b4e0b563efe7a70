"""``int8-static``: weights and activations in 8 bits, with ranges from calibration data.

Weights are symmetric with one scale per output channel, activations affine with one scale per
tensor. The graph then holds quantize and dequantize operators, which every runtime lowers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from edge_sdk.errors import UnsupportedError
from edge_sdk.quantization.base import Data, Quantizer

if TYPE_CHECKING:
    import onnx

    from edge_sdk.models.base import Sample
    from edge_sdk.pipeline.values import Captured, Graph, Quantized
    from edge_sdk.schema.manifest import SkippedLayer


MAX_SAMPLES = 64
"""Of more calibration inputs an even selection is used: bias correction holds all of them in memory."""


@dataclass(frozen=True)
class Int8Static(Quantizer):
    """Static INT8.

    Attributes:
        calibration: How the range of an activation is chosen: ``minmax`` takes all that was seen,
            ``histogram`` the part with the least squared error. A few dozen inputs do not show the
            whole range, so what they show is kept by default; on EfficientNet-Lite0 that agrees with
            FP32 more often.
        bias_correction: Whether each layer's mean output is corrected to that of FP32.
    """

    name: ClassVar[str] = "int8-static"
    summary: ClassVar[str] = "weights (per channel) and activations in INT8, calibrated on real inputs"
    precision: ClassVar = "int8"
    needs_calibration: ClassVar[bool] = True
    takes_budget: ClassVar[bool] = True

    calibration: str = field(default="minmax", metadata={"choices": ("minmax", "histogram")})
    bias_correction: bool = True

    def apply_torch(self, captured: Captured, data: Data) -> Quantized:
        """Quantizes every part; with a budget, leaves the worst layers in float until it is met.

        Raises:
            UnsupportedError: A part has nothing to quantize, or no calibration inputs.
            GateError: The budget is missed even so.
        """
        from edge_sdk.pipeline.values import Quantized
        from edge_sdk.quantization import _static
        from edge_sdk.schema.manifest import Quantization

        skip: dict[str, frozenset[str]] = {}
        if data.budget is not None:
            from edge_sdk.quantization._sensitivity import layers_to_skip

            skip = layers_to_skip(self, captured, data, data.budget)
        graphs, skipped = [], []
        for graph in captured.graphs:
            data.progress(f"calibrating {graph.name}")
            prepared = self.prepare(graph, data.calibration, skip.get(graph.name, frozenset()))
            skipped += _skipped(graph, prepared, skip.get(graph.name, frozenset()))
            graphs.append(replace(graph, torch=_static.convert(prepared)))
        options = self.options | {"calibration_samples": len(_selection(data.calibration))}
        return Quantized(
            graphs=tuple(graphs),
            quantization=Quantization(method=self.name, options=options, skipped=skipped),
            rewrites=captured.rewrites,
        )

    def prepare(self, graph: Graph, calibration: Sequence[Sample], skip: frozenset[str]):
        """The graph with calibrated observers and corrected biases, ready to simulate or to convert."""
        from edge_sdk.quantization import _static

        inputs = _static.inputs_of(graph, _selection(calibration))
        if not inputs:
            raise UnsupportedError(
                f"int8-static needs calibration inputs for part '{graph.name}', and there are none: give the model a "
                "samples('calibration'), or --calibration FILE.npz with an array for each input."
            )
        prepared = _static.prepare(graph, self.calibration, skip)
        means = _static.calibrate(prepared, inputs)
        if self.bias_correction:
            _static.correct_bias(prepared, means, inputs)
        return prepared

    def apply_onnx(self, model: onnx.ModelProto, part: str, data: Data) -> tuple[onnx.ModelProto, list[SkippedLayer]]:
        """Quantizes an ONNX file with ONNX Runtime's own tool, in U8S8 QDQ form."""
        from edge_sdk.quantization._onnx import quantize_static

        return quantize_static(model, part, data.calibration, self.calibration)


def _selection(calibration: Sequence[Sample]) -> Sequence[Sample]:
    return calibration[:: max(1, -(-len(calibration) // MAX_SAMPLES))]


def _skipped(graph: Graph, prepared, chosen: frozenset[str]) -> list[SkippedLayer]:
    from edge_sdk.quantization._annotate import UNQUANTIZED_LAYERS, layer_name, layers, why_not
    from edge_sdk.schema.manifest import SkippedLayer

    listed = []
    for node in layers(prepared):
        name = layer_name(node)
        if name in chosen:
            reason = "left in FP32 to meet the accuracy budget"
        elif (why := why_not(node)) is not None:
            reason = why
        else:
            continue
        listed.append(SkippedLayer(layer=f"{graph.name}.{name}", op=str(node.target), precision="fp32", reason=reason))
    for node in layers(prepared, UNQUANTIZED_LAYERS):
        listed.append(
            SkippedLayer(
                layer=f"{graph.name}.{layer_name(node)}",
                op=str(node.target),
                precision="fp32",
                reason="int8-static has no rule for this operator",
            )
        )
    return listed
