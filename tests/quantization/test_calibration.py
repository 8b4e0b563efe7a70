"""How activations get their range, and the choice among the ways by measurement."""

from __future__ import annotations

import numpy as np
import pytest
from _models import IMAGE, conv_model, example, mlp_model, nn, seeded, tiny, torch

from edge_sdk.errors import UnsupportedError
from edge_sdk.pipeline.capture import capture
from edge_sdk.quantization.base import Data, make_quantizer

pytest.importorskip("torchao", reason="torchao is not installed: pip install 'edge-sdk[onnxruntime]'")
import edge_sdk.quantization._static  # noqa: E402,F401 - torchao registers the operators below

QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
RANDOM = np.random.default_rng(0).standard_normal((8, 1, 4096)).astype(np.float32)


def quantized(model, inputs=None, /, **settings):
    quantizer = make_quantizer("int8-static", {key: str(value) for key, value in settings.items()})
    data = Data(calibration=model.samples("calibration") if inputs is None else inputs)
    done = quantizer.apply_torch(capture(model), data)
    return done.graphs[0].torch, done.quantization


def ranges(graph) -> list[tuple[float, int]]:
    """Scale and zero point of each activation, in order."""
    nodes = [node for node in graph.graph.nodes if node.target is QUANTIZE]
    return [(float(node.args[1]), int(node.args[2])) for node in nodes]


def range_of(values: np.ndarray, **settings) -> tuple[float, int]:
    """What a tensor's calibration gives for values ``[samples, 1, n]``."""
    model = tiny(seeded(lambda: nn.Linear(values.shape[2], 2)), example(1, values.shape[2]))
    graph, _ = quantized(model, [{"forward": {"x": one}} for one in values], **settings)
    return ranges(graph)[0]


def squared_error(values: np.ndarray, scale: float, zero: int) -> float:
    levels = np.clip(np.round(values / scale) + zero, -128, 127)
    return float((((levels - zero) * scale - values) ** 2).mean())


@pytest.mark.parametrize("share", [99.99, 99.0, 90.0])
def test_a_percentile_is_the_central_share_of_all_values(share):
    scale, zero = range_of(RANDOM, calibration="percentile", percentile=share)
    low, high = np.percentile(RANDOM, [50 - share / 2, 50 + share / 2])
    assert 255 * scale == pytest.approx(high - low, rel=0.03)
    assert (-128 - zero) * scale == pytest.approx(low, rel=0.05)


def test_a_share_of_everything_is_the_whole_range():
    whole, shared = range_of(RANDOM), range_of(RANDOM, calibration="percentile", percentile=100)
    assert shared == (pytest.approx(whole[0], rel=1e-3), whole[1])


def test_a_percentile_keeps_zero_where_no_value_is_near_it():
    scale, zero = range_of(np.abs(RANDOM) + 3, calibration="percentile", percentile=99)
    assert zero == -128 and 255 * scale == pytest.approx(3 + np.percentile(np.abs(RANDOM), 99.5), rel=0.03)


def test_mse_has_the_least_squared_error():
    heavy = RANDOM**3
    errors = {
        method: squared_error(heavy, *range_of(heavy, calibration=method)) for method in ("minmax", "mse", "percentile")
    }
    assert errors["mse"] < 0.97 * min(errors["minmax"], errors["percentile"])


def test_histogram_is_another_name_of_mse():
    assert range_of(RANDOM**3, calibration="histogram") == range_of(RANDOM**3, calibration="mse")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            {"percentile": "30"},
            "quantizer 'int8-static', option 'percentile': found 30.0, expected more than 50 and at most 100",
            id="less than half",
        ),
        pytest.param({"percentile": "nan"}, "option 'percentile': found nan, expected more than 50", id="nan"),
        pytest.param({"percentile": "101"}, "option 'percentile': found 101.0", id="more than all"),
        pytest.param(
            {"adaround": "-1"},
            "option 'adaround': found -1, expected the iterations a layer, such as 200, or 0",
            id="-1",
        ),
    ],
)
def test_options_that_nothing_can_be_done_with(options, message):
    with pytest.raises(UnsupportedError, match=message):
        make_quantizer("int8-static", options).check()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"calibration": "mse"}, "calibration=mse"),
        ({"calibration": "mse", "equalize": "true"}, "calibration=mse, equalize"),
        ({"adaround": "100", "choose": "true"}, "adaround, choose"),
    ],
)
def test_what_onnx_runtimes_own_tool_has_not_is_refused(options, named):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'edge-sdk[onnxruntime]'")
    with pytest.raises(
        UnsupportedError,
        match=f"which has no {named}: leave that out and take calibration=minmax, percentile or histogram, or",
    ):
        make_quantizer("int8-static", options).apply_onnx(onnx.ModelProto(), "forward", Data())


@pytest.mark.parametrize("method", ["minmax", "histogram", "percentile"])
def test_an_onnx_file_takes_onnx_runtimes_own_methods(method, capsys):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'edge-sdk[onnxruntime]'")
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4096]) for name in "xy"]
    weight = onnx.numpy_helper.from_array(np.eye(4096, dtype=np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "g", *[[one] for one in values], [weight]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    quantizer = make_quantizer("int8-static", {"calibration": method, "percentile": "90"})
    done, _ = quantizer.apply_onnx(model, "forward", Data(calibration=[{"forward": {"x": one}} for one in RANDOM]))
    scale = {one.name: onnx.numpy_helper.to_array(one) for one in done.graph.initializer}["x_scale"]
    low, high = np.percentile(RANDOM, [5, 95]) if method == "percentile" else (RANDOM.min(), RANDOM.max())
    if method != "histogram":
        assert 255 * scale == pytest.approx(high - low, rel=0.05)
    assert 255 * scale <= 1.01 * (RANDOM.max() - RANDOM.min())
    assert capsys.readouterr().out == "", "what ONNX Runtime prints stays off standard output"


def outliers(model) -> list:
    """Inputs of which each has one value that is far from all others."""
    samples = model.samples("calibration")
    for sample in samples:
        sample["forward"]["x"].flat[0] = 300.0
    return samples


def blind() -> nn.Module:
    """A network that never looks at the first value of its input."""
    network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
    with torch.no_grad():
        network[0].weight[:, 0] = 0.0
    return network


def test_the_choice_is_what_did_best_and_is_used():
    model = tiny(seeded(blind), example(1, 64))
    said: list[str] = []
    quantizer = make_quantizer("int8-static", {"choose": "true", "percentile": "96"})
    done = quantizer.apply_torch(capture(model), Data(calibration=outliers(model), progress=said.append))
    options = done.quantization.options
    figures = {key: value for key, value in options.items() if key.startswith("tried.")}
    assert set(figures) == {
        f"tried.{method}{tail}.sqnr_db" for method in ("minmax", "mse", "percentile") for tail in ("", "+equalize")
    }
    best = max(figures, key=figures.__getitem__)
    assert best.startswith(f"tried.{options['calibration']}") and ("equalize" in best) == options["equalize"]
    assert options["calibration"] == "percentile" and options["choose"] is True
    assert options["calibration_samples"] == 16, "all of them calibrate in the end"
    assert any(line.startswith(best.split(".")[1] + " does best: ") for line in said)
    again, _ = quantized(
        model, outliers(model), calibration=options["calibration"], equalize=options["equalize"], percentile=96
    )
    assert ranges(done.graphs[0].torch) == ranges(again)


def test_equalisation_is_not_tried_where_there_is_nothing_to_equalise():
    _, quantization = quantized(tiny(seeded(lambda: nn.Conv2d(3, 4, 3)), example(*IMAGE)), choose=True)
    tried = [key for key in quantization.options if key.startswith("tried.")]
    assert tried == ["tried.minmax.sqnr_db", "tried.mse.sqnr_db", "tried.percentile.sqnr_db"]


def test_without_the_choice_nothing_is_tried():
    _, quantization = quantized(conv_model())
    assert not [key for key in quantization.options if key.startswith("tried.")]
    assert quantization.options["calibration"] == "minmax"


def test_one_input_is_too_few_to_choose_with():
    model = mlp_model()
    with pytest.raises(UnsupportedError) as caught:
        quantized(model, model.samples("calibration")[:1], choose=True)
    assert str(caught.value) == (
        "int8-static with choose=true needs at least 2 calibration inputs for part 'forward', one half to calibrate "
        "and one to judge with, and found 1: give more, or leave choose out."
    )
