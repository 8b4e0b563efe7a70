"""``int8-static``: weights and activations in 8 bits, with ranges from calibration data.

Weights are symmetric with one scale per output channel, activations affine with one scale per
tensor. The graph then holds quantize and dequantize operators, which every runtime lowers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from edge_sdk.errors import UnsupportedError
from edge_sdk.quantization.base import AFFINE, Data, Int8Rules, Quantizer

if TYPE_CHECKING:
    import onnx

    from edge_sdk.models.base import Sample
    from edge_sdk.pipeline.values import Captured, Graph, Quantized
    from edge_sdk.schema.manifest import SkippedLayer


MAX_SAMPLES = 64
"""Of more calibration inputs an even selection is used: bias correction holds all of them in memory."""
_BUDGET = "left in FP32 to meet the accuracy budget"


@dataclass(frozen=True)
class Int8Static(Quantizer):
    """Static INT8.

    Attributes:
        calibration: How the range of an activation is chosen: ``minmax`` takes all that was seen,
            ``mse`` the part with the least squared error, ``percentile`` the part that holds that
            share of the values. A few dozen inputs do not show the whole range, so what they show is
            kept by default. ``histogram`` is another name of ``mse``, and for an ONNX file ONNX
            Runtime's histogram with the least entropy lost.
        percentile: The share for ``percentile``, in percent.
        bias_correction: Whether each layer's mean output is corrected to that of FP32.
        equalize: Whether ranges are evened out across layers first (`equalize`).
        adaround: For how many iterations a layer the rounding of its weights is learned, 0 for
            rounding to nearest. A few hundred do.
        choose: Whether ``calibration`` and ``equalize`` are set to what does best on one half of the
            calibration inputs after calibrating with the other half. All of them calibrate then.
        outputs: ``float`` leaves what the last linear layer gives as it is. In 8 bits, ``int8``, many
            results are equal, which costs a ranking by them.
    """

    name: ClassVar[str] = "int8-static"
    summary: ClassVar[str] = "weights (per channel) and activations in INT8, calibrated on real inputs"
    precision: ClassVar = "int8"
    needs_calibration: ClassVar[bool] = True
    takes_budget: ClassVar[bool] = True

    calibration: str = field(default="minmax", metadata={"choices": ("minmax", "mse", "percentile", "histogram")})
    percentile: float = 99.99
    bias_correction: bool = True
    equalize: bool = False
    adaround: int = 0
    choose: bool = False
    outputs: str = field(default="int8", metadata={"choices": ("int8", "float")})

    @property
    def float_outputs(self) -> bool:
        """As ``outputs`` says."""
        return self.outputs == "float"

    def check(self) -> None:
        """Refuses a share that is none, and fewer iterations than none.

        Raises:
            UnsupportedError: One of them was given.
        """
        where = f"quantizer '{self.name}', option"
        if not 50 < self.percentile <= 100:
            raise UnsupportedError(
                f"{where} 'percentile': found {self.percentile}, expected more than 50 and at most 100, such as 99.99"
            )
        if self.adaround < 0:
            raise UnsupportedError(
                f"{where} 'adaround': found {self.adaround}, expected the iterations a layer, such as 200, or 0"
            )

    def apply_torch(self, captured: Captured, data: Data) -> Quantized:
        """Quantizes every part; with a budget, leaves the worst layers in float until it is met.

        Raises:
            UnsupportedError: A part has nothing to quantize, or no calibration inputs.
            GateError: The budget is missed even so.
        """
        from edge_sdk.pipeline.values import Quantized
        from edge_sdk.quantization import _static
        from edge_sdk.quantization._listing import skipped_layers
        from edge_sdk.schema.manifest import Quantization

        used, tried = self._chosen(captured, data) if self.choose else (self, {})
        skip: dict[str, frozenset[str]] = {}
        if data.budget is not None:
            from edge_sdk.quantization._sensitivity import layers_to_skip

            skip = layers_to_skip(used, captured, data, data.budget)
        graphs, skipped = [], []
        for graph in captured.graphs:
            data.progress(f"calibrating {graph.name}")
            left = skip.get(graph.name, frozenset())
            prepared = used.prepare(graph, data.calibration, left, data.rules)
            skipped += skipped_layers(graph.name, prepared, self.name, dict.fromkeys(left, _BUDGET))
            graphs.append(replace(graph, torch=_static.convert(prepared)))
        options = used.options | {"calibration_samples": len(_selection(data.calibration))} | tried
        if data.rules.only_inputs:
            options["outputs"] = "float"
        return Quantized(
            graphs=tuple(graphs),
            quantization=Quantization(method=self.name, options=options, skipped=skipped),
            rewrites=captured.rewrites,
        )

    def _chosen(self, captured: Captured, data: Data) -> tuple[Int8Static, dict[str, float]]:
        """The quantizer with what did best, and all figures by option name, such as ``tried.mse.sqnr_db``."""
        from edge_sdk.quantization._choice import label, measure

        data.progress("choosing how to calibrate")
        found = measure(self, captured, _selection(data.calibration), data.rules)
        method, equalized = best = max(found, key=lambda candidate: found[candidate])
        data.progress(f"{label(best)} does best: {found[best]:.1f} dB at the outputs")
        tried = {f"tried.{label(candidate)}.sqnr_db": round(figure, 2) for candidate, figure in found.items()}
        return replace(self, calibration=method, equalize=equalized), tried

    def prepare(self, graph: Graph, calibration: Sequence[Sample], skip: frozenset[str], rules: Int8Rules = AFFINE):
        """The graph with calibrated observers and corrected weights, ready to simulate or to convert."""
        from edge_sdk.quantization import _static

        inputs = _static.inputs_of(graph, _selection(calibration))
        if not inputs:
            raise UnsupportedError(
                f"int8-static needs calibration inputs for part '{graph.name}', and there are none: give the model a "
                "samples('calibration'), or --calibration FILE.npz with an array for each input."
            )
        prepared = _static.prepare(
            graph,
            self.calibration,
            skip,
            percentile=self.percentile,
            equalized=self.equalize,
            float_outputs=self.float_outputs,
            rules=rules,
        )
        means = _static.calibrate(prepared, inputs)
        if self.adaround:
            from edge_sdk.quantization._adaround import adaround

            adaround(prepared, inputs, self.adaround)
        if self.bias_correction:
            _static.correct_bias(prepared, means, inputs)
        return prepared

    def apply_onnx(self, model: onnx.ModelProto, part: str, data: Data) -> tuple[onnx.ModelProto, list[SkippedLayer]]:
        """Quantizes an ONNX file with ONNX Runtime's own tool, in U8S8 QDQ form or as the runtime's rules say.

        Raises:
            UnsupportedError: An option that this tool has no counterpart of.
        """
        from edge_sdk.quantization._onnx import quantize_static

        self._refuse_on_onnx()
        return quantize_static(model, part, data.calibration, self.calibration, self.percentile, data.rules)

    def _refuse_on_onnx(self) -> None:
        given = [name for name in ("equalize", "adaround", "choose") if getattr(self, name)]
        if self.float_outputs:
            given.insert(0, "outputs=float")
        if self.calibration == "mse":
            given.insert(0, f"calibration={self.calibration}")
        if given:
            raise UnsupportedError(
                f"int8-static on an ONNX file is ONNX Runtime's own, which has no {', '.join(given)}: leave "
                "that out and take calibration=minmax, percentile or histogram, or give the PyTorch model."
            )


def _selection(calibration: Sequence[Sample]) -> Sequence[Sample]:
    return calibration[:: max(1, -(-len(calibration) // MAX_SAMPLES))]
