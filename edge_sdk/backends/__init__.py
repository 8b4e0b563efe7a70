"""The backends, by runtime name."""

from __future__ import annotations

from edge_sdk._registry import Registry
from edge_sdk.errors import UnsupportedError

BACKENDS = Registry(
    "runtime",
    "edge_sdk.backends",
    {
        "aotinductor": "edge_sdk.backends.aotinductor:AotInductorBackend",
        "executorch": "edge_sdk.backends.executorch:ExecuTorchBackend",
        "onnxruntime": "edge_sdk.backends.onnxruntime:OnnxRuntimeBackend",
        "tensorrt": "edge_sdk.backends.tensorrt:TensorRtBackend",
    },
    UnsupportedError,
)
