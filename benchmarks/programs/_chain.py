"""A chain of matrix products, as long as wanted, opened in a runtime by hand and by its runner's classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._device_modules import runner_module

ROWS, WIDTH = 32, 512
THREADS = 1


@dataclass(frozen=True)
class Opened:
    """A loaded model with its input.

    Attributes:
        function: The runtime's own call.
        arguments: What to call it with.
        bound: The same as the runner binds it for the harness.
    """

    function: Callable[..., Any]
    arguments: tuple
    bound: Callable[[], Any]


def open_onnxruntime(layers: int, folder: Path) -> Opened:
    """The chain in ONNX Runtime. ``x`` and ``y`` are ``[ROWS, WIDTH]``."""
    import onnx
    import onnxruntime

    names = ["x", *(f"h{layer}" for layer in range(1, layers)), "y"]
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", [a, "w"], [b]) for a, b in zip(names, names[1:], strict=False)],
        "chain",
        [tensor("x", onnx.TensorProto.FLOAT, [ROWS, WIDTH])],
        [tensor("y", onnx.TensorProto.FLOAT, [ROWS, WIDTH])],
        [onnx.numpy_helper.from_array(_weight(), "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"x": _input()}
    bound = runner_module("onnxruntime").Session(session, ["y"]).bind(feed)
    return Opened(session.run, (["y"], feed), bound)


def open_executorch(layers: int, folder: Path) -> Opened:
    """The chain in ExecuTorch with XNNPACK. ``x`` and ``y`` are ``[ROWS, WIDTH]``."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.extension.pybindings import _portable_lib

    linear = torch.nn.Linear(WIDTH, WIDTH, bias=False)
    linear.weight.data = torch.from_numpy(_weight())
    module = torch.nn.Sequential(*[linear] * layers).eval()
    exported = torch.export.export(module, (torch.zeros(ROWS, WIDTH),), strict=False)
    path = folder / f"chain-{layers}.pte"
    edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    path.write_bytes(edge.to_executorch().buffer)
    _portable_lib._unsafe_reset_threadpool(THREADS)
    program = _portable_lib._load_program(str(path))
    method = program.load_method("forward")
    x = _input()
    bound = runner_module("executorch").Method(torch, program, method).bind({"x": x})
    return Opened(method.call, ((torch.from_numpy(x),),), bound)


def _weight() -> np.ndarray:
    """An orthogonal matrix, so that no number grows or fades however long the chain is."""
    return np.linalg.qr(np.random.default_rng(0).standard_normal((WIDTH, WIDTH)))[0].astype(np.float32)


def _input() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((ROWS, WIDTH)).astype(np.float32)
