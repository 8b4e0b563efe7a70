"""ExecuTorch with the XNNPACK delegate."""

from edge_sdk.backends.executorch._backend import ExecuTorchBackend

__all__ = ["ExecuTorchBackend"]
