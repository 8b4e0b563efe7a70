"""ExecuTorch with the XNNPACK delegate, and Samsung's ENN where its SDK is installed."""

from edge_sdk.backends.executorch._backend import ExecuTorchBackend

__all__ = ["ExecuTorchBackend"]
