"""The key of a compilation: a hash of all that decides its result, made without loading the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edge_sdk

if TYPE_CHECKING:
    import torch

    from edge_sdk.models.base import Model, Sample
    from edge_sdk.pipeline.plan import Plan
    from edge_sdk.pipeline.values import Captured
    from edge_sdk.pruning import Recipe
    from edge_sdk.quantization.base import Quantizer
    from edge_sdk.schema.target import Target

# What can change a compiled program; the rest of the SDK cannot.
_CODE = ("backends", "models", "pipeline", "pruning", "quantization", "schema")


def compile_key(
    target: Target,
    model: Model,
    identity: Mapping[str, str],
    quantizer: Quantizer,
    plan: Plan,
    calibration: str,
    max_drop: float | None,
    rewrites: bool,
    prune: Recipe | None = None,
) -> str:
    """SHA-256 over weights, graph, target, options, calibration data, packages, machine and our own code.

    Args:
        target: The profile.
        model: The model, for its name and variant.
        identity: What decides weights and graph: `Model.fingerprint`, or `captured_identity`.
        quantizer: The quantizer with its options.
        plan: The runtime.
        calibration: `samples_identity` of a user's own calibration data, empty for the model's own.
        max_drop: The accuracy budget.
        rewrites: Whether graph rewrites are on.
        prune: How the model is pruned before; None: not at all.
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
            "prune": [str(prune), versions(("torch-pruning",))] if prune else None,
            "versions": versions(plan.backend.packages),
            "machine": plan.backend.facts(plan.rule.delegate),
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
        digest = hashlib.sha256(str((graph.inputs, graph.outputs, graph.keeps_float)).encode())
        for name, value in _content(graph.torch):
            digest.update(f"{name}\n".encode())
            digest.update(value)
        for tensor in graph.example_inputs:
            digest.update(_bytes(tensor))
        found[graph.name] = digest.hexdigest()
    return found


def _content(module: torch.fx.GraphModule) -> Iterator[tuple[str, bytes | memoryview]]:
    """The code of a graph and of the graphs within, and every tensor that they read.

    Not the state dict alone: it lacks buffers that are not persistent, and constants.
    """
    from torch import Tensor
    from torch.fx import GraphModule

    for path, inner in module.named_modules():
        if not isinstance(inner, GraphModule):
            continue
        yield path, str(inner.graph).encode()
        for name in sorted({str(node.target) for node in inner.graph.nodes if node.op == "get_attr"}):
            value: Any = inner
            for step in name.split("."):
                value = getattr(value, step)
            if isinstance(value, Tensor):
                yield f"{path}.{name}/{value.dtype}/{tuple(value.shape)}", _bytes(value)


def _bytes(tensor: torch.Tensor) -> memoryview:
    """A tensor's values as they lie in memory, of types that numpy lacks too."""
    from torch import uint8

    return tensor.detach().cpu().contiguous().reshape(-1).view(uint8).numpy().data


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
