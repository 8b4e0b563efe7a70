"""Graph rewrites on ONNX graphs: where they apply, where they must not, and that no output moves."""

from __future__ import annotations

import numpy as np
import pytest
from _models import example
from hypothesis import given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'edge-sdk[onnxruntime]'")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'edge-sdk[onnxruntime]'")

from edge_sdk.backends.onnxruntime._rewrites import TABLE, apply  # noqa: E402
from edge_sdk.errors import ModelError  # noqa: E402
from edge_sdk.pipeline.values import Graph  # noqa: E402
from edge_sdk.schema.manifest import TensorSpec  # noqa: E402

SHAPE = [1, 3, 8, 8]
WEIGHT = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
node = onnx.helper.make_node


def model(*nodes, outputs=("y",), opset=18, inferred=True, **constants):
    """A model of some nodes from ``x`` of `SHAPE`; ``w`` is a weight for a convolution of 3 to 4 channels."""
    value = onnx.helper.make_tensor_value_info
    arrays = {"w": WEIGHT, **{name: np.asarray(array) for name, array in constants.items()}}
    read = {name for one in nodes for name in one.input}
    graph = onnx.helper.make_graph(
        list(nodes),
        "small",
        [value("x", onnx.TensorProto.FLOAT, SHAPE)],
        [value(name, onnx.TensorProto.FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items() if name in read],
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=9)
    return onnx.shape_inference.infer_shapes(made) if inferred else made


def part(made) -> Graph:
    return Graph(
        "forward", (TensorSpec(name="x", dtype="float32", shape=SHAPE),), (), None, (example(*SHAPE),), None, made
    )


def outputs(made, x=None):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": example(*SHAPE).numpy() * 2 + 1 if x is None else x})


def applied(made, name: str) -> int:
    """How often one rewrite applied, all outputs staying where they were."""
    before = made.SerializeToString()
    rewritten, found = apply(made, part(made), frozenset({name}))
    assert made.SerializeToString() == before, "what came in was touched"
    if rewritten.graph.output[0].type.tensor_type.HasField("shape"):
        onnx.checker.check_model(rewritten)
    for old, new in zip(outputs(made), outputs(rewritten), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-4)
    assert [one.name for one in found] in ([], [name])
    return found[0].count if found else 0


def pad(source="x", result="p", extra=(), **attributes):
    return node("Pad", [source, "pads", *extra], [result], **attributes)


PADS = np.array([0, 0, 1, 2, 0, 0, 0, 1], np.int64)
conv = node("Conv", ["p", "w"], ["y"], strides=[2, 2], pads=[1, 0, 0, 1])


@pytest.mark.parametrize(
    ("nodes", "constants", "count"),
    [
        pytest.param([pad(), conv], {}, 1, id="sides differ"),
        pytest.param([pad(extra=["v"]), conv], {"v": np.float32(0)}, 1, id="zero given"),
        pytest.param([pad(extra=["v"]), conv], {"v": np.zeros(1, np.float32)}, 1, id="zero given as a list"),
        pytest.param([pad(extra=["v"]), conv], {"v": np.float32(1)}, 0, id="ones"),
        pytest.param([pad(mode="reflect"), conv], {}, 0, id="reflected"),
        pytest.param([pad(), conv], {"pads": np.array([0, 0, -1, 0, 0, 0, 0, 0])}, 0, id="negative"),
        pytest.param(
            [pad(), conv],
            {"pads": np.array([0, 1, 0, 0, 0, 0, 0, 0]), "w": np.ones((4, 4, 3, 3), np.float32)},
            0,
            id="of channels",
        ),
        pytest.param(
            [pad(extra=["", "axes"]), conv],
            {"pads": np.array([1, 1, 0, 0, 1, 1, 0, 0]), "axes": np.array([2, 3, 0, 1])},
            0,
            id="axes in another order",
        ),
        pytest.param(
            [pad(extra=["", "axes"]), conv],
            {"pads": np.array([1, 1, 1, 1]), "axes": np.array([2, 3])},
            0,
            id="some axes",
        ),
        pytest.param([pad(), node("Conv", ["p", "w"], ["y"], auto_pad="SAME_UPPER")], {}, 0, id="automatic padding"),
        pytest.param([pad(), node("MaxPool", ["p"], ["y"], kernel_shape=[2, 2])], {}, 0, id="a pool behind it"),
        pytest.param(
            [
                pad(),
                conv,
                node("Conv", ["p", "w"], ["z"]),
                node("ReduceSum", ["z"], ["s"]),
                node("Add", ["y", "s"], ["t"]),
            ],
            {"outputs": ("t",)},
            1,
            id="two convolutions read it",
        ),
        pytest.param(
            [pad(), conv, node("ReduceSum", ["p"], ["s"]), node("Add", ["y", "s"], ["t"])],
            {"outputs": ("t",)},
            0,
            id="something else reads it too",
        ),
        pytest.param([pad(), conv], {"outputs": ("y", "p")}, 0, id="it is an output too"),
        pytest.param(
            [node("Pad", ["x"], ["p"], pads=[0, 0, 1, 1, 0, 0, 1, 1]), conv],
            {"opset": 9},
            0,
            id="of an old operator set",
        ),
        pytest.param(
            [node("Identity", ["pads"], ["computed"]), node("Pad", ["x", "computed"], ["p"]), conv],
            {},
            0,
            id="by a computed amount",
        ),
    ],
)
def test_fold_padding(nodes, constants, count):
    assert applied(model(*nodes, **{"pads": PADS, **constants}), "fold_padding") == count


@settings(max_examples=25, deadline=None)
@given(
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    own=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    stride=st.integers(1, 2),
)
def test_any_padding_is_folded(pads, own, stride):
    both = np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)
    made = model(pad(), node("Conv", ["p", "w"], ["y"], strides=[stride] * 2, pads=own), pads=both)
    assert applied(made, "fold_padding") == 1


def _branches(*reading: str):
    """``y``: one of some tensors, by a condition that a constant decides; the branches read them from outside."""
    graphs = [
        onnx.helper.make_graph(
            [node("ReduceSum", [name], [f"sum_{name}"], keepdims=0)],
            f"branch_{name}",
            [],
            [onnx.helper.make_tensor_value_info(f"sum_{name}", onnx.TensorProto.FLOAT, [])],
        )
        for name in reading
    ]
    return node("If", ["condition"], ["y"], then_branch=graphs[0], else_branch=graphs[1])


def test_what_a_branch_reads_stays():
    nodes = [pad(), node("Conv", ["p", "w"], ["c"]), node("Abs", ["x"], ["a"]), _branches("p", "a")]
    made = model(*nodes, pads=PADS, condition=np.array(False), outputs=("y", "c"))
    assert applied(made, "fold_padding") == 0
    nodes = [pad(), node("Conv", ["p", "w"], ["c"]), node("Abs", ["x"], ["a"]), _branches("c", "a")]
    made = model(*nodes, pads=PADS, condition=np.array(False))
    assert applied(made, "fold_padding") == 1


def quantizer(source: str, result: str, scale="s", zero="z"):
    return [
        node("QuantizeLinear", [source, scale, zero], [f"{result}_q"]),
        node("DequantizeLinear", [f"{result}_q", scale, zero], [result]),
    ]


@pytest.mark.parametrize(("other", "count"), [("s", 1), ("s2", 0)])
def test_fold_padding_through_a_quantizer_of_the_same_scale(other, count):
    nodes = [*quantizer("x", "d"), pad("d"), *quantizer("p", "e", other), node("Conv", ["e", "w"], ["y"])]
    constants = {"s": np.float32(0.05), "s2": np.float32(0.1), "z": np.int8(3)}
    assert applied(model(*nodes, pads=PADS, **constants), "fold_padding") == count


def test_fold_padding_of_a_float_through_the_quantizer_behind_it():
    nodes = [pad(), *quantizer("p", "e"), node("Conv", ["e", "w"], ["y"])]
    assert applied(model(*nodes, pads=PADS, s=np.float32(0.05), z=np.int8(3)), "fold_padding") == 1


def mean(axes, keepdims=1, source="x"):
    return node("ReduceMean", [source, "axes"], ["y"], keepdims=keepdims), {"axes": np.array(axes)}


@pytest.mark.parametrize(
    ("axes", "keepdims", "count"),
    [([2, 3], 1, 1), ([-1, -2], 1, 1), ([2, 3], 0, 0), ([1, 2], 1, 0), ([2], 1, 0), ([1, 2, 3], 1, 0)],
)
def test_mean_to_global_average_pool(axes, keepdims, count):
    reduced, constants = mean(axes, keepdims, "r")
    made = model(node("Relu", ["x"], ["r"]), reduced, **constants)
    assert applied(made, "mean_to_global_average_pool") == count


def test_a_mean_behind_a_quantizer_becomes_a_pool_too():
    reduced, constants = mean([2, 3], 1, "d")
    made = model(*quantizer("x", "d"), reduced, s=np.float32(0.05), z=np.int8(3), **constants)
    assert applied(made, "mean_to_global_average_pool") == 1


def test_a_mean_of_another_rank_stays():
    reduced, constants = mean([-1, -2], 1, "r")
    squeezed = [node("Relu", ["x"], ["a"]), node("Squeeze", ["a", "first"], ["r"])]
    assert applied(model(*squeezed, reduced, first=np.array([0]), **constants), "mean_to_global_average_pool") == 0
    made = model(*squeezed, reduced, first=np.array([0]), **constants)
    kept = [value for value in made.graph.value_info if value.name != "r"]
    del made.graph.value_info[:]
    made.graph.value_info.extend(kept)
    assert applied(made, "mean_to_global_average_pool") == 0


def test_a_mean_of_a_constant_and_one_whose_shape_is_not_known_stay():
    reduced, constants = mean([2, 3], 1, "k")
    constant = node("Constant", [], ["k"], value=onnx.numpy_helper.from_array(np.ones((1, 2, 3, 4), np.float32)))
    assert applied(model(constant, reduced, inferred=False, **constants), "mean_to_global_average_pool") == 0


def test_unsigned_activations():
    nodes = [
        *quantizer("x", "d"),
        node("DequantizeLinear", ["wq", "ws", "wz"], ["wd"], axis=0),
        node("Conv", ["d", "wd"], ["c"]),
        *quantizer("c", "y", "s2"),
    ]
    made = model(
        *nodes,
        s=np.float32(0.05),
        s2=np.float32(0.2),
        z=np.int8(-7),
        wq=np.clip(np.round(WEIGHT / 0.05), -127, 127).astype(np.int8),
        ws=np.full(4, 0.05, np.float32),
        wz=np.zeros(4, np.int8),
    )
    assert applied(made, "unsigned_activations") == 2
    rewritten, _ = apply(made, part(made), frozenset(TABLE))
    zeros = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in rewritten.graph.initializer
        if tensor.data_type == onnx.TensorProto.UINT8
    }
    assert [int(zero) for zero in zeros.values()] == [121, 121]
    for old, new in zip(outputs(made), outputs(rewritten), strict=True):
        np.testing.assert_array_equal(old, new)


def test_what_is_unsigned_already_stays():
    made = model(*quantizer("x", "y"), s=np.float32(0.05), z=np.uint8(100))
    assert applied(made, "unsigned_activations") == 0


def test_without_inputs_to_check_with_nothing_is_changed():
    made = model(pad(), conv, pads=PADS)
    blind = Graph("forward", (), (), None, (), None, made)
    rewritten, found = apply(made, blind, frozenset(TABLE))
    assert found == [] and rewritten == made


def test_none_of_them_applies_when_switched_off():
    made = model(pad(), conv, pads=PADS)
    rewritten, found = apply(made, part(made), frozenset())
    assert found == [] and rewritten == made


def test_a_graph_that_the_runtime_refuses():
    made = model(pad(), node("Conv", ["p", "w"], ["y"]), pads=PADS, w=np.ones((4, 5, 3, 3), np.float32), inferred=False)
    with pytest.raises(ModelError, match="ONNX Runtime refuses part 'forward': "):
        apply(made, part(made), frozenset(TABLE))
