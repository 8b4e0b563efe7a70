"""``--max-drop``: the layers that cost most go back to FP32, as few as it takes, or the gate fails."""

from __future__ import annotations

import pytest
from _models import Tiny, cosine, exact, example, mlp_model, nn, run, seeded, tiny, torch

import edge_sdk
from edge_sdk.errors import GateError, UnsupportedError
from edge_sdk.models.base import Part


def linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=(2 / inputs) ** 0.5)
    return layer


def build() -> nn.Module:
    """Its fifth layer has huge weights on an input that is always zero: their scale leaves nothing of the others."""
    sizes = (16, 32, 32, 32, 8)
    layers = [part for pair in zip(sizes, sizes[1:], strict=False) for part in (linear(*pair), nn.ReLU())][:-1]
    with torch.no_grad():
        layers[2].weight[0], layers[2].bias[0] = 0.0, -1.0
        layers[4].weight[:, 0] = 100.0
    return nn.Sequential(*layers)


def compiled(model, runtime="onnxruntime", **options):
    return edge_sdk.compile(model, "desktop-cpu", runtime=runtime, quantize="int8-static", **options)


def left(bundle) -> list[str]:
    return [one.layer for one in bundle.manifest.quantization.skipped]


@pytest.mark.parametrize("runtime", ["executorch", "onnxruntime"])
def test_the_layer_that_quantizes_terribly_is_the_one_put_back(runtime):
    model = tiny(seeded(build), example(1, 16))
    samples = model.samples("reference")
    bad = compiled(model, runtime)
    assert left(bad) == [] and cosine(run(bad, samples), exact(model, samples)) < 0.95
    said: list[str] = []
    good = compiled(model, runtime, max_drop=0.01, progress=said.append)
    (skipped,) = good.manifest.quantization.skipped
    assert (skipped.layer, skipped.precision) == ("forward.4", "fp32")
    assert skipped.reason == "left in FP32 to meet the accuracy budget"
    assert cosine(run(good, samples), exact(model, samples)) > 0.99
    assert good.manifest.size_bytes > bad.manifest.size_bytes
    assert "measuring the sensitivity of each layer of forward" in said
    assert any(line.startswith("1 layers in FP32: the cosine to FP32 drops by ") for line in said)


def test_onnxruntime_does_not_quantize_by_itself_what_was_put_back():
    """It would, with one scale for all channels, wherever a float layer stands between quantizers."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'edge-sdk[onnxruntime]'")
    bundle = compiled(tiny(seeded(build), example(1, 16)), max_drop=0.01)
    graph = onnx.load(bundle.path / "forward.onnx").graph
    assert [node.op_type for node in graph.node].count("Gemm") == 1
    floats = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert [list(tensor.dims) for tensor in floats if len(tensor.dims) > 1] == [[32, 32]]


def test_nothing_is_put_back_where_the_budget_is_met():
    said: list[str] = []
    assert left(compiled(mlp_model(), max_drop=0.02, progress=said.append)) == []
    assert not any("sensitivity" in line for line in said)


def test_in_a_model_of_several_parts_the_layer_is_named_with_its_part():
    parts = [Part(name, seeded(part), (example(1, 16),), ("x",), ("y",)) for name, part in (("a", good), ("b", build))]
    assert left(compiled(Tiny(*parts), max_drop=0.01)) == ["b.4"]


def good() -> nn.Module:
    return nn.Sequential(linear(16, 16), nn.ReLU(), linear(16, 8))


def agreement(found, exact) -> dict[str, float]:
    """The share of samples whose largest output is that of FP32."""
    same = [f["forward"]["y"].argmax() == e["forward"]["y"].argmax() for f, e in zip(found, exact, strict=True)]
    return {"agreement": sum(same) / len(same)}


def test_the_models_own_score_decides_where_it_has_evaluation_data():
    counts = {"calibration": 16, "reference": 2, "evaluation": 40}
    model = tiny(seeded(build), example(1, 16), counts=counts, score=agreement)
    said: list[str] = []
    assert left(compiled(model, max_drop=0.03, progress=said.append)) == ["forward.4"]
    assert any("the accuracy drops by" in line for line in said)
    assert left(compiled(model, max_drop=0.95)) == []


def never(found, exact) -> dict[str, float]:
    """A score that only FP32 itself reaches."""
    return {"identity": float(found is exact)}


def test_a_budget_that_cannot_be_met_fails_the_gate():
    counts = {"calibration": 4, "evaluation": 4}
    with pytest.raises(GateError) as caught:
        compiled(mlp_model(counts=counts, score=never), max_drop=0.5)
    assert caught.value.exit_code == 4
    assert str(caught.value) == (
        "the accuracy budget cannot be met: with every layer in FP32 the accuracy still drops by 1; allowed 0.5. "
        "Raise --max-drop, or calibrate on other inputs."
    )


@pytest.mark.parametrize("drop", [-0.1, 1.0, 3.0, float("nan")])
def test_a_budget_that_is_no_share_is_refused(drop):
    with pytest.raises(UnsupportedError, match="expected a share between 0 and 1, such as 0.01"):
        compiled(mlp_model(), max_drop=drop)
