"""Models small enough to be built in a test, and bundles of them, for the real runtimes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.bundle import Bundle, write_bundle
from edge_sdk.schema.manifest import (
    Cost,
    Manifest,
    ModelRef,
    Partition,
    PartSpec,
    Quantization,
    RuntimeRef,
    TensorSpec,
)

SIZE = 16
WEIGHTS = np.random.default_rng(0).standard_normal((SIZE, SIZE)).astype(np.float32)


def layer(x: np.ndarray) -> np.ndarray:
    """What a tiny model computes: ``[1, SIZE]`` to ``[1, SIZE]``."""
    return np.maximum(x @ WEIGHTS, 0)


def inputs(count: int, seed: int = 1) -> np.ndarray:
    """``[count, 1, SIZE]``."""
    return np.random.default_rng(seed).standard_normal((count, 1, SIZE)).astype(np.float32)


def onnx_program(scale: float = 1.0, op: str = "Relu", idle_steps: int = 0) -> bytes:
    """An ONNX model of one layer: a product, ``op``, and so many steps that take time and change nothing."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'edge-sdk[onnxruntime]'")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'edge-sdk[onnxruntime]'")
    spec = onnx.helper.make_tensor_value_info
    names = ["y0", *(f"y{step + 1}" for step in range(idle_steps))]
    names[-1] = "y"
    steps = [onnx.helper.make_node("Relu", [a], [b]) for a, b in zip(names, names[1:], strict=False)]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["h"]), onnx.helper.make_node(op, ["h"], [names[0]]), *steps],
        "tiny",
        [spec("x", onnx.TensorProto.FLOAT, [1, SIZE])],
        [spec("y", onnx.TensorProto.FLOAT, [1, SIZE])],
        [onnx.numpy_helper.from_array(WEIGHTS * np.float32(scale), "w")],
    )
    opset = onnx.helper.make_opsetid("", 17)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


@cache
def pte_program(methods: tuple[str, ...] = ("forward",)) -> bytes:
    """An ExecuTorch program with the layer as each of its methods."""
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'edge-sdk[executorch]'")
    pytest.importorskip("executorch", reason="executorch is not installed: pip install 'edge-sdk[executorch]'")
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    linear = torch.nn.Linear(SIZE, SIZE, bias=False)
    linear.weight.data = torch.from_numpy(WEIGHTS.T.copy())
    module = torch.nn.Sequential(linear, torch.nn.ReLU()).eval()
    program = torch.export.export(module, (torch.zeros(1, SIZE),), strict=False)
    edge = to_edge_transform_and_lower(dict.fromkeys(methods, program), partitioner=[XnnpackPartitioner()])
    return edge.to_executorch().buffer


def reference(parts: Sequence[str] = ("forward",), samples: int = 3) -> dict[str, np.ndarray]:
    """Arrays of a ``reference.npz`` for parts that all are the layer."""
    x = inputs(samples)
    return {f"{part}/{side}": value for part in parts for side, value in (("inputs/x", x), ("outputs/y", layer(x)))}


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Writes arrays to a file."""
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def bundle(folder: Path, runtime: str, program: bytes, parts: Sequence[str] = ("forward",), **changes) -> Bundle:
    """A bundle whose parts lie in one program. ``changes`` go to the manifest."""
    name = "tiny.pte" if runtime == "executorch" else "tiny.onnx"
    tensor = {"dtype": "float32", "shape": [1, SIZE]}
    specs = [
        PartSpec(
            name=part,
            program=name,
            entry=part,
            inputs=[TensorSpec(name="x", **tensor)],
            outputs=[TensorSpec(name="y", **tensor)],
        )
        for part in parts
    ]
    scratch = write_npz(folder / "scratch.npz", reference(parts))
    manifest = Manifest(
        **{
            "name": "tiny",
            "created": "2026-01-01T00:00:00+00:00",
            "sdk_version": "0",
            "key": hashlib.sha256(program).hexdigest(),
            "target": "desktop-cpu",
            "model": ModelRef(name="tiny"),
            "runtime": RuntimeRef(name=runtime, version="1", delegate="xnnpack" if runtime == "executorch" else "cpu"),
            "quantization": Quantization(method="fp32"),
            "parts": specs,
            "partition": Partition(delegate="cpu", delegated=2, pieces=1),
            "cost": Cost(macs=SIZE * SIZE, weight_bytes=4 * SIZE * SIZE, activation_bytes=8 * SIZE),
            "versions": {},
            "files": {},
            **changes,
        }
    )
    return write_bundle(folder / "tiny.edge", manifest, {name: program, "reference.npz": scratch.read_bytes()})
