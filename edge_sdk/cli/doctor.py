"""``edge-sdk doctor``: whether this machine is fit, and what to install. It imports none of what it looks for."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_sdk import __version__, _nvidia
from edge_sdk._paths import cache_dir
from edge_sdk.backends.tensorrt import _here
from edge_sdk.cli._output import Output
from edge_sdk.cli._packages import Package, packages
from edge_sdk.cli._parser import Parser, example

INT8_FLAGS = ("avx2", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
"""Processor features that make INT8 fast: dot products of bytes, and of matrices of them."""

_LITTLE_DISK_BYTES = 2 * 10**9


def configure(parser: Parser) -> None:
    """Adds the verb's arguments."""
    example(parser, "edge-sdk doctor", "edge-sdk doctor --json")


def run(_: Namespace, output: Output) -> int:
    """Shows the machine; exit code 1 where an installed package does not fit."""
    found = packages()
    cpu, cache, gpu = _cpu(), _cache(), _gpu()
    document = {
        "edge_sdk": __version__,
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "system": _system(),
        "cpu": cpu,
        "gpu": gpu,
        "tensorrt": _here.found(),
        "cache": cache,
        "reaches": _reaches(),
        "packages": [package.document() for package in found],
        "advice": [*_package_advice(found), *_machine_advice(cpu, cache), *_gpu_advice(gpu)],
    }
    output.result(document, lambda: _view(document))
    return 1 if any(package.fits is False for package in found) else 0


def _system() -> dict[str, str]:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = f"{platform.system()} {platform.release()}"
    return {"name": name, "kernel": platform.release(), "abi": platform.machine()}


def _cpu() -> dict[str, Any]:
    """Model, processors given to this process, and the features that matter to INT8; from /proc/cpuinfo."""
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    except OSError:
        # Other systems than Linux do not have it; the flags are then unknown, not absent.
        return {"model": platform.processor() or None, "processors": os.cpu_count(), "int8_flags": None}
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "model": fields.get("model name") or fields.get("Model"),
        "processors": usable,
        "int8_flags": [flag for flag in INT8_FLAGS if flag in flags],
    }


def _gpu() -> dict[str, Any]:
    """The NVIDIA driver and GPUs, PyTorch's build, and what keeps AOTInductor from using them."""
    build = _nvidia.torch_build()
    torch = None if build is None else {"version": build.version, "cuda": build.cuda}
    try:
        found = _nvidia.driver()
    except OSError as error:
        return {"unavailable": str(error), "torch": torch}
    return {
        "driver": found.version,
        "cuda": "{}.{}".format(*found.cuda),
        "gpus": [asdict(gpu) for gpu in found.gpus],
        "torch": torch,
        "problem": _nvidia.problem(),
    }


def _cache() -> dict[str, Any]:
    folder = cache_dir()
    existing = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    return {
        "path": str(folder),
        "writable": os.access(existing, os.W_OK),
        "free_bytes": shutil.disk_usage(existing).free,
    }


def _reaches() -> dict[str, str]:
    """Whether the programs that reach devices are here, and what adb lists."""
    from edge_sdk.devices.adb import attached
    from edge_sdk.errors import EdgeSdkError

    ssh = "ready" if shutil.which("ssh") else "the program 'ssh' is not on this machine"
    try:
        found = attached()
    except EdgeSdkError as error:
        return {"ssh": ssh, "adb": str(error)}
    listed = ", ".join(f"{one.serial} ({one.problem or 'ready'})" for one in found)
    return {"ssh": ssh, "adb": listed or "ready, no device attached"}


def _package_advice(found: list[Package]) -> list[str]:
    if not found:
        return ["edge-sdk is run from its folder and not installed; install it with: pip install -e ."]
    advice = [
        f"{package.name} {package.installed} does not fit: pip install '{package.pip_name}'"
        for package in found
        if package.fits is False
    ]
    for extra in ("executorch", "onnxruntime"):
        if any(extra in package.extras and package.installed is None for package in found):
            advice.append(f"to compile for {extra} and run it: pip install 'edge-sdk[{extra}]'")
    return advice


def _machine_advice(cpu: dict[str, Any], cache: dict[str, Any]) -> list[str]:
    advice = []
    if not cache["writable"]:
        advice.append(f"the cache {cache['path']} cannot be written: set EDGE_SDK_CACHE to a folder of your own")
    if cache["free_bytes"] < _LITTLE_DISK_BYTES:
        advice.append(f"little space is left at {cache['path']}: {cache['free_bytes'] / 1e9:.1f} GB")
    if cpu["int8_flags"] == []:
        advice.append("this processor has no instructions for INT8: it saves memory here, but little time")
    return advice


def _gpu_advice(gpu: dict[str, Any]) -> list[str]:
    """Only where there is a GPU: most machines have none, and need none."""
    return [f"to use the GPU with PyTorch: {gpu['problem']}"] if gpu.get("problem") else []


def _view(document: dict[str, Any]):
    from edge_sdk.reporting.listings import doctor_view

    return doctor_view(document)
