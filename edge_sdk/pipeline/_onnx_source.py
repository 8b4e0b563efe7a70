"""ONNX files as captured graphs, and as the FP32 reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_sdk.errors import MissingDependencyError, ModelError, refusals
from edge_sdk.pipeline.values import Captured, Graph
from edge_sdk.schema.manifest import TensorSpec

if TYPE_CHECKING:
    import onnx

    from edge_sdk.models.base import Arrays, Model, Sample
    from edge_sdk.pipeline.fp32 import Forward

PART = "forward"
_WORK = ("Conv", "ConvTranspose", "Gemm", "MatMul")
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
    feed = samples[0][PART]
    examples = tuple(torch.from_numpy(feed[spec.name]) for spec in inputs)
    macs = _count_macs(proto, feed, str(model.onnx_path))
    return Captured((Graph(PART, inputs, outputs, example_inputs=examples, onnx=proto),), macs=macs)


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


def _count_macs(proto: onnx.ModelProto, feed: Arrays, what: str) -> int:
    """Multiply-accumulates of convolutions and matrix products, by the sizes that one inference really has.

    Shape inference alone does not know them where a graph computes its padding or its shapes.
    """
    import onnxruntime

    nodes = [node for node in proto.graph.node if node.op_type in _WORK]
    shapes = {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    shapes |= {name: list(array.shape) for name, array in feed.items()}
    told = {name for node in nodes for name in (*node.input[:2], *node.output[:1])} - set(shapes)
    watched = type(proto).FromString(proto.SerializeToString())
    del watched.graph.output[:]
    for name in sorted(told):
        watched.graph.output.add().name = name
    if told:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        with refusals("ONNX Runtime", what):
            session = onnxruntime.InferenceSession(watched.SerializeToString(), options, ["CPUExecutionProvider"])
            arrays = session.run(sorted(told), dict(feed))
        shapes |= {name: list(np.shape(array)) for name, array in zip(sorted(told), arrays, strict=True)}  # type: ignore[arg-type]
    return sum(_macs(node, shapes) for node in nodes)


def _macs(node: onnx.NodeProto, shapes: Mapping[str, Sequence[int]]) -> int:
    one, other, result = (shapes[name] for name in (*node.input[:2], node.output[0]))
    if node.op_type == "Conv":
        return _product(result) * _product(other[1:])
    if node.op_type == "ConvTranspose":
        return _product(one) * _product(other[1:])
    turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return _product(result) * one[-2 if turned else -1]


def _product(sizes: Sequence[int]) -> int:
    return int(np.prod(sizes, dtype=np.int64))
