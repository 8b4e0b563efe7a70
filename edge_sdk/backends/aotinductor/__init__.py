"""PyTorch's AOTInductor, for NVIDIA GPUs and for the processor."""

from edge_sdk.backends.aotinductor._backend import AotInductorBackend

__all__ = ["AotInductorBackend"]
