"""AdaRound: learned rounding gives less error, stays on the grid, and becomes the very same integers."""

from __future__ import annotations

import numpy as np
import pytest
from _models import IMAGE, example, nn, seeded, tiny, torch

from edge_sdk.pipeline.capture import capture
from edge_sdk.quantization.base import Data, make_quantizer

pytest.importorskip("torchao", reason="torchao is not installed: pip install 'edge-sdk[onnxruntime]'")
from edge_sdk.quantization import _static  # noqa: E402
from edge_sdk.quantization._adaround import adaround  # noqa: E402

PER_CHANNEL = torch.ops.quantized_decomposed.dequantize_per_channel.default


def smooth(model, count=48, seed=5):
    """Inputs whose neighbouring values are alike, as in a photo, and that 8 bits represent exactly."""
    random = np.random.default_rng(seed)
    shape = model.parts()[0].example_inputs[0].shape
    found = []
    for _ in range(count):
        x = np.round(np.cumsum(random.standard_normal(shape), -1) * 16).clip(-128, 127)
        x.flat[0], x.flat[1] = -128, 127
        found.append({"forward": {"x": (x / 64).astype(np.float32)}})
    return found


def quantized(model, inputs, **settings):
    quantizer = make_quantizer("int8-static", {key: str(value) for key, value in settings.items()})
    return quantizer.apply_torch(capture(model), Data(calibration=inputs)).graphs[0].torch


def noise(graph, model, inputs) -> float:
    xs = [torch.from_numpy(sample["forward"]["x"]) for sample in inputs]
    with torch.no_grad():
        return sum(float((graph(x) - model.parts()[0].module(x)).square().sum()) for x in xs)


def integers(graph) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each weight's integers with its scales."""
    nodes = [node for node in graph.graph.nodes if node.target is PER_CHANNEL]
    return [tuple(getattr(graph, str(node.args[i].target)) for i in (0, 1)) for node in nodes]


LAYERS = [
    pytest.param(lambda: nn.Conv2d(3, 8, 3), IMAGE, id="convolution"),
    pytest.param(lambda: nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(1, 2)), IMAGE, id="strides and padding"),
    pytest.param(lambda: nn.Conv2d(3, 8, 3, dilation=2, padding=1), IMAGE, id="dilation"),
    pytest.param(lambda: nn.Conv2d(8, 8, 5, groups=4), (1, 8, 16, 16), id="groups"),
    pytest.param(lambda: nn.Conv2d(8, 8, 5, groups=8, bias=False), (1, 8, 16, 16), id="depthwise without a bias"),
    pytest.param(lambda: nn.Conv2d(3, 8, 3), (2, 3, 16, 16), id="batch"),
    pytest.param(lambda: nn.Conv1d(4, 8, 5, stride=2, padding=2), (1, 4, 64), id="1d"),
    pytest.param(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), IMAGE, id="with ReLU"),
    pytest.param(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU6()), IMAGE, id="with ReLU6"),
    pytest.param(lambda: nn.Linear(64, 8), (16, 64), id="linear"),
    pytest.param(lambda: nn.Linear(64, 8), (1, 16, 64), id="linear of tokens"),
]


@pytest.mark.parametrize(("build", "shape"), LAYERS)
def test_less_error_is_left_on_inputs_that_were_not_learned_from(build, shape):
    model = tiny(seeded(build), example(*shape))
    (graph,) = capture(model).graphs
    inputs = _static.inputs_of(graph, smooth(model))
    prepared = _static.prepare(graph, "minmax")
    _static.calibrate(prepared, inputs)
    (left,) = adaround(prepared, inputs, 100).values()
    assert left < 0.9


def test_the_outputs_are_nearer_to_full_precision():
    """One large weight a channel makes the grid coarse, so that it is the weights that cost."""

    def build():
        network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3))
        with torch.no_grad():
            for layer in (network[0], network[2]):
                layer.weight[:, 0, 0, 0] *= 10
        return network

    model = tiny(seeded(build), example(*IMAGE))
    inputs, others = smooth(model), smooth(model, 16, seed=6)
    nearest, learned = (quantized(model, inputs, adaround=iterations) for iterations in (0, 200))
    assert noise(learned, model, others) < 0.7 * noise(nearest, model, others)


def test_weights_go_up_or_down_and_become_the_very_same_integers():
    model = tiny(seeded(lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3))), example(*IMAGE))
    (graph,) = capture(model).graphs
    floats = [parameter.detach() for parameter in graph.torch.parameters() if parameter.dim() == 4]
    inputs = _static.inputs_of(graph, smooth(model))
    prepared = _static.prepare(graph, "minmax")
    _static.calibrate(prepared, inputs)
    adaround(prepared, inputs, 100)
    rounded = [parameter.detach().clone() for parameter in prepared.parameters() if parameter.dim() == 4]
    moved = 0
    for before, after, (stored, scales) in zip(floats, rounded, integers(_static.convert(prepared)), strict=True):
        scale = scales.float().reshape(-1, 1, 1, 1)
        torch.testing.assert_close(scale.flatten(), before.abs().amax((1, 2, 3)) / 127)
        assert stored.dtype is torch.int8 and torch.equal(stored, torch.round(after / scale).to(torch.int8))
        torch.testing.assert_close(stored * scale, after, rtol=1e-5, atol=0)
        assert ((after - before).abs() < 1.0001 * scale).all()
        moved += int((stored != torch.round(before / scale)).sum())
    assert moved > 20, "some are rounded to the one further away"


def test_the_same_inputs_give_the_same_integers():
    model = tiny(seeded(lambda: nn.Conv2d(3, 8, 3)), example(*IMAGE))
    (first, _), (second, _) = (integers(quantized(model, smooth(model), adaround=50))[0] for _ in range(2))
    assert torch.equal(first, second)


def test_layers_in_float_and_shared_weights_stay_as_they_are():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.kept, self.shared, self.last = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 8)

        def forward(self, x):
            return self.last(self.shared(torch.relu(self.shared(torch.relu(self.kept(x))))))

    model = tiny(seeded(Net), example(4, 16))
    (graph,) = capture(model).graphs
    inputs = _static.inputs_of(graph, smooth(model))
    prepared = _static.prepare(graph, "minmax", frozenset({"kept"}))
    _static.calibrate(prepared, inputs)
    before = {name: value.clone() for name, value in prepared.named_parameters()}
    assert len(adaround(prepared, inputs, 20)) == 1
    changed = [name for name, value in prepared.named_parameters() if not torch.equal(value, before[name])]
    assert changed == ["last.weight"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_inputs_do(count):
    model = tiny(seeded(lambda: nn.Linear(16, 8)), example(1, 16))
    graph = quantized(model, smooth(model, count), adaround=20)
    assert noise(graph, model, smooth(model, count)) >= 0


def test_weights_and_inputs_of_zero_change_nothing():
    def build():
        layer = nn.Linear(16, 8)
        with torch.no_grad():
            layer.weight[0] = 0.0
        return layer

    model = tiny(seeded(build), example(1, 16))
    zeros = [{"forward": {"x": np.zeros((1, 16), np.float32)}} for _ in range(8)]
    stored, scales = integers(quantized(model, zeros, adaround=20))[0]
    weight = model.parts()[0].module.weight.detach()
    assert not stored[0].any()
    assert torch.equal(stored[1:], torch.round(weight / scales.float()[:, None])[1:].to(torch.int8))
