"""What this machine's NVIDIA driver and GPUs are, and whether PyTorch's build fits them. Imports neither.

Which CUDA a PyTorch was built with stands in its ``version.py``, which is read as text.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from edge_sdk._paths import data_dir

# The oldest compute capability that each CUDA still compiles for. Source: CUDA Toolkit release notes: 12.0 removed
# Kepler (3.x), 13.0 removed Maxwell, Pascal and Volta (before 7.5).
_OLDEST_CAPABILITY = {12: (5, 0), 13: (7, 5)}
# The oldest Linux driver of each CUDA. Source: CUDA Toolkit release notes, "CUDA Toolkit and Minimum Required Driver
# Version for CUDA Minor Version Compatibility".
_OLDEST_DRIVER = {12: "525.60.13", 13: "580.65.06"}


@dataclass(frozen=True)
class Gpu:
    """A GPU as the driver tells of it: ``capability`` such as ``8.6``, memory in MiB."""

    name: str
    capability: str
    memory_mib: int
    free_mib: int


@dataclass(frozen=True)
class Driver:
    """The driver: its version, the newest CUDA that it runs, and the GPUs that it sees."""

    version: str
    cuda: tuple[int, int]
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True)
class TorchBuild:
    """PyTorch as installed: its version, and the CUDA that it was built with (None: for processors only)."""

    version: str
    cuda: str | None


def driver() -> Driver:
    """The driver and its GPUs.

    Raises:
        OSError: There is no driver, or no GPU; the reason.
    """
    nvml = _nvml()
    library = nvml.Library()
    gpus = []
    for gpu in library.gpus():
        total, free = gpu.memory()
        gpus.append(Gpu(gpu.name(), gpu.capability(), total >> 20, free >> 20))
    return Driver(library.driver(), library.cuda(), tuple(gpus))


def torch_build() -> TorchBuild | None:
    """What ``torch/version.py`` says, None where PyTorch is not installed."""
    spec = importlib.util.find_spec("torch")
    for place in [] if spec is None else spec.submodule_search_locations or []:
        try:
            text = (Path(place) / "version.py").read_text("utf-8")
        except OSError:
            continue  # another place of a package that lies in several
        told = dict(re.findall(r"^(__version__|cuda)\b[^=\n]*= *'([^']*)'", text, re.MULTILINE))
        return TorchBuild(told.get("__version__", "unknown"), told.get("cuda"))
    return None


def problem() -> str | None:
    """Why PyTorch cannot compile for a GPU here and run it, with what would help; None where all fits."""
    try:
        found = driver()
    except OSError as error:
        return f"needs an NVIDIA GPU with its driver, and {error}"
    build = torch_build()
    if build is None:
        return "needs PyTorch, which is not installed; run: pip install 'edge-sdk[aotinductor]'"
    if build.cuda is None:
        return (
            f"needs PyTorch's build for CUDA, and PyTorch {build.version} here is for processors only; install the one "
            f"for CUDA {found.cuda[0]} as https://pytorch.org/get-started says"
        )
    return misfit(found, build)


def misfit(found: Driver, build: TorchBuild) -> str | None:
    """Why the driver or the first GPU does not fit PyTorch's build for CUDA; None where both do."""
    major = int((build.cuda or "0").partition(".")[0])
    if found.cuda[0] < major:
        oldest = _OLDEST_DRIVER.get(major)
        return (
            f"the NVIDIA driver {found.version} runs CUDA up to {found.cuda[0]}.{found.cuda[1]}, and PyTorch "
            f"{build.version} is built with CUDA {build.cuda}: update the driver"
            + (f" to {oldest} or newer" if oldest else "")
            + ", or install a PyTorch for an older CUDA"
        )
    oldest_capability = _OLDEST_CAPABILITY.get(major)
    gpu = found.gpus[0]
    if oldest_capability and tuple(map(int, gpu.capability.split("."))) < oldest_capability:
        return (
            f"the GPU {gpu.name} has compute capability {gpu.capability}, and PyTorch {build.version} with CUDA "
            f"{build.cuda} needs {'.'.join(map(str, oldest_capability))} or higher: install a PyTorch for an older CUDA"
        )
    return None


@cache
def _nvml() -> ModuleType:
    """The runners' binding of the driver's library, which stands alone in ``runtimes/``."""
    spec = importlib.util.spec_from_file_location("edge_sdk_nvml", data_dir("runtimes") / "_nvml.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
