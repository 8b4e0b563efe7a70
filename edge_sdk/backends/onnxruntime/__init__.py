"""ONNX Runtime with its CPU execution provider."""

from edge_sdk.backends.onnxruntime._backend import OnnxRuntimeBackend

__all__ = ["OnnxRuntimeBackend"]
