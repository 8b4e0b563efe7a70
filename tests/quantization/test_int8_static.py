"""Static INT8: the graph that it makes, on both runtimes the same, and what each of its options is for."""

from __future__ import annotations

import numpy as np
import pytest
from _models import IMAGE, conv_model, example, flat, nn, run, seeded, tiny, torch

import edge_sdk
from edge_sdk.backends.onnxruntime import OnnxRuntimeBackend
from edge_sdk.pipeline.capture import capture
from edge_sdk.pipeline.fx import constant
from edge_sdk.quantization.base import Data, make_quantizer

pytest.importorskip("torchao", reason="torchao is not installed: pip install 'edge-sdk[onnxruntime]'")
import edge_sdk.quantization._static  # noqa: E402,F401 - torchao registers the operators below

Q = torch.ops.quantized_decomposed
QUANTIZE, DEQUANTIZE = Q.quantize_per_tensor.default, Q.dequantize_per_tensor.default
PER_CHANNEL = Q.dequantize_per_channel.default


def quantized(model, calibration=None, method="minmax", **settings):
    """The graph of a model's one part with quantize and dequantize operators, its rewrites applied."""
    captured = OnnxRuntimeBackend().rewrite(capture(model), frozenset(OnnxRuntimeBackend.rewrites))
    data = Data(calibration=model.samples("calibration") if calibration is None else calibration)
    options = {"calibration": method} | {key: str(value) for key, value in settings.items()}
    quantizer = make_quantizer("int8-static", options)
    done = quantizer.apply_torch(captured, data)
    return done.graphs[0].torch, done.quantization


def calls(graph, target) -> list:
    return [node for node in graph.graph.nodes if node.target is target]


def scale_and_zero(node) -> tuple[float, int]:
    return float(node.args[1]), int(node.args[2])


def names(graph) -> set[str]:
    return {str(node.target) for node in graph.graph.nodes if node.op == "call_function"}


def mean_errors(graph, model, samples) -> np.ndarray:
    """How far the mean of each output channel is from that of FP32."""
    (part,) = model.parts()
    inputs = [torch.from_numpy(sample["forward"]["x"]) for sample in samples]
    with torch.no_grad():
        errors = torch.stack([graph(x) - part.module(x) for x in inputs])
    return errors.transpose(0, 2).flatten(1).mean(1).abs().numpy()


def test_both_runtimes_compute_the_same_integers():
    model = conv_model()
    samples = model.samples("reference")
    found = {
        name: flat(run(edge_sdk.compile(model, "desktop-cpu", runtime=name, quantize="int8-static"), samples))
        for name in ("executorch", "onnxruntime")
    }
    graph, _ = quantized(model)
    step, _ = scale_and_zero(calls(graph, QUANTIZE)[-1])
    assert abs(found["executorch"] - found["onnxruntime"]).max() <= 2.01 * step
    assert np.allclose(found["onnxruntime"] / step, np.round(found["onnxruntime"] / step), atol=1e-3)


def test_activation_functions_are_fused_into_the_range():
    graph, _ = quantized(conv_model())
    assert not names(graph) & {"aten.relu.default", "aten.hardtanh.default", "aten.batch_norm.default"}
    first, depthwise, *_ = calls(graph, torch.ops.aten.conv2d.default)
    for layer, largest in ((first, 6.0), (depthwise, float("inf"))):
        (quantize,) = layer.users
        scale, zero = scale_and_zero(quantize)
        assert zero == -128, "nothing below zero is left to represent"
        assert 0 < 255 * scale <= largest * 1.001


@pytest.mark.parametrize(
    ("activation", "low", "high"),
    [
        pytest.param(nn.functional.relu6, 0.0, 6.0, id="relu6"),
        pytest.param(nn.Hardtanh(), -1.0, 1.0, id="hardtanh"),
        pytest.param(lambda x: x.clamp(-0.5, 0.25), -0.5, 0.25, id="clamp"),
        pytest.param(lambda x: x.clamp(max=0.25), -10.0, 0.25, id="clamp above"),
        pytest.param(lambda x: x.clamp(min=0.5), 0.49, 10.0, id="clamp above zero"),
        pytest.param(nn.ReLU(inplace=True), 0.0, 10.0, id="relu in place"),
    ],
)
def test_every_way_to_cut_a_range_off(activation, low, high):
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return activation(self.layer(x))

    model = tiny(seeded(Cut), example(*IMAGE))
    graph, _ = quantized(model)
    x = torch.from_numpy(model.samples("reference")[0]["forward"]["x"])
    with torch.no_grad():
        found, expected = graph(x), model.parts()[0].module(x)
    assert low - 1e-6 <= found.min() and found.max() <= high + 1e-6
    assert nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.99


class Words(nn.Module):
    """A table of words, each with a score of every word to follow."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.scores = nn.Embedding(2000, 64), nn.Linear(64, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores(self.table(x))


@pytest.mark.parametrize("runtime", ["executorch", "onnxruntime"])
def test_the_table_of_an_embedding_is_stored_in_integers(runtime: str):
    model = tiny(seeded(Words), torch.tensor([3]))
    samples = model.samples("reference")
    whole, small = (
        edge_sdk.compile(model, "desktop-cpu", runtime=runtime, quantize=name) for name in ("fp32", "int8-static")
    )
    assert small.manifest.quantization.skipped == []
    assert small.manifest.size_bytes < 0.28 * whole.manifest.size_bytes
    found, expected = flat(run(small, samples)), flat(run(whole, samples))
    assert np.corrcoef(found, expected)[0, 1] > 0.999


def test_a_row_is_picked_out_of_integers_and_made_float_once():
    graph, _ = quantized(tiny(seeded(Words), torch.tensor([3])))
    (embedding,) = calls(graph, torch.ops.aten.embedding.default)
    assert constant(graph, embedding.args[0]).dtype == torch.int8
    assert [user.target for user in embedding.users] == [DEQUANTIZE]
    assert len(calls(graph, QUANTIZE)) == 1, "the scores alone"


def test_a_clamp_that_the_range_does_not_cover_stays():
    """The output of ReLU6 shares its scale with a tensor that is wider."""

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return torch.cat([nn.functional.relu6(self.a(x)), self.b(x)], 1)

    module = seeded(Wide)
    with torch.no_grad():
        module.b.weight *= 50
    model = tiny(module, example(*IMAGE))
    graph, _ = quantized(model)
    assert "aten.hardtanh.default" in names(graph)
    sample = torch.from_numpy(model.samples("calibration")[0]["forward"]["x"]) * 5
    with torch.no_grad():
        assert graph(sample)[:, :4].min() >= 0


def test_weights_have_a_scale_for_each_channel_and_activations_have_one():
    module = seeded(lambda: nn.Conv2d(3, 4, 3))
    with torch.no_grad():
        module.weight *= torch.tensor([0.01, 0.1, 1.0, 10.0]).reshape(-1, 1, 1, 1)
    graph, quantization = quantized(tiny(module, example(*IMAGE)), bias_correction=False)
    (weight,) = calls(graph, PER_CHANNEL)
    scales = getattr(graph, str(weight.args[1].target))
    torch.testing.assert_close(scales.float(), module.weight.detach().abs().amax((1, 2, 3)) / 127)
    zeros = getattr(graph, str(weight.args[2].target))
    assert not zeros.any()
    assert quantization.options["bias_correction"] is False and quantization.options["calibration_samples"] == 16


class Moves(nn.Module):
    """Operators that only move values, between two convolutions."""

    def __init__(self, move, channels=4):
        super().__init__()
        self.a, self.b, self.move = nn.Conv2d(3, 4, 1), nn.Conv2d(channels, 4, 1), move

    def forward(self, x):
        return self.b(self.move(self.a(x)))


@pytest.mark.parametrize(
    ("move", "channels"),
    [
        pytest.param(lambda x: nn.functional.pad(x, (0, 1, 0, 1)), 4, id="pad"),
        pytest.param(lambda x: nn.functional.max_pool2d(x, 2), 4, id="max pool"),
        pytest.param(lambda x: x.view(1, 8, 8, 16), 8, id="view"),
        pytest.param(lambda x: x.transpose(2, 3), 4, id="transpose"),
        pytest.param(lambda x: torch.cat([x, x * 0.5], 1), 8, id="cat"),
    ],
)
def test_operators_that_move_values_share_the_scale(move, channels):
    graph, _ = quantized(tiny(seeded(lambda: Moves(move, channels)), example(*IMAGE)))
    first, second = calls(graph, torch.ops.aten.conv2d.default)
    (behind,) = first.users
    assert behind.target is QUANTIZE
    before = second.args[0]
    assert before.target is DEQUANTIZE
    assert scale_and_zero(behind) == scale_and_zero(before)


def test_padding_with_ones_does_not_share_the_scale():
    graph, _ = quantized(
        tiny(seeded(lambda: Moves(lambda x: nn.functional.pad(x, (1, 1), value=99.0))), example(*IMAGE))
    )
    first, second = calls(graph, torch.ops.aten.conv2d.default)
    (behind,) = first.users
    assert scale_and_zero(behind) != scale_and_zero(second.args[0])


def test_bias_correction_brings_the_mean_of_each_channel_back():
    model = tiny(seeded(lambda: nn.Conv2d(8, 32, 3, groups=8)), example(1, 8, 16, 16))
    with torch.no_grad():
        model.parts()[0].module.weight += 0.3  # weights off zero shift the mean when rounded
    calibration = [{"forward": {"x": sample["forward"]["x"] + 1}} for sample in model.samples("calibration")]
    plain, _ = quantized(model, calibration, bias_correction=False)
    corrected, _ = quantized(model, calibration, bias_correction=True)
    before, after = (mean_errors(graph, model, calibration).mean() for graph in (plain, corrected))
    assert after < 0.3 * before


def test_bias_correction_gives_a_layer_without_bias_one():
    model = tiny(seeded(lambda: nn.Conv2d(8, 8, 3, groups=8, bias=False)), example(1, 8, 16, 16))
    graph, _ = quantized(model)
    (layer,) = calls(graph, torch.ops.aten.conv2d.default)
    assert layer.args[2] is not None


def test_mse_leaves_outliers_out_and_min_max_does_not():
    model = tiny(nn.Linear(64, 8), example(1, 64))
    calibration = model.samples("calibration")
    calibration[0]["forward"]["x"][0, 0] = 1000.0
    scales = {}
    for method in ("minmax", "mse"):
        graph, _ = quantized(model, calibration, method)
        scales[method], _ = scale_and_zero(calls(graph, QUANTIZE)[0])
    assert scales["minmax"] == pytest.approx(1000 / 255, rel=0.02)
    assert scales["mse"] < scales["minmax"]


@pytest.mark.parametrize("method", ["minmax", "mse", "percentile"])
@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.zeros((1, 8), np.float32), id="all zero"),
        pytest.param(np.full((1, 8), 7.5, np.float32), id="one positive value"),
        pytest.param(np.full((1, 8), -1e-20, np.float32), id="tiny"),
        pytest.param(np.linspace(3, 4, 8, dtype=np.float32)[None], id="far from zero"),
    ],
)
def test_ranges_at_the_edge(method, values):
    """Zero is always exact, and what was seen is represented within a step."""
    model = tiny(seeded(lambda: nn.Linear(8, 8)), example(1, 8))
    graph, _ = quantized(model, [{"forward": {"x": values}}] * 3, method)
    scale, zero = scale_and_zero(calls(graph, QUANTIZE)[0])
    assert scale > 0 and -128 <= zero <= 127
    seen = (np.clip(np.round(values / scale) + zero, -128, 127) - zero) * scale
    assert abs(seen - values).max() <= max(scale, 0.1 * abs(values).max())


def test_one_dimensional_inputs_and_recurring_layers():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 16)

        def forward(self, x):
            return self.layer(torch.relu(self.layer(x)))

    model = tiny(seeded(Twice), example(16))
    graph, quantization = quantized(model)
    assert quantization.skipped == []
    sample = torch.from_numpy(model.samples("reference")[0]["forward"]["x"])
    with torch.no_grad():
        assert nn.functional.cosine_similarity(graph(sample), model.parts()[0].module(sample), dim=0) > 0.99


def test_convolutions_without_a_batch_stay_in_float_and_are_listed():
    model = tiny(seeded(lambda: nn.Conv2d(3, 4, 3)), example(3, 8, 8))
    graph, quantization = quantized(model)
    (left,) = quantization.skipped
    assert left.reason == "its input has no batch dimension"
    assert not calls(graph, QUANTIZE)
