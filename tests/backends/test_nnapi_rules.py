"""The NNAPI provider's rules, one by one, on graphs made by hand."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'edge-sdk[onnxruntime]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'edge-sdk[onnxruntime]'")

from edge_sdk.backends.onnxruntime.nnapi import View, cut  # noqa: E402
from edge_sdk.backends.onnxruntime.nnapi._rules import RULES  # noqa: E402

node = onnx.helper.make_node
FLOAT, UINT8, INT8 = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8, onnx.TensorProto.INT8
IMAGE = [1, 4, 8, 8]
RANDOM = np.random.default_rng(0)
W = RANDOM.integers(-127, 128, (6, 4, 3, 3)).astype(np.int8)


def model(*nodes, shape=IMAGE, inputs=("x",), outputs=("y",), opset=18, dtype=FLOAT, **constants):
    """A graph of some nodes; what they read and no node makes is an input or a constant."""
    value = onnx.helper.make_tensor_value_info
    read = {name for one in nodes for name in one.input}
    graph = onnx.helper.make_graph(
        list(nodes),
        "small",
        [value(name, dtype, shape) for name in inputs],
        [value(name, FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items() if name in read],
    )
    opsets = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("com.microsoft", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)


def left(made, level=34) -> dict[str, str]:
    """Operator to the reason why it stays on the CPU."""
    found = cut(View(made), level)
    return {found.view.nodes[unit.target].op_type: reason for unit, reason in found.left}


SCALE, ZERO = np.float32(0.05), np.uint8(100)


def quantized(*operator, inputs=("x",), zero=ZERO, behind=None, scale=SCALE, **constants):
    """An operator between quantizers: each input quantized, ``y`` dequantized from its output ``r``."""
    nodes = []
    for name in inputs:
        nodes += [
            node("QuantizeLinear", [name, "s", "z"], [f"{name}_q"]),
            node("DequantizeLinear", [f"{name}_q", "s", "z"], [f"{name}_d"]),
        ]
    ends = ["s2", "z2"] if behind is not None else ["s", "z"]
    nodes += [
        *operator,
        node("QuantizeLinear", ["r", *ends], ["r_q"]),
        node("DequantizeLinear", ["r_q", *ends], ["y"]),
    ]
    other = {} if behind is None else {"s2": behind[0], "z2": behind[1]}
    return model(*nodes, inputs=inputs, s=scale, z=zero, **other, **constants)


def weights(w=W, channels=True, zero=0, kind=np.int8, axis=0):
    """A dequantized weight ``w`` and its constants."""
    scale = np.full(w.shape[axis], 0.01, np.float32) if channels else np.float32(0.01)
    dequantize = node("DequantizeLinear", ["wq", "ws", "wz"], ["w"], **({"axis": axis} if channels else {}))
    return dequantize, {"wq": w.astype(kind), "ws": scale, "wz": np.full(np.shape(scale), zero, kind)}


def test_a_quantized_convolution_is_taken_whole():
    dequantize, constants = weights()
    made = quantized(dequantize, node("Conv", ["x_d", "w"], ["r"]), **constants)
    found = cut(View(made), 34)
    assert found.left == () and len(found.pieces) == 1
    (conv,) = [unit for unit in found.pieces[0] if unit.grouped]
    assert len(conv.before) == 2 and len(conv.behind) == 1


BIAS = {"b": np.zeros(6, np.int32), "bs": np.full(6, 5e-4, np.float32), "bz": np.zeros(6, np.int32)}
WITH_BIAS = [node("DequantizeLinear", ["b", "bs", "bz"], ["bd"], axis=0), node("Conv", ["x_d", "w", "bd"], ["r"])]
CONV = node("Conv", ["x_d", "w"], ["r"])


@pytest.mark.parametrize(
    ("form", "options", "level", "reason"),
    [
        ({}, {}, 34, None),
        ({"channels": False}, {}, 34, None),
        ({"kind": np.uint8, "channels": False, "zero": 128}, {}, 34, None),
        ({"zero": 3}, {}, 34, "its weight is INT8 with a zero point other than 0"),
        ({}, {}, 28, "its weight has a scale for each channel, which needs Android API level 29"),
        ({"kind": np.uint8, "zero": 128}, {}, 34, "its weight has a scale for each channel; only INT8 weights may"),
        (
            {"axis": 1},
            {},
            34,
            "its weight has 4 scales for 6 output channels; they belong to its first dimension",
        ),
    ],
)
def test_weights_of_a_quantized_convolution(form, options, level, reason):
    dequantize, constants = weights(**form)
    found = left(quantized(dequantize, CONV, **constants, **options), level)
    assert found.get("Conv") == reason


def test_signed_activations_are_not_taken():
    dequantize, constants = weights()
    found = left(quantized(dequantize, CONV, zero=np.int8(0), **constants))
    assert found["Conv"] == "its inputs are INT8 and INT8; NNAPI takes UINT8 activations"
    assert found["QuantizeLinear"] == "output 0 is INT8; NNAPI takes UINT8"
    assert found["DequantizeLinear"] == "input 0 is INT8; NNAPI takes UINT8"


def test_a_bias_of_32_bits_belongs_to_the_group():
    dequantize, constants = weights()
    found = cut(View(quantized(dequantize, *WITH_BIAS, **constants, **BIAS)), 34)
    assert found.left == () and [len(unit.before) for unit in found.pieces[0] if unit.grouped] == [3]


def test_computed_scales_are_not_taken():
    nodes = [node("Abs", ["k"], ["s"]), node("QuantizeLinear", ["x", "s", "z"], ["q"])]
    nodes.append(node("DequantizeLinear", ["q", "t", "z"], ["y"]))
    found = left(model(*nodes, inputs=("x", "k"), shape=[1], z=np.uint8(0), t=np.float32(1)))
    assert found == {"QuantizeLinear": "output 0 has a scale that is computed; it must be a constant"}


F = {"w": RANDOM.standard_normal((6, 4, 3, 3)).astype(np.float32)}
G = {"w": RANDOM.standard_normal((5, 8)).astype(np.float32), "c": np.zeros(5, np.float32)}
AXES = {"a": np.array([2, 3])}


@pytest.mark.parametrize(
    ("nodes", "constants", "reason"),
    [
        ([node("Conv", ["x", "w"], ["y"])], F, None),
        ([node("Conv", ["x", "k"], ["y"])], {"inputs": ("x", "k"), "shape": [4, 4, 3, 3]}, "its weight must be"),
        ([node("Conv", ["x", "w"], ["y"])], {"w": F["w"][..., 0], "shape": [1, 4, 8]}, "convolution of 1 dimensions"),
        ([node("Conv", ["x", "w"], ["y"], dilations=[2, 2])], F, None),
        (
            [node("Conv", ["x", "w"], ["y"], dilations=[2, 2], group=2)],
            {"w": F["w"][:, :2]},
            "is dilated and grouped at once",
        ),
        ([node("Gemm", ["x", "w", "c"], ["y"], transB=1)], {**G, "shape": [2, 8]}, None),
        ([node("Gemm", ["x", "w"], ["y"], transB=1, alpha=2.0)], {**G, "shape": [2, 8]}, "has transA, alpha or beta"),
        (
            [node("Gemm", ["x", "k"], ["y"])],
            {"inputs": ("x", "k"), "shape": [8, 8]},
            "its second factor must be a constant, or transposed",
        ),
        ([node("Gemm", ["x", "k"], ["y"], transB=1)], {"inputs": ("x", "k"), "shape": [8, 8]}, None),
        (
            [node("Gemm", ["x", "w", "c"], ["y"], transB=1)],
            {**G, "c": np.float32(1), "shape": [2, 8]},
            "its bias is of shape []",
        ),
        ([node("MatMul", ["x", "w"], ["y"])], {"w": G["w"].T, "shape": [2, 8]}, None),
        ([node("MatMul", ["x", "w"], ["y"])], {"w": G["w"].T, "shape": [1, 2, 8]}, "multiplies 3 by 2 dimensions"),
        ([node("MatMul", ["x", "k"], ["y"])], {"inputs": ("x", "k"), "shape": [2, 8, 8]}, None),
        ([node("MatMul", ["x", "k"], ["y"])], {"inputs": ("x", "k"), "shape": [8, 8]}, "must be a constant"),
        ([node("Add", ["x", "k"], ["y"])], {"inputs": ("x", "k")}, None),
        ([node("Add", ["x", "k"], ["y"])], {"inputs": ("x", "k"), "shape": [1] * 5}, "has an input of 5 dimensions"),
        ([node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2])], {}, None),
        ([node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], ceil_mode=1)], {}, "ceil_mode"),
        ([node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2])], {}, "gives the places of the maxima too"),
        ([node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2])], {}, "is dilated"),
        ([node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], count_include_pad=1)], {}, "count_include_pad"),
        ([node("GlobalAveragePool", ["x"], ["y"])], {}, None),
        ([node("GlobalMaxPool", ["x"], ["y"])], {"shape": [1, 4, 8]}, "has an input of 3 dimensions; NNAPI takes 4"),
        ([node("Softmax", ["x"], ["y"])], {"shape": [1, 8]}, None),
        ([node("Softmax", ["x"], ["y"])], {"shape": [1, 8, 8]}, "has an input of 3 dimensions; NNAPI takes 2 or 4"),
        ([node("Reshape", ["x", "s"], ["y"])], {"s": np.array([1, -1])}, "leaves an operator alone that only copies"),
        ([node("Relu", ["x"], ["h"]), node("Reshape", ["h", "s"], ["y"])], {"s": np.array([1, -1])}, None),
        (
            [node("Shape", ["x"], ["s"]), node("Reshape", ["x", "s"], ["y"])],
            {},
            "its new shape must be a constant",
        ),
        ([node("Transpose", ["x"], ["y"], perm=[0, 2, 3, 1])], {}, None),
        ([node("Transpose", ["x"], ["y"])], {"shape": [1] * 5}, "has an input of 5 dimensions; NNAPI takes 1 to 4"),
        ([node("Clip", ["x", "l", "h"], ["y"])], {"l": np.float32(0), "h": np.float32(6)}, None),
        ([node("Clip", ["x", "l", "h"], ["y"])], {"l": np.float32(0), "h": np.float32(4)}, "cuts at other bounds"),
        ([node("Concat", ["x", "k"], ["y"], axis=1)], {"inputs": ("x", "k")}, None),
        ([node("Split", ["x"], ["y", "z"], axis=1, num_outputs=2)], {}, None),
        ([node("Split", ["x", "s"], ["y", "z"], axis=1)], {"s": np.array([1, 3])}, "its pieces are not of one size"),
        ([node("Pad", ["x", "p"], ["y"])], {"p": np.array([0, 0, 1, 1] * 2)}, None),
        ([node("Pad", ["x", "p"], ["y"], mode="reflect")], {"p": np.array([0, 0, 1, 1] * 2)}, "has mode reflect"),
        ([node("Pad", ["x", "p"], ["y"])], {"p": np.array([0, 0, -1, 0] * 2)}, "not negative"),
        ([node("Gather", ["x", "i"], ["y"], axis=1)], {"i": np.array([0, 2])}, None),
        ([node("Slice", ["x", "b", "e"], ["y"])], {"b": np.array([0]), "e": np.array([1])}, None),
        ([node("ReduceMean", ["x", "a"], ["y"])], AXES, None),
        ([node("ReduceMean", ["x", "a"], ["y"], noop_with_empty_axes=1)], AXES, "has noop_with_empty_axes"),
        ([node("Cast", ["x"], ["y"], to=onnx.TensorProto.INT32)], {}, None),
        (
            [node("Cast", ["x"], ["y"], to=onnx.TensorProto.FLOAT16)],
            {},
            "casts to FLOAT16; NNAPI takes FLOAT and INT32",
        ),
        ([node("Max", ["x"], ["y"])], {}, "has 1 input; NNAPI takes 2"),
        ([node("Max", ["x", "m"], ["y"])], {"m": np.zeros(1, np.float32)}, None),
        ([node("DepthToSpace", ["x"], ["y"], blocksize=2, mode="CRD")], {}, "has mode CRD; NNAPI takes DCR"),
        ([node("LRN", ["x"], ["y"], size=3)], {"shape": [1, 4, 8]}, "has an input of 3 dimensions"),
        ([node("BatchNormalization", ["x", *"gbmv"], ["y"])], dict.fromkeys("gbmv", np.ones(4, np.float32)), None),
        ([node("Relu", ["x"], ["y"])], {"dtype": onnx.TensorProto.FLOAT16}, "has FLOAT16 input; NNAPI takes FLOAT"),
        ([node("Relu", ["x"], ["y"])], {"shape": [1, "n"]}, "has an input without a fixed shape"),
        ([node("Erf", ["x"], ["y"])], {}, "the NNAPI provider has no such operator"),
        ([node("Add", ["x", "k"], ["y"], axis=0)], {"inputs": ("x", "k"), "opset": 6}, "is of operator set 6"),
    ],
)
def test_float_operators(nodes, constants, reason):
    found = left(model(*nodes, **constants)).get(nodes[-1].op_type)
    assert found is None if reason is None else found is not None and reason in found


def resize(**attributes):
    return [node("Resize", ["x", "", "s"], ["y"], **attributes)]


@pytest.mark.parametrize(
    ("attributes", "scales", "level", "reason"),
    [
        ({"mode": "linear"}, [1, 1, 2, 2], 34, None),
        ({"mode": "linear"}, [1, 1, 2, 2], 29, "has coordinates half_pixel, which need NNAPI feature level 30"),
        ({"mode": "linear"}, [1, 1, 2, 2], 28, "needs NNAPI feature level 29, the target has 28"),
        ({"mode": "cubic"}, [1, 1, 2, 2], 34, "has mode cubic"),
        ({"mode": "nearest"}, [1, 1, 2, 2], 34, "is nearest, which NNAPI takes with coordinates asymmetric"),
        ({"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, [1, 1, 2, 2], 34, None),
        ({"mode": "linear"}, [1, 2, 2, 2], 34, "resizes the batch or the channels"),
        ({"mode": "linear"}, [1, 1, 0.3, 0.5], 34, "shrinks by a factor that does not divide the size"),
        ({"mode": "linear", "antialias": 1}, [1, 1, 2, 2], 34, "antialias"),
    ],
)
def test_resize(attributes, scales, level, reason):
    found = left(model(*resize(**attributes), s=np.array(scales, np.float32)), level).get("Resize")
    assert found is None if reason is None else found is not None and reason in found


@pytest.mark.parametrize(
    ("operator", "behind", "reason"),
    [
        (node("AveragePool", ["x_d"], ["r"], kernel_shape=[2, 2]), None, None),
        (
            node("AveragePool", ["x_d"], ["r"], kernel_shape=[2, 2]),
            (np.float32(0.04), np.uint8(100)),
            "its input and output differ in scale or zero point",
        ),
        (node("GlobalAveragePool", ["x_d"], ["r"]), None, "takes it in float, not as a group with its quantizers"),
        (node("MaxPool", ["x_d"], ["r"], kernel_shape=[2, 2]), None, "takes it in float, not as a group"),
        (node("Sigmoid", ["x_d"], ["r"]), None, "takes it in float, not as a group with its quantizers"),
        (node("Softmax", ["x_d"], ["r"], axis=1), (np.float32(1 / 256), np.uint8(0)), None),
        (node("Softmax", ["x_d"], ["r"], axis=1), (np.float32(1 / 255), np.uint8(0)), "its output's scale must be"),
        (node("Transpose", ["x_d"], ["r"], perm=[0, 2, 3, 1]), None, None),
        (node("Flatten", ["x_d"], ["r"]), None, "takes it in float, not as a group"),
    ],
)
def test_groups_of_one_input(operator, behind, reason):
    found = left(quantized(operator, behind=behind)).get(operator.op_type)
    assert found is None if reason is None else found is not None and reason in found


@pytest.mark.parametrize("op", ["Add", "Mul", "Sub", "Concat"])
def test_groups_of_two_inputs(op):
    axis = {"axis": 1} if op == "Concat" else {}
    made = quantized(node(op, ["x_d", "k_d"], ["r"], **axis), inputs=("x", "k"))
    reason = "the NNAPI provider takes it in float, not as a group with its quantizers" if op == "Sub" else None
    assert left(made).get(op) == reason


def gemm(w, turned: bool, channels=True, axis=0):
    dequantize, constants = weights(w, channels, axis=axis)
    operator = node("Gemm", ["x_d", "w"], ["r"], transB=int(turned))
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["x_q"]),
        node("DequantizeLinear", ["x_q", "s", "z"], ["x_d"]),
        dequantize,
        operator,
        node("QuantizeLinear", ["r", "s", "z"], ["r_q"]),
        node("DequantizeLinear", ["r_q", "s", "z"], ["y"]),
    ]
    return model(*nodes, shape=[2, 4], s=np.float32(0.05), z=np.uint8(9), **constants)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (gemm(W[:, :, 0, 0].T.copy(), False, channels=False), None),
        (
            gemm(W[:, :, 0, 0], True, channels=False),
            "the provider cannot register an INT8 weight that is not to be transposed",
        ),
        (
            gemm(W[:, :, 0, 0], True),
            "NNAPI's fully connected layer takes no weight with a scale for each channel",
        ),
    ],
)
def test_products_that_the_check_lets_pass_and_the_builder_does_not(made, reason):
    assert left(made).get("Gemm") == reason


def test_a_dequantizer_with_two_readers_forms_no_group():
    dequantize, constants = weights()
    made = quantized(dequantize, CONV, node("Erf", ["x_d"], ["e"]), **constants)
    units = {unit.target for piece in cut(View(made), 34).pieces for unit in piece if unit.grouped}
    assert units == set()


@pytest.mark.parametrize(("zero", "grouped"), [(np.uint8(0), True), (np.uint8(7), False)])
def test_a_relu_that_the_quantizer_makes_needless_belongs_to_the_group(zero, grouped):
    dequantize, constants = weights()
    operators = [dequantize, node("Conv", ["x_d", "w"], ["c"]), node("Relu", ["c"], ["r"])]
    made = quantized(*operators, zero=zero, **constants)
    assert any(unit.grouped for piece in cut(View(made), 34).pieces for unit in piece) == grouped
    assert left(made).get("Conv") == (None if grouped else "its weight must be a constant")


def test_the_table_has_the_operators_of_the_usability_checkers_list():
    from pathlib import Path

    import onnxruntime.tools.mobile_helpers as helpers

    text = (Path(helpers.__file__).parent / "nnapi_supported_ops.md").read_text()
    listed = {
        line.split("|")[1].partition(":")[2] for line in text.splitlines() if line.startswith("|") and ":" in line
    }
    assert listed - {""} - set(RULES) == set()
    assert set(RULES) - listed == {"QLinearMul"}  # of which the list forgot one
