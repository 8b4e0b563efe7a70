"""TensorRT 10 and 11, and TensorRT for RTX: see the README of this folder."""

from edge_sdk.backends.tensorrt._backend import TensorRtBackend

__all__ = ["TensorRtBackend"]
