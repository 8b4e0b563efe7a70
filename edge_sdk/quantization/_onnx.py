"""Quantization of ONNX graphs, by ONNX Runtime's own tools."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
)
from onnxruntime.quantization import quantize_dynamic as ort_quantize_dynamic
from onnxruntime.quantization import quantize_static as ort_quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from edge_sdk.errors import UnsupportedError
from edge_sdk.quantization.base import AFFINE, Int8Rules
from edge_sdk.schema.manifest import SkippedLayer

if TYPE_CHECKING:
    import numpy as np

    from edge_sdk.models.base import Sample

_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "histogram": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
_PRODUCTS = ("MatMul", "Gemm")
_LAYERS = ("Conv", *_PRODUCTS)
_COMPUTE = ("Conv", "ConvTranspose", *_PRODUCTS, "LSTM", "GRU", "RNN", "Attention")


def quantize_static(
    model: onnx.ModelProto,
    part: str,
    calibration: Sequence[Sample],
    method: str,
    percentile: float = 99.99,
    rules: Int8Rules = AFFINE,
) -> tuple[onnx.ModelProto, list[SkippedLayer]]:
    """U8S8 QDQ with per-channel weights; S8S8 around the layers alone where the rules say so.

    Args:
        model: An ONNX graph in float.
        part: The part's name.
        calibration: Real inputs.
        method: ``minmax``, ``histogram`` (least entropy lost) or ``percentile``.
        percentile: The central share of the values that ``percentile`` keeps, in percent.
        rules: What the runtime takes.

    Raises:
        UnsupportedError: There are no calibration inputs.
    """
    feeds = [dict(sample[part]) for sample in calibration if part in sample]
    if not feeds:
        raise UnsupportedError(
            "int8-static needs calibration inputs, and an ONNX file brings none: give --calibration FILE.npz with an "
            "array for each input, its first dimension counting the samples."
        )
    extra: dict[str, object] = {"CalibPercentile": percentile} if method == "percentile" else {}
    if rules.symmetric:
        extra["ActivationSymmetric"] = True
    if rules.only_inputs:
        extra |= {"OpTypesToExcludeOutputQuantization": list(_LAYERS), "QuantizeBias": False}
    with _files() as (source, prepared, result):
        onnx.save(model, source)
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        ort_quantize_static(
            prepared,
            result,
            _Reader(feeds),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=list(_LAYERS) if rules.only_inputs else None,
            activation_type=QuantType.QInt8 if rules.symmetric else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=_METHODS[method],
            extra_options=extra,
        )
        quantized = onnx.load(result)
    return quantized, _skipped(quantized, part, "ONNX Runtime's quantizer has no rule for it here")


def quantize_dynamic(model: onnx.ModelProto, part: str) -> tuple[onnx.ModelProto, list[SkippedLayer]]:
    """Matrix products with INT8 weights per channel; their inputs are quantized at run time.

    A graph without a matrix product with a constant weight comes back as it is.
    """
    reason = "int8-dynamic takes matrix products with constant weights only"
    if not _has_products(model):
        return model, _skipped(model, part, reason)
    with _files() as (source, prepared, result):
        onnx.save(model, source)
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        ort_quantize_dynamic(
            prepared, result, op_types_to_quantize=list(_PRODUCTS), per_channel=True, weight_type=QuantType.QInt8
        )
        quantized = onnx.load(result)
    return quantized, _skipped(quantized, part, reason)


def quantize_int4(model: onnx.ModelProto, part: str, group: int) -> tuple[onnx.ModelProto, list[SkippedLayer]]:
    """Matrix products with symmetric INT4 weights in groups along the input; inputs are rounded to INT8.

    A graph without a matrix product with a constant weight comes back as it is.
    """
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    from onnxruntime.quantization.onnx_model import ONNXModel

    reason = "int4-weight takes matrix products with constant weights only"
    if not _has_products(model):
        return model, _skipped(model, part, reason)
    editable = ONNXModel(_copy(model))
    editable.replace_gemm_with_matmul()
    quantizer = MatMulNBitsQuantizer(editable.model, bits=4, block_size=group, is_symmetric=True, accuracy_level=4)
    quantizer.process()
    quantized = quantizer.model.model  # type: ignore[attr-defined]  # an ONNXModel, whatever its annotation says
    return quantized, _skipped(quantized, part, reason)


def to_fp16(model: onnx.ModelProto, part: str) -> tuple[onnx.ModelProto, list[SkippedLayer]]:
    """Half precision with FP32 inputs and outputs."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    del part
    return convert_float_to_float16(_copy(model), keep_io_types=True), []


class _Reader(CalibrationDataReader):
    def __init__(self, feeds: Sequence[dict[str, np.ndarray]]) -> None:
        self._feeds: Iterator = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


@contextmanager
def _files() -> Iterator[tuple[str, str, str]]:
    """Three scratch files: ONNX Runtime's tools read and write files. What they say is kept off standard output."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory(prefix="edge-sdk-") as folder, redirect_stdout(sys.stderr):
            yield tuple(str(Path(folder) / name) for name in ("source.onnx", "prepared.onnx", "result.onnx"))  # type: ignore[misc]
    finally:
        root.setLevel(level)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def nothing_to_quantize(method: str) -> UnsupportedError:
    """What to raise where a method for matrix products leaves every part of a model as it is."""
    return UnsupportedError(
        f"{method} quantizes matrix products with constant weights only, and the model has none; use int8-static "
        "or fp16."
    )


def _has_products(model: onnx.ModelProto) -> bool:
    constants = {tensor.name for tensor in model.graph.initializer}
    return any(node.op_type in _PRODUCTS and set(node.input[1:2]) & constants for node in model.graph.node)


def _skipped(model: onnx.ModelProto, part: str, reason: str) -> list[SkippedLayer]:
    """The compute nodes that still work in float (no input comes from a DequantizeLinear), and float tables."""
    quantized = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    tables = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    return [
        SkippedLayer(layer=f"{part}.{node.name or node.output[0]}", op=node.op_type, precision="fp32", reason=reason)
        for node in model.graph.node
        if (node.op_type in _COMPUTE and not set(node.input) & quantized)
        or (node.op_type == "Gather" and node.input[0] in tables)
    ]
