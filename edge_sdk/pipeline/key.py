"""The key of a compilation: a hash of all that decides its result, made without loading the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edge_sdk

if TYPE_CHECKING:
    from edge_sdk.models.base import Model, Sample
    from edge_sdk.pipeline.plan import Plan
    from edge_sdk.pipeline.values import Captured
    from edge_sdk.quantization.base import Quantizer
    from edge_sdk.schema.target import Target

# What can change a compiled program; the rest of the SDK cannot.
_CODE = ("backends", "models", "pipeline", "quantization", "schema")


def compile_key(
    target: Target,
    model: Model,
    identity: Mapping[str, str],
    quantizer: Quantizer,
    plan: Plan,
    calibration: str,
    max_drop: float | None,
    rewrites: bool,
) -> str:
    """SHA-256 over weights, graph, target, options, calibration data, packages and our own code.

    Args:
        target: The profile.
        model: The model, for its name and variant.
        identity: What decides weights and graph: `Model.fingerprint`, or `captured_identity`.
        quantizer: The quantizer with its options.
        plan: The runtime.
        calibration: `samples_identity` of a user's own calibration data, empty for the model's own.
        max_drop: The accuracy budget.
        rewrites: Whether graph rewrites are on.
    """
    rule = target.model_dump(include={"name"}) | plan.rule.model_dump()
    return _digest(
        {
            "sdk": [edge_sdk.__version__, _code()],
            "model": [model.name, model.variant, dict(identity)],
            "rule": rule,
            "quantizer": [quantizer.name, quantizer.options],
            "calibration": calibration,
            "max_drop": max_drop,
            "rewrites": rewrites,
            "versions": versions(plan.backend.packages),
        }
    )


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The installed version of each package, without importing it."""
    return {name: _version(name) for name in packages}


def samples_identity(samples: Iterable[Sample]) -> str:
    """A hash of the samples' arrays."""
    digest = hashlib.sha256()
    for sample in samples:
        for part, arrays in sorted(sample.items()):
            for name, array in sorted(arrays.items()):
                digest.update(f"{part}/{name}/{array.dtype}/{array.shape}\n".encode())
                digest.update(array.tobytes())
    return digest.hexdigest()


def captured_identity(captured: Captured) -> dict[str, str]:
    """What decides weights and graph, for a model that cannot tell before it is loaded."""
    found = {}
    for graph in captured.graphs:
        if graph.onnx is not None:
            found[graph.name] = hashlib.sha256(graph.onnx.SerializeToString(deterministic=True)).hexdigest()
            continue
        assert graph.torch is not None
        digest = hashlib.sha256(str(graph.torch.graph).encode())
        digest.update(str((graph.inputs, graph.outputs)).encode())
        for name, tensor in sorted(graph.torch.state_dict().items()):
            digest.update(f"{name}/{tensor.dtype}/{tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().contiguous().flatten().view(-1).cpu().numpy().tobytes())
        for tensor in graph.example_inputs:
            digest.update(tensor.cpu().numpy().tobytes())
        found[graph.name] = digest.hexdigest()
    return found


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


@cache
def _code() -> str:
    digest = hashlib.sha256()
    root = Path(edge_sdk.__file__).parent
    for folder in _CODE:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
