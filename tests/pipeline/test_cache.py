"""The cache: the same compilation is done once, another one never taken for it, a damaged entry made again."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _models import Tiny, example, mlp_model, nn, tiny, torch

import edge_sdk
from edge_sdk.bundle import Bundle
from edge_sdk.models.base import Part
from edge_sdk.pipeline import cache
from edge_sdk.pipeline.compile import Job
from edge_sdk.pipeline.plan import plans
from edge_sdk.quantization.base import make_quantizer
from edge_sdk.schema import load_target
from edge_sdk.schema.target import Target


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache that holds nothing of other tests."""
    monkeypatch.setenv("EDGE_SDK_CACHE", str(tmp_path / "cache"))


def compiled(model, said: list[str] | None = None, **options) -> Bundle:
    options = {"runtime": "onnxruntime", "progress": (said if said is not None else []).append, **options}
    return edge_sdk.compile(model, options.pop("target", "desktop-cpu"), **options)


def key(model, target="desktop-cpu", *, runtime="onnxruntime", quantize="fp32", settings=None, **options) -> str:
    """The key of a compilation, which is not done."""
    profile = target if isinstance(target, Target) else load_target(target)
    quantizer = make_quantizer(quantize, settings)
    (plan,), _ = plans(profile, model, quantizer, runtime)
    return Job(profile, model, quantizer, **options).key(plan)


WORK = ("rewriting", "quantizing", "lowering", "computing", "writing", "calibrating")


def worked(said: list[str]) -> bool:
    return any(line.startswith(WORK) for line in said)


def test_a_second_compile_takes_the_same_bundle_without_work():
    first, said = compiled(mlp_model()), []
    second = compiled(mlp_model(), said)
    assert second == first and second.manifest_sha256 == first.manifest_sha256
    assert said == ["capturing mlp", f"found in the cache: {first.manifest.name}"]
    assert first.path == cache.slot(first.manifest.key, first.manifest.name)


def test_without_the_cache_the_work_is_done_again():
    first, said = compiled(mlp_model()), []
    again = compiled(mlp_model(), said, use_cache=False)
    assert worked(said) and again.manifest.key == first.manifest.key


class Constant(nn.Module):
    """A layer, times a number that is no parameter."""

    def __init__(self, kind: str, value: float) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 16)
        nn.init.ones_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.kind = kind
        if kind == "buffer":
            self.register_buffer("factor", torch.full((16,), value))
        elif kind == "buffer that is not saved":
            self.register_buffer("factor", torch.full((16,), value), persistent=False)
        elif kind == "tensor":
            self.factor = torch.full((16,), value)
        else:
            self.factor = value

    def forward(self, x):
        if self.kind == "branch":
            return torch.cond(x.sum() > 0, lambda y: y * self.factor, lambda y: y, (self.layer(x),))
        return self.layer(x) * (torch.tensor(self.factor) if self.kind == "inline" else self.factor)


@pytest.mark.parametrize("kind", ["number", "buffer", "buffer that is not saved", "tensor", "inline", "branch"])
def test_whatever_a_module_computes_with_is_in_the_key(kind):
    keys = [key(tiny(Constant(kind, value), example(1, 64))) for value in (1.0, 2.0, 1.0)]
    assert keys[0] != keys[1] and keys[0] == keys[2]


def test_weights_of_a_type_that_numpy_lacks():
    class Brain(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8).bfloat16()

        def forward(self, x):
            return self.layer(x.bfloat16()).float()

    assert key(tiny(Brain(), example(1, 8)))


def other_weights() -> Tiny:
    model = mlp_model()
    with torch.no_grad():
        model.parts()[0].module[0].bias[0] += 1e-3
    return model


def other_names() -> Tiny:
    (part,) = mlp_model().parts()
    return Tiny(Part("forward", part.module, part.example_inputs, ("image",), ("scores",)), name="mlp")


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"model": other_weights}, id="weights"),
        pytest.param({"model": other_names}, id="names"),
        pytest.param({"quantize": "int8-static"}, id="quantizer"),
        pytest.param({"runtime": "executorch"}, id="runtime"),
        pytest.param({"target": "raspberry-pi-5"}, id="target"),
        pytest.param({"rewrites": False}, id="rewrites"),
    ],
)
def test_a_change_of_what_decides_the_result_changes_the_key(changed):
    build = changed.get("model", mlp_model)
    options = {key: value for key, value in changed.items() if key != "model"}
    assert key(build(), **options) != key(mlp_model())


def test_options_of_a_quantizer_budgets_and_calibration_change_the_key(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(5).standard_normal((4, 64)).astype(np.float32))
    variants = [
        {},
        {"settings": {"calibration": "histogram"}},
        {"settings": {"bias_correction": "false"}},
        {"max_drop": 0.5},
        {"calibration_path": tmp_path / "data.npz"},
    ]
    keys = [key(mlp_model(), quantize="int8-static", **options) for options in variants]
    for counts in ({"calibration": 8, "reference": 4}, {"calibration": 16, "reference": 3}):
        keys.append(key(mlp_model(counts=counts), quantize="int8-static"))
    assert len(set(keys)) == len(keys)


def test_another_figure_in_a_profile_of_the_same_name_changes_the_key(tmp_path):
    target = load_target("desktop-cpu")
    rules = [rule.model_copy(update={"options": {"spin": 0}}) for rule in target.runtimes]
    changed = target.model_copy(update={"runtimes": rules})
    assert key(mlp_model(), changed) != key(mlp_model(), target)


@pytest.mark.parametrize("damage", ["a changed byte", "a missing file", "no manifest", "another key"])
def test_a_damaged_entry_is_made_again_with_a_warning(damage, caplog):
    bundle = compiled(mlp_model())
    program = bundle.path / "forward.onnx"
    if damage == "a changed byte":
        program.write_bytes(program.read_bytes()[:-1] + b"?")
    elif damage == "a missing file":
        program.unlink()
    elif damage == "no manifest":
        (bundle.path / "manifest.json").unlink()
    else:
        manifest = bundle.path / "manifest.json"
        manifest.write_text(manifest.read_text().replace(bundle.manifest.key, "0" * 64))
    said: list[str] = []
    with caplog.at_level(logging.WARNING, logger="edge_sdk"):
        again = compiled(mlp_model(), said)
    assert worked(said) and Bundle.open(again.path).manifest.key == bundle.manifest.key
    if damage != "another key":
        assert "a damaged bundle in the cache is compiled again: " in caplog.text
    assert len(list(again.path.parent.iterdir())) == 1


def test_the_bundle_lies_in_out_as_its_name_says(tmp_path):
    out = tmp_path / "deep" / "out"
    bundle = compiled(mlp_model(), out=out)
    assert bundle.path == out / "mlp-desktop-cpu-fp32-onnxruntime.edge"
    assert [path.name for path in out.iterdir()] == [bundle.path.name]
    assert Bundle.open(bundle.path).manifest == bundle.manifest
    before = (bundle.path / "forward.onnx").stat().st_mtime_ns
    assert compiled(mlp_model(), out=out).path == bundle.path
    assert (bundle.path / "forward.onnx").stat().st_mtime_ns == before, "the same bundle was copied again"


def test_a_damaged_or_foreign_bundle_in_out_is_written_again(tmp_path, caplog):
    out = tmp_path / "out"
    bundle = compiled(mlp_model(), out=out)
    (bundle.path / "forward.onnx").write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING, logger="edge_sdk"):
        assert Bundle.open(compiled(mlp_model(), out=out).path)
    assert f"{bundle.path} was damaged and is written again" in caplog.text
    changed = compiled(other_weights(), out=out)
    assert changed.path == bundle.path and Bundle.open(changed.path).manifest.key != bundle.manifest.key


PLUGIN = """
import sys, time
import edge_sdk
from edge_sdk.models.base import Model, Part

class Plugin(Model):
    name = "plugin"
    def fingerprint(self):
        return {"weights": "1"}
    def parts(self):
        import torch
        torch.manual_seed(0)
        return [Part("forward", torch.nn.Linear(8, 4), (torch.ones(1, 8),))]

said = []
bundle = edge_sdk.compile(Plugin(), "desktop-cpu", runtime="onnxruntime", progress=said.append)
print(said[-1], "torch" in sys.modules, "onnx" in sys.modules, "numpy" in sys.modules)
"""


def test_a_warm_compile_of_a_plugin_imports_neither_torch_nor_numpy():
    lines = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", PLUGIN], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        lines.append(done.stdout.splitlines()[-1])
    assert lines[0] == "writing the bundle True True True"
    assert lines[1] == "found in the cache: plugin-desktop-cpu-fp32-onnxruntime False False False"


def test_no_entry_names_a_path_of_this_machine():
    bundle = compiled(mlp_model())
    text = (bundle.path / "manifest.json").read_text()
    assert str(Path.home()) not in text and str(bundle.path.parent.parent) not in text
