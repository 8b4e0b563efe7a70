"""What an AOTInductor package is tied to: PyTorch's version, and the GPU or the processor's vector instructions."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from edge_sdk import _nvidia
from edge_sdk.errors import DeviceError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_sdk.schema.target import RuntimeRule

COMPILE_OPTIONS = ("max_autotune",)
"""Options of a target's rule that are for the compiler; the others are the runner's."""

_CHOOSE_THE_GPU = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
_BOOLEANS = {"cuda": ("tf32", "cuda_graphs", "max_autotune"), "cpu": ("max_autotune",)}


def problem(delegate: str) -> str | None:
    """What is missing to compile for a delegate, None where all is there. PyTorch is not imported."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return (
            f"needs a C++ compiler, and there is no '{compiler}' here; install one (Debian: apt install g++), or name "
            "one in CXX"
        )
    return _nvidia.problem() if delegate == "cuda" else None


def facts(delegate: str) -> dict[str, str]:
    """What of this machine decides a package, for the cache key; empty where it cannot be told."""
    if delegate != "cuda":
        return {"cpu": _processor()}
    try:
        driver = _nvidia.driver()
    except OSError:
        return {}  # no plan for this delegate gets here: `problem` has refused it
    return {
        "gpu": driver.gpus[0].name,
        "compute_capability": driver.gpus[0].capability,
        "driver": driver.version,
        "driver_cuda": "{}.{}".format(*driver.cuda),
        **{name: os.environ[name] for name in _CHOOSE_THE_GPU if name in os.environ},
    }


def check_options(rule: RuntimeRule) -> None:
    """Refuses options that the delegate does not have.

    Raises:
        UnsupportedError: One is unknown, or neither true nor false.
    """
    known = _BOOLEANS[rule.delegate]
    for name, value in rule.options.items():
        if name not in known:
            raise UnsupportedError(f"aotinductor ({rule.delegate}) has no option '{name}'; it has: {', '.join(known)}.")
        if not isinstance(value, bool):
            raise UnsupportedError(f"aotinductor, option '{name}': found {value!r:.60}, expected true or false.")


def runner_options(rule: RuntimeRule) -> dict[str, str | int | float | bool]:
    """The options that the runner gets: those of the rule, and what the package is tied to.

    Raises:
        DeviceError: PyTorch cannot use the GPU.
    """
    import torch

    options: dict[str, str | int | float | bool] = {
        name: value for name, value in rule.options.items() if name not in COMPILE_OPTIONS
    }
    options |= {"device": rule.delegate, "torch": str(torch.__version__)}
    if rule.delegate == "cpu":
        return options | {"cpu_capability": torch.backends.cpu.get_cpu_capability()}
    if not torch.cuda.is_available():
        raise DeviceError(
            f"PyTorch {torch.__version__} cannot use the GPU here, although the driver sees one: see "
            "'edge-sdk doctor', and CUDA_VISIBLE_DEVICES."
        )
    capability = "{}.{}".format(*torch.cuda.get_device_capability())
    tied: Mapping[str, str] = {
        "compute_capability": capability,
        "cuda": str(torch.version.cuda),
        "driver": _nvidia.driver().version,
    }
    return options | tied


def _processor() -> str:
    """The processor's model and its features, as Linux tells them: a package uses what this one has."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return "unknown"
    wanted = ("model name", "flags", "Features", "CPU part")
    return "; ".join(next((line for line in lines if line.startswith(name)), "") for name in wanted)
