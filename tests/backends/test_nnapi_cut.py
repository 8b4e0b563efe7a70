"""Where the NNAPI provider cuts a graph, beside what ONNX Runtime's own usability checker says of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'edge-sdk[onnxruntime]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'edge-sdk[onnxruntime]'")

from edge_sdk.backends.onnxruntime.nnapi import View, cut, report  # noqa: E402

node = onnx.helper.make_node
FLOAT = onnx.TensorProto.FLOAT
SUMMARY = re.compile(r"(\d+) partitions with a total of (\d+)/(\d+) nodes can be handled by the NNAPI EP")


def model(*nodes, outputs=("y",), shape=(1, 4, 8, 8), **constants):
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        list(nodes),
        "small",
        [value("x", FLOAT, list(shape))],
        [value(name, FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    return onnx.shape_inference.infer_shapes(made)


def usability(path: Path, *options: str) -> tuple[int, int, int]:
    """Pieces, nodes taken and nodes, by the tool that ONNX Runtime brings, run as its users run it."""
    command = [sys.executable, "-m", "onnxruntime.tools.check_onnx_model_mobile_usability", *options, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = SUMMARY.search(done.stderr)
    assert found, done.stderr
    return tuple(map(int, found.groups()))  # type: ignore[return-value]


CHAINS = {
    "all of it": ([node("Relu", ["x"], ["h"]), node("Sigmoid", ["h"], ["y"])], 1),
    "a hole in the middle": (
        [node("Relu", ["x"], ["a"]), node("Erf", ["a"], ["b"]), node("Sigmoid", ["b"], ["y"])],
        2,
    ),
    "a hole on one of two ways": (
        [
            node("Relu", ["x"], ["a"]),
            node("Erf", ["a"], ["b"]),
            node("Tanh", ["a"], ["c"]),
            node("Add", ["b", "c"], ["y"]),
        ],
        2,
    ),
    "holes at both ends": (
        [node("Erf", ["x"], ["a"]), node("Relu", ["a"], ["b"]), node("Erf", ["b"], ["y"])],
        1,
    ),
    "two ways that do not meet": (
        [node("Relu", ["x"], ["a"]), node("Tanh", ["x"], ["b"]), node("Add", ["a", "b"], ["y"])],
        1,
    ),
    "a way round": (
        [
            node("Relu", ["x"], ["a"]),
            node("Erf", ["a"], ["b"]),
            node("Relu", ["b"], ["c"]),
            node("Erf", ["c"], ["d"]),
            node("Add", ["a", "d"], ["y"]),
        ],
        3,
    ),
    "nothing": ([node("Erf", ["x"], ["y"])], 0),
}


@pytest.mark.parametrize("name", CHAINS)
def test_pieces(name, tmp_path):
    nodes, pieces = CHAINS[name]
    made = model(*nodes)
    found = cut(View(made), 34)
    assert len(found.pieces) == pieces
    path = tmp_path / "made.onnx"
    onnx.save(made, path)
    taken = sum(len(unit.places) for piece in found.pieces for unit in piece)
    assert usability(path) == (pieces, taken, len(nodes))


def test_a_reshape_alone_is_no_piece():
    nodes = [node("Erf", ["x"], ["a"]), node("Reshape", ["a", "s"], ["b"]), node("Erf", ["b"], ["y"])]
    found = cut(View(model(*nodes, s=np.array([1, -1]))), 34)
    reasons = {found.view.nodes[unit.target].op_type: reason for unit, reason in found.left}
    assert found.pieces == ()
    assert reasons["Reshape"] == "the NNAPI provider leaves an operator alone that only copies"


def test_uint8_without_a_scale_from_the_same_piece():
    """The provider notes what a group's operator gives, not what the quantizer behind it does."""
    quantize = node("QuantizeLinear", ["x", "s", "z"], ["q"])
    pool = node("MaxPool", ["q"], ["p"], kernel_shape=[2, 2])
    end = node("DequantizeLinear", ["p", "s", "z"], ["y"])
    constants = {"s": np.float32(0.1), "z": np.uint8(3)}
    assert cut(View(model(quantize, pool, end, **constants)), 34).left == ()
    group = [
        quantize,
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("Transpose", ["d"], ["t"], perm=[0, 1, 3, 2]),
        node("QuantizeLinear", ["t", "s", "z"], ["tq"]),
        node("MaxPool", ["tq"], ["p"], kernel_shape=[2, 2]),
        end,
    ]
    found = cut(View(model(*group, **constants)), 34)
    ((unit, reason),) = found.left
    assert found.view.nodes[unit.target].op_type == "MaxPool"
    assert reason.startswith("runs on UINT8 and takes its scale from the node before it")


def alternating(count: int):
    """A graph that is cut into as many pieces."""
    nodes, name = [], "x"
    for index in range(count):
        nodes += [node("Relu", [name], [f"a{index}"]), node("Erf", [f"a{index}"], [f"b{index}"])]
        name = f"b{index}"
    return model(*nodes[:-1], node("Erf", [f"a{count - 1}"], ["y"]))


@pytest.mark.parametrize(("count", "warned"), [(1, True), (2, True), (3, True)])
def test_a_graph_that_is_half_outside_or_in_many_pieces_is_warned_of(count, warned):
    partition = report({"forward": cut(View(alternating(count)), 34)}, "nnapi", [])
    assert partition.pieces == count and partition.delegated == count
    assert [(one.op, one.count) for one in partition.fallback] == [("Erf", count)]
    assert bool(partition.warnings) == warned
    (warning,) = partition.warnings
    assert "the CPU will probably be faster" in warning and warning.endswith("Measure the CPU bundle beside it.")
    if count > 2:
        assert f"cuts the graph into {count} pieces" in warning and "#7859" in warning and "#9054" in warning
    else:
        assert "50% of the multiply-accumulates stay on the CPU, more than 25%" in warning


def test_what_counts_are_the_multiply_accumulates():
    weight = {"w": np.ones((16, 4, 3, 3), np.float32)}
    inside = [node("Conv", ["x", "w"], ["a"]), node("Erf", ["a"], ["y"])]
    assert report({"forward": cut(View(model(*inside, **weight)), 34)}, "nnapi", []).warnings == []
    outside = [node("Relu", ["x"], ["a"]), node("Erf", ["a"], ["b"]), node("Conv", ["b", "k"], ["y"])]
    made = model(*outside, k=np.ones((16, 4, 1, 3, 3), np.float32)[:, :, 0], j=np.zeros(1, np.float32))
    del made.graph.initializer[:]
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((16, 4, 3, 3), np.float32), "w"))
    made.graph.node.insert(0, node("Erf", ["w"], ["k"]))
    (warning,) = report({"forward": cut(View(made), 34)}, "nnapi", []).warnings
    assert "100% of the multiply-accumulates stay on the CPU" in warning


def test_several_parts_are_told_apart():
    cuts = {"encoder": cut(View(alternating(3)), 34), "step": cut(View(model(node("Erf", ["x"], ["y"]))), 34)}
    partition = report(cuts, "nnapi", [])
    assert partition.pieces == 3
    first, second = partition.warnings
    assert first.startswith("part 'encoder': the CPU will probably be faster")
    assert second == "part 'step': NNAPI takes no operator of it, so that it runs on the CPU whole."
