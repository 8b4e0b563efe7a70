"""Static INT8 in the form that TensorRT takes: which tensors are quantized, and by what scales."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from _models import example, nn, seeded, tiny, torch
from onnx import TensorProto, helper, numpy_helper

from edge_sdk.errors import UnsupportedError
from edge_sdk.pipeline.capture import capture, flat_outputs
from edge_sdk.quantization.base import Data, Int8Rules, make_quantizer

RULES = Int8Rules(symmetric=True, only_inputs=True, half_scales=True)
_Q = torch.ops.quantized_decomposed
_aten = torch.ops.aten


class Residual(nn.Module):
    """Two residual blocks, one of them with a layer in its shortcut, a pool and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(c, 8, 3, padding=1) for c in (3, 8, 8))
        self.shortcut, self.last = nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(x) + x)
        x = torch.relu(self.third(x) + self.shortcut(x))
        return self.last(nn.functional.max_pool2d(x, 2).mean((2, 3)))


@pytest.fixture(scope="module")
def quantized():
    model = tiny(seeded(Residual), example(1, 3, 8, 8))
    done = make_quantizer("int8-static").apply_torch(capture(model), Data(model.samples("calibration"), rules=RULES))
    return model, done


def _nodes(module, target):
    return [node for node in module.graph.nodes if node.target is target]


def test_layers_and_the_other_side_of_additions_read_integers_and_nothing_else_does(quantized):
    (graph,) = quantized[1].graphs
    readers = {
        (user.target, place)
        for node in _nodes(graph.torch, _Q.dequantize_per_tensor.default)
        for user in node.users
        for place, argument in enumerate(user.args)
        if argument is node
    }
    # A layer's own result goes to the addition in float, where its kernel takes the addition in.
    assert readers == {(_aten.conv2d.default, 0), (_aten.linear.default, 0), (_aten.add.Tensor, 1)}
    quantizers = _nodes(graph.torch, _Q.quantize_per_tensor.default)
    assert len(quantizers) == 5  # the input, what two layers each read, the shortcut's result, the pooled
    before = [node.args[0].target for node in quantizers]
    assert _aten.conv2d.default in before and _aten.relu.default in before and _aten.max_pool2d.default not in before


def test_zero_stands_for_zero_and_each_scale_is_a_number_of_fp16(quantized):
    (graph,) = quantized[1].graphs
    for node in _nodes(graph.torch, _Q.quantize_per_tensor.default):
        _, scale, zero, low, high, _ = node.args
        assert (zero, low, high) == (0, -128, 127) and float(np.float16(scale)) == scale
    for node in _nodes(graph.torch, _Q.dequantize_per_channel.default):
        scales, zeros = (getattr(graph.torch, str(node.args[place].target)) for place in (1, 2))
        assert torch.equal(scales, scales.half().float()) and not zeros.any()


def test_it_computes_what_the_network_computes_and_says_that_its_results_are_floats(quantized):
    model, done = quantized
    (exact,), (graph,) = capture(model).graphs, done.graphs
    for sample in model.samples("reference"):
        x = torch.from_numpy(sample["forward"]["x"])
        (found,), (wanted,) = flat_outputs(graph.torch(x)), flat_outputs(exact.torch(x))
        assert torch.cosine_similarity(found, wanted) > 0.99
    assert done.quantization.options["outputs"] == "float"


def test_scales_of_small_weights_never_cut_the_range_off():
    from edge_sdk.quantization._observer import PerChannelCalibrator

    observer = PerChannelCalibrator(half=True)
    weight = torch.logspace(-8, 2, 64).reshape(64, 1) * torch.tensor([[-1.0, 0.7]])
    observer(weight)
    scale, _ = observer.calculate_qparams()
    assert torch.equal(scale, scale.half().float()) and (scale * 127 >= weight.abs().amax(1)).all()


def test_other_runtimes_still_get_zero_points():
    model = tiny(seeded(Residual), example(1, 3, 8, 8))
    done = make_quantizer("int8-static").apply_torch(capture(model), Data(model.samples("calibration")))
    zeros = {node.args[2] for node in _nodes(done.graphs[0].torch, _Q.quantize_per_tensor.default)}
    assert zeros - {0} and done.quantization.options["outputs"] == "int8"


def _file() -> onnx.ModelProto:
    random = np.random.default_rng(0)
    weight = numpy_helper.from_array(random.standard_normal((4, 3, 3, 3)).astype(np.float32), "w")
    bias = numpy_helper.from_array(np.ones(4, np.float32), "b")
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"], "conv"),
        helper.make_node("Sigmoid", ["h"], ["y"], "sigmoid"),
    ]
    spec = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [spec("x", TensorProto.FLOAT, [1, 3, 8, 8])], [spec("y", TensorProto.FLOAT, None)], [weight, bias]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_an_onnx_file_is_quantized_by_the_same_rules():
    samples = [{"m": {"x": example(1, 3, 8, 8).numpy()}}]
    found, skipped = make_quantizer("int8-static").apply_onnx(_file(), "m", Data(samples, rules=RULES))
    assert skipped == []
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in found.graph.initializer}
    ops = [node.op_type for node in found.graph.node]
    assert ops.count("QuantizeLinear") == 1 and ops.count("DequantizeLinear") == 2  # the input; it and the weight
    for node in found.graph.node:
        if node.op_type == "DequantizeLinear":
            zero = constants[node.input[2]]
            assert zero.dtype == np.int8 and not zero.any()


def test_lsq_is_refused_for_tensorrt_with_the_reason(tmp_path):
    from edge_sdk.pipeline.plan import plans
    from edge_sdk.schema import load_target

    checkpoint = tmp_path / "some.pt"
    checkpoint.write_bytes(b"")
    quantizer = make_quantizer("int8-lsq", {"checkpoint": str(checkpoint)})
    with pytest.raises(UnsupportedError, match="activations with a zero point, and TensorRT takes none"):
        plans(load_target("jetson-orin-nano"), tiny(nn.Identity(), example(1)), quantizer, "tensorrt")
