"""Every quantizer on both runtimes: how close, how small, what is left alone, what is refused before work."""

from __future__ import annotations

import pytest
from _models import captioner, conv_model, cosine, exact, example, mlp_model, nn, run, seeded, tiny

import edge_sdk
from edge_sdk.errors import UnsupportedError
from edge_sdk.quantization import QUANTIZERS
from edge_sdk.quantization.base import make_quantizer


def compiled(model, runtime: str, quantize: str, **options):
    return edge_sdk.compile(model, "desktop-cpu", runtime=runtime, quantize=quantize, **options)


def programs(bundle) -> int:
    return bundle.manifest.size_bytes


@pytest.mark.parametrize(
    ("runtime", "method", "closest", "largest"),
    [
        ("executorch", "fp32", 0.999999, 1.0),
        ("executorch", "fp16", 0.99999, 0.6),
        ("executorch", "int8-dynamic", 0.999, 0.4),
        ("executorch", "int8-static", 0.998, 0.4),
        ("executorch", "int4-weight", 0.98, 0.3),
        ("onnxruntime", "fp32", 0.999999, 1.0),
        ("onnxruntime", "int8-dynamic", 0.999, 0.4),
        ("onnxruntime", "int8-static", 0.998, 0.4),
        ("onnxruntime", "int4-weight", 0.98, 0.3),
    ],
)
def test_linear_layers(runtime, method, closest, largest):
    model = mlp_model()
    bundle = compiled(model, runtime, method)
    samples = model.samples("reference")
    assert cosine(run(bundle, samples), exact(model, samples)) >= closest
    assert programs(bundle) <= largest * programs(compiled(model, runtime, "fp32"))
    assert bundle.manifest.quantization.method == method
    assert bundle.manifest.quantization.skipped == []


@pytest.mark.parametrize(
    ("runtime", "method", "closest"),
    [("executorch", "fp16", 0.9999), ("executorch", "int8-static", 0.998), ("onnxruntime", "int8-static", 0.998)],
)
def test_convolutions(runtime, method, closest):
    model = conv_model()
    bundle = compiled(model, runtime, method)
    samples = model.samples("reference")
    assert cosine(run(bundle, samples), exact(model, samples)) >= closest
    assert bundle.manifest.quantization.skipped == []
    assert bundle.manifest.partition.pieces == 1
    casts = [one.op for one in bundle.manifest.partition.fallback]  # XNNPACK takes half precision, not the way there
    assert casts == (["_to_dim_order_copy.out"] * 2 if method == "fp16" else [])


@pytest.mark.parametrize(
    ("runtime", "method", "names"),
    [
        ("executorch", "int8-dynamic", ["0", "4", "7"]),
        ("executorch", "int4-weight", ["0", "4", "7"]),
        ("onnxruntime", "int8-dynamic", 3),
        ("onnxruntime", "int4-weight", 3),
    ],
)
def test_methods_for_linear_layers_list_the_convolutions_that_they_leave(runtime, method, names):
    skipped = compiled(conv_model(), runtime, method).manifest.quantization.skipped
    assert all(one.precision == "fp32" for one in skipped)
    if runtime == "executorch":
        assert [one.layer for one in skipped] == [f"forward.{name}" for name in names]
        assert {(one.op, one.reason) for one in skipped} == {
            ("aten.conv2d.default", f"{method} takes linear layers only")
        }
    else:
        assert [one.op for one in skipped] == ["Conv"] * names
        assert {one.reason for one in skipped} == {f"{method} takes matrix products with constant weights only"}


def test_int4_leaves_layers_whose_input_is_no_multiple_of_the_group():
    module = seeded(lambda: nn.Sequential(nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 8)))
    (left,) = compiled(tiny(module, example(1, 48)), "executorch", "int4-weight").manifest.quantization.skipped
    assert (left.layer, left.reason) == ("forward.0", "its input size is no multiple of 32")


@pytest.mark.parametrize("runtime", ["executorch", "onnxruntime"])
@pytest.mark.parametrize("method", ["int8-static", "int8-dynamic", "int4-weight"])
def test_a_layer_whose_weight_depends_on_the_input_stays_in_float_and_is_listed(runtime, method):
    class Hyper(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights, self.inner = nn.Linear(32, 32 * 32), nn.Linear(32, 32)

        def forward(self, x):
            return nn.functional.linear(self.inner(x), self.weights(x[:1]).view(32, 32))

    model = tiny(seeded(Hyper), example(4, 32))
    bundle = compiled(model, runtime, method)
    (left,) = bundle.manifest.quantization.skipped
    assert "its weight depends on the input" in left.reason or "constant weights only" in left.reason
    samples = model.samples("reference")
    assert cosine(run(bundle, samples), exact(model, samples)) > 0.97


@pytest.mark.parametrize("runtime", ["executorch", "onnxruntime"])
@pytest.mark.parametrize("method", ["int8-dynamic", "int4-weight"])
def test_weights_that_are_computed_from_parameters_are_quantized(runtime, method):
    def build():
        return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(64, 128)), nn.ReLU(), nn.Linear(128, 32))

    model = tiny(seeded(build), example(1, 64))
    bundle = compiled(model, runtime, method)
    assert bundle.manifest.quantization.skipped == []
    assert programs(bundle) < 0.5 * 4 * (64 * 128 + 128 * 32)
    samples = model.samples("reference")
    assert cosine(run(bundle, samples), exact(model, samples)) > 0.98


@pytest.mark.parametrize("runtime", ["executorch", "onnxruntime"])
def test_every_part_is_quantized(runtime):
    model = captioner()
    bundle = compiled(model, runtime, "int8-static")
    assert bundle.manifest.quantization.skipped == []
    samples = model.samples("reference")
    assert cosine(run(bundle, samples), exact(model, samples)) > 0.999


@pytest.mark.parametrize("runtime", ["executorch", "onnxruntime"])
def test_what_has_no_rule_is_listed(runtime):
    class Compared(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 32)

        def forward(self, x):
            x = self.layer(x)
            return x.matmul(x.transpose(1, 2))

    bundle = compiled(tiny(seeded(Compared), example(1, 4, 64)), runtime, "int8-static")
    (left,) = bundle.manifest.quantization.skipped
    assert (left.op, left.precision) == ("aten.matmul.default", "fp32") and "has no rule" in left.reason


def refusal(model, runtime, method, **options) -> tuple[str, list[str]]:
    said: list[str] = []
    with pytest.raises(UnsupportedError) as caught:
        compiled(model, runtime, method, progress=said.append, **options)
    return str(caught.value), said


def test_what_the_target_does_not_allow_is_refused_before_any_work():
    message, said = refusal(mlp_model(), "onnxruntime", "fp16")
    assert message == (
        "target 'desktop-cpu' cannot take model 'mlp' as fp16: onnxruntime (cpu): "
        "the target allows fp32, int8, int4 there, and fp16 is fp16."
    )
    assert said == []


def test_a_quantizer_without_calibration_inputs_is_refused_before_the_graph_is_touched():
    message, said = refusal(mlp_model(counts={"reference": 1}), "executorch", "int8-static")
    assert message.startswith("quantizer 'int8-static' needs calibration inputs, and model 'mlp' brings none: ")
    assert "--calibration FILE.npz" in message and "--calibration FOLDER" in message
    assert said in ([], ["capturing mlp"])


@pytest.mark.parametrize("method", ["fp32", "int8-dynamic"])
def test_a_budget_for_a_method_that_takes_none(method):
    message, _ = refusal(mlp_model(), "executorch", method, max_drop=0.01)
    assert message == (
        f"--max-drop works with int8-static on PyTorch models, not with quantizer '{method}'; leave it out."
    )


@pytest.mark.parametrize("runtime", ["executorch", "onnxruntime"])
@pytest.mark.parametrize(("method", "size"), [("int8-dynamic", ""), ("int4-weight", " with an input size")])
def test_a_model_without_anything_to_quantize(runtime, method, size):
    model = tiny(nn.Conv2d(3, 4, 3), example(1, 3, 8, 8))
    message, _ = refusal(model, runtime, method)
    assert message.startswith(f"{method} quantizes ") and message.endswith("use int8-static or fp16.")
    assert runtime == "onnxruntime" or size in message


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "int8-statc",
            {},
            "unknown quantizer 'int8-statc'. Did you mean 'int8-static'? Known: bf16, fp16, fp32, int4-weight",
        ),
        (
            "int8-static",
            {"calibraton": "minmax"},
            "quantizer 'int8-static': unknown option 'calibraton'. Did you mean 'calibration'?",
        ),
        (
            "int8-static",
            {"calibration": "histgram"},
            "quantizer 'int8-static', option 'calibration': unknown value 'histgram'. Did you mean 'histogram'?",
        ),
        (
            "int8-static",
            {"bias_correction": "yes"},
            "quantizer 'int8-static', option 'bias_correction': found 'yes', expected true or false",
        ),
        ("fp32", {"bits": "3"}, "quantizer 'fp32': unknown option 'bits'. Known: none."),
    ],
)
def test_unknown_names_options_and_values(name, settings, message):
    with pytest.raises(UnsupportedError) as caught:
        make_quantizer(name, settings)
    assert str(caught.value).startswith(message)


def test_every_quantizer_says_what_it_is():
    for name in QUANTIZERS:
        kind = QUANTIZERS.load(name)
        assert kind.name == name and kind.summary and not kind.summary.endswith(".")
        assert isinstance(make_quantizer(name).options, dict)


def test_options_are_read_and_kept():
    quantizer = make_quantizer("int8-static", {"calibration": "histogram", "bias_correction": "False"})
    assert quantizer.options["calibration"] == "histogram" and quantizer.options["bias_correction"] is False
