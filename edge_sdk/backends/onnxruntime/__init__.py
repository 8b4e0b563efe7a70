"""ONNX Runtime with its execution providers for the CPU and for Android's NNAPI."""

from edge_sdk.backends.onnxruntime._backend import OnnxRuntimeBackend

__all__ = ["OnnxRuntimeBackend"]
