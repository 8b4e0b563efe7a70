"""Builds an engine on this machine, in a process of its own: by the program that devices build theirs with."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edge_sdk._paths import data_dir
from edge_sdk.backends.tensorrt._options import Profile, capabilities
from edge_sdk.errors import MissingDependencyError, ModelError, UnsupportedError
from edge_sdk.schema.manifest import EngineLayer

if TYPE_CHECKING:
    import onnx

_TAIL = 600


@dataclass(frozen=True)
class Built:
    """An engine, TensorRT's version, its layers, and the layers in TensorRT's own words."""

    engine: bytes
    version: str
    layers: tuple[EngineLayer, ...]
    told: str


def build(part: str, model: onnx.ModelProto, settings: Mapping[str, Any], profiles: Mapping[str, Profile]) -> Built:
    """The engine of a part, by TensorRT for RTX; no GPU is needed.

    Args:
        part: The part's name.
        model: Its model.
        settings: The options of the target's rule.
        profiles: The ranges of inputs whose sizes vary.

    Raises:
        UnsupportedError: TensorRT refuses an operator, named with its node, or a compute capability.
        ModelError: The builder failed.
        MissingDependencyError: TensorRT for RTX is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="edge-sdk-tensorrt-") as folder:
        paths = {name: str(Path(folder) / name) for name in ("onnx", "engine", "layers")}
        Path(paths["onnx"]).write_bytes(model.SerializeToString())
        spec = {
            "builder": "tensorrt_rtx",
            **paths,
            "timing_cache": None,
            "profiles": profiles,
            "tf32": settings["tf32"],
            "compute_capabilities": capabilities(settings),
            "dla_core": None,
            "workspace_mib": None,
        }
        last = _run(part, spec, Path(folder))
        told = Path(paths["layers"]).read_text("utf-8")
        layers = tuple(EngineLayer(part=part, **layer) for layer in layers_module().of_log(told))
        return Built(Path(paths["engine"]).read_bytes(), last["version"], layers, told)


@cache
def layers_module() -> ModuleType:
    """The runner's reader of layer information, which stands alone in ``runtimes/``."""
    path = data_dir("runtimes") / "tensorrt" / "_layers.py"
    spec = importlib.util.spec_from_file_location("edge_sdk_tensorrt_layers", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(part: str, spec: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Runs the program and returns its last message."""
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    command = [sys.executable, str(data_dir("runtimes") / "tensorrt" / "build.py"), str(folder / "spec.json")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    try:
        last = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = {"type": "nothing"}
    if last["type"] == "built" and done.returncode == 0:
        return last
    if last["type"] != "error":
        said = done.stderr.decode(errors="replace").strip()[-_TAIL:]
        raise ModelError(
            f"the builder of part '{part}' ended with code {done.returncode} and no engine"
            + (f"; the end of what it said: {said}" if said else ".")
        )
    message = f"part '{part}': {last['message'].rstrip('.')}"
    if last["kind"] == "missing_runtime":
        raise MissingDependencyError(f"{message}. Run: pip install 'edge-sdk[rtx]'")
    if last["kind"] == "unsupported":
        raise UnsupportedError(f"{message}. Try another quantizer, runtime or target.")
    raise ModelError(f"{message} ({last['kind']}).")
