"""ONNX files as captured graphs, and as the FP32 reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_sdk.errors import MissingDependencyError, ModelError, refusals
from edge_sdk.pipeline.values import Captured, Graph
from edge_sdk.schema.manifest import TensorSpec

if TYPE_CHECKING:
    from edge_sdk.models.base import Model, Sample
    from edge_sdk.pipeline.fp32 import Forward

PART = "forward"
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


def capture_onnx(model: Model) -> Captured:
    """The file as one graph.

    Raises:
        ModelError: ONNX Runtime refuses it, or a tensor has a type that the SDK does not carry.
    """
    import onnx
    import torch

    proto = onnx.load(str(model.onnx_path))
    session = _session(model)
    inputs = tuple(_spec(value) for value in session.get_inputs())
    outputs = tuple(_spec(value) for value in session.get_outputs())
    samples = model.samples("reference")
    examples = () if not samples else tuple(torch.from_numpy(samples[0][PART][spec.name]) for spec in inputs)
    return Captured((Graph(PART, inputs, outputs, example_inputs=examples, onnx=proto),), macs=_count_macs(proto))


def onnx_forward(model: Model) -> Forward:
    """The file run by ONNX Runtime as it is."""
    session = _session(model)
    names = [value.name for value in session.get_outputs()]

    def forward(sample: Sample) -> Sample:
        outputs = session.run(names, dict(sample[PART]))
        return {PART: {name: np.asarray(output) for name, output in zip(names, outputs, strict=True)}}

    return forward


def _session(model: Model):
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "an ONNX file needs onnxruntime, not installed; run: pip install 'edge-sdk[onnxruntime]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with refusals("ONNX Runtime", str(model.onnx_path)):
        return onnxruntime.InferenceSession(str(model.onnx_path), options, providers=["CPUExecutionProvider"])


def _spec(value: Any) -> TensorSpec:
    if value.type not in _DTYPES:
        raise ModelError(f"tensor '{value.name}' is of type {value.type}; expected one of {', '.join(_DTYPES)}")
    shape = [size if isinstance(size, int) and size > 0 else None for size in value.shape]
    return TensorSpec(name=value.name, dtype=_DTYPES[value.type], shape=shape)  # type: ignore[arg-type]


def _count_macs(proto) -> int:
    """Multiply-accumulates of convolutions and matrix products, as far as shape inference tells sizes."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(proto)
    shapes = {tensor.name: list(tensor.dims) for tensor in inferred.graph.initializer}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = [dim.dim_value or 1 for dim in dims]
    total = 0
    for node in inferred.graph.node:
        sizes = [shapes.get(name, []) for name in (*node.input[:2], *node.output[:1])]
        if node.op_type == "Conv" and sizes[1] and sizes[2]:
            total += _product(sizes[2]) * _product(sizes[1][1:])
        elif node.op_type in ("MatMul", "Gemm") and sizes[0] and sizes[2]:
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            total += _product(sizes[2]) * sizes[0][-2 if transposed else -1]
    return total


def _product(sizes: Sequence[int]) -> int:
    return int(np.prod(sizes, dtype=np.int64))
