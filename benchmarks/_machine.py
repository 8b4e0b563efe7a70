"""What the machine is and what else it was doing."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from time import sleep
from typing import Any

from benchmarks._device_modules import device_module

PACKAGES = ("edge-sdk", "torch", "executorch", "torchao", "onnx", "onnxruntime", "onnxscript")
LOOK_S = 1.0
BUSY = 0.05


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0))


def describe() -> dict[str, Any]:
    """Processor, system, packages, and the load average of the last minute."""
    from edge_sdk.devices import open_device

    with open_device("local") as device:
        about = device.describe()
    return {
        "cpu": about.soc,
        "cores": cores(),
        "os": about.os,
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
        "packages": {name: _version(name) for name in PACKAGES},
    }


def busy() -> str | None:
    """A warning where something else works on this machine now; looks for a second."""
    others = device_module("_system").OtherLoad()
    sleep(LOOK_S)
    shares = others.shares()
    if shares is None:
        load = os.getloadavg()[0]
        return f"the load average is {load:.2f} on {cores()} cores" if load > BUSY * cores() else None
    for share, who in zip(shares, ("other programs take", "the hypervisor takes"), strict=True):
        if share > BUSY:
            return f"{who} {share:.0%} of the processors' time; the figures are not to be trusted"
    return None


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
