"""What of TensorRT this machine has. Nothing heavy is imported."""

from __future__ import annotations

import importlib.util
import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edge_sdk import _nvidia

RTX_MODULES = ("tensorrt_rtx_bindings", "tensorrt_rtx")
JETPACK_TRTEXEC = "/usr/src/tensorrt/bin/trtexec"


def build_problem(delegate: str) -> str | None:
    """What building an engine here lacks; nothing where the device builds it."""
    if delegate != "rtx" or _has(RTX_MODULES):
        return None
    return "TensorRT for RTX is not installed; run: pip install 'edge-sdk[rtx]'"


def run_problem(delegate: str) -> str | None:
    """What running an engine here lacks."""
    try:
        _nvidia.driver()
    except OSError as error:
        if not Path("/etc/nv_tegra_release").exists():  # a Jetson's driver tells nothing of itself this way
            return f"needs an NVIDIA GPU with its driver, and {error}"
    if delegate == "rtx":
        return build_problem(delegate)
    if _has(("tensorrt",)) or trtexec() is not None:
        return None
    return (
        "neither the Python package tensorrt nor the program trtexec is here; on a Jetson: sudo apt install "
        "nvidia-jetpack, elsewhere as https://docs.nvidia.com/deeplearning/tensorrt says"
    )


def found() -> dict[str, str | None]:
    """What is here: the versions of TensorRT for RTX and of TensorRT, and the path of ``trtexec``."""
    return {
        "rtx": _version("tensorrt_rtx_cu13_bindings") if _has(RTX_MODULES) else None,
        "tensorrt": _version("tensorrt") if _has(("tensorrt",)) else None,
        "trtexec": trtexec(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def trtexec() -> str | None:
    """The program's path, None where there is none."""
    return shutil.which("trtexec") or (JETPACK_TRTEXEC if os.access(JETPACK_TRTEXEC, os.X_OK) else None)


def _has(modules: tuple[str, ...]) -> bool:
    return any(importlib.util.find_spec(name) is not None for name in modules)
