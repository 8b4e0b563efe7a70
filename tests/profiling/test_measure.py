"""Bundles through the real runtimes on this machine, from measuring to the report."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tiny

from edge_sdk import load_target
from edge_sdk.devices._process import Limits
from edge_sdk.devices.local import LocalDevice
from edge_sdk.errors import DeviceError, UnsupportedError
from edge_sdk.profiling._samples import read_outputs
from edge_sdk.profiling.measure import measure
from edge_sdk.profiling.report import build_report
from edge_sdk.schema.manifest import Quantization
from edge_sdk.schema.report import Report, Unavailable
from edge_sdk.schema.request import Timing

QUICK = Timing(warmup_max_s=0.3, min_runs=20, min_time_s=0.05, max_time_s=0.3)


@pytest.fixture
def bundle(tmp_path):
    return tiny.bundle(tmp_path, "onnxruntime", tiny.onnx_program())


@pytest.fixture
def device():
    with LocalDevice() as device:
        yield device


@pytest.mark.parametrize("runtime", ["onnxruntime", "executorch"])
def test_a_report_of_a_real_run(runtime, device, tmp_path):
    program = tiny.onnx_program() if runtime == "onnxruntime" else tiny.pte_program()
    bundle = tiny.bundle(tmp_path, runtime, program)
    target = load_target("desktop-cpu")
    stages: list[str] = []
    measurement = measure(bundle, device, target, timing=QUICK, threads=1, progress=stages.append)
    assert stages == [
        "bringing the bundle to local",
        *(f"{what} on local" for what in ("loading the model", "first inference", "warming up", "measuring")),
        "running the samples on local",
        "checking the outputs",
    ]
    report = build_report(bundle, measurement, target, accuracy={"top1": 0.5})
    assert Report.model_validate_json(report.model_dump_json()) == report
    assert report.runtime.name == runtime and report.runtime.version not in ("", "1")
    assert report.device.uri == "local" and report.bundle.sha256 == bundle.manifest_sha256
    assert report.bundle.size_bytes == len(program)
    assert report.latency.samples == len(measurement.samples_ms) >= 20
    assert report.latency.p50 == pytest.approx(np.median(measurement.samples_ms))
    assert report.throughput_per_s == pytest.approx(1000 / report.latency.mean)
    assert report.numerics.cosine == pytest.approx(1) and report.numerics.max_abs_err < 1e-4
    assert isinstance(report.energy, Unavailable) and report.accuracy == {"top1": 0.5}
    assert report.conditions.threads == 1
    assert f"compiled with {runtime} 1 but run with {report.runtime.version}" in report.conditions.warnings
    raw = json.loads(json.dumps(measurement.run.raw()))
    assert raw["latency"] == list(measurement.samples_ms) and len(raw["start"]) == len(raw["latency"])


def test_a_peak_that_the_target_does_not_state_is_absent_with_its_reason(bundle, device):
    target = load_target("desktop-cpu")
    report = build_report(bundle, measure(bundle, device, target, timing=QUICK), target)
    assert isinstance(report.roofline.bound_ms, Unavailable)
    assert "fp32 peak of 'cpu': Not stated" in report.roofline.bound_ms.unavailable


def test_another_devices_figures_are_not_the_targets(bundle, device):
    target = load_target("raspberry-pi-5")
    report = build_report(bundle, measure(bundle, device, timing=QUICK), target)
    assert isinstance(report.roofline.bound_ms, Unavailable)
    assert report.roofline.bound_ms.unavailable.startswith("the device's ABI is ")
    assert any("the figures are this device's, not the target's" in text for text in report.conditions.warnings)


def test_without_a_target_profile(bundle, device):
    report = build_report(bundle, measure(bundle, device, timing=QUICK))
    assert report.roofline.bound_ms == Unavailable(unavailable="the profile of target 'desktop-cpu' is not at hand")


def test_parts_and_further_inputs(device, tmp_path):
    parts = ("encoder", "decoder")
    bundle = tiny.bundle(tmp_path, "onnxruntime", tiny.onnx_program(), parts)
    xs = tiny.inputs(4, seed=5)
    measurement = measure(bundle, device, timing=QUICK, inputs=[{"decoder": {"x": x}} for x in xs])
    assert set(measurement.run.parts_ms) == set(parts)
    assert all(len(samples) == len(measurement.samples_ms) for samples in measurement.run.parts_ms.values())
    assert [set(output) for output in measurement.outputs] == [{"decoder"}] * 4
    found = np.stack([output["decoder"]["y"] for output in measurement.outputs])
    np.testing.assert_allclose(found, tiny.layer(xs), atol=1e-4)


def test_outputs_without_timing(bundle, device):
    inputs = [{"forward": {"x": x}} for x in tiny.inputs(2)]
    measurement = measure(bundle, device, inputs=inputs, timed=False)
    assert measurement.samples_ms == () and len(measurement.outputs) == 2
    with pytest.raises(ValueError, match="a report needs a measurement with timing"):
        build_report(bundle, measurement)


def test_the_targets_threads_and_processors_are_used(bundle, device):
    cpu = min(os.sched_getaffinity(0))
    target = load_target("desktop-cpu")
    rules = [rule.model_copy(update={"threads": 2, "cpus": [cpu]}) for rule in target.runtimes]
    target = target.model_copy(update={"runtimes": rules})
    conditions = measure(bundle, device, target, timing=QUICK).run.result.conditions
    assert (conditions.threads, conditions.affinity) == (2, [cpu])
    assert measure(bundle, device, target, timing=QUICK, threads=1).run.result.conditions.threads == 1


def test_outputs_of_nan(device, tmp_path):
    bundle = tiny.bundle(tmp_path, "onnxruntime", tiny.onnx_program(scale=1.0, op="Log"))
    with pytest.raises(DeviceError) as caught:
        measure(bundle, device, timing=QUICK)
    message = str(caught.value)
    assert message.startswith("device 'local', bundle 'tiny': output 'forward/outputs/y' holds NaN or infinity in ")
    assert "Compile it with another quantizer" in message


def test_a_program_that_is_far_off_is_reported(device, tmp_path):
    bundle = tiny.bundle(tmp_path, "onnxruntime", tiny.onnx_program(scale=1.1))
    numerics = measure(bundle, device, timing=QUICK).numerics
    assert numerics.sqnr_db == pytest.approx(20, abs=0.1) and numerics.cosine == pytest.approx(1)


def test_inputs_of_several_shapes(bundle, device):
    inputs = [{"forward": {"x": np.zeros((1, size), "f")}} for size in (3, 4)]
    with pytest.raises(UnsupportedError, match="input 'x' of part 'forward' has 2 different shapes in 2 inputs"):
        measure(bundle, device, inputs=inputs)


def test_inputs_that_lack_a_name(bundle, device):
    with pytest.raises(UnsupportedError, match="an input lacks 'x' of part 'forward'"):
        measure(bundle, device, inputs=[{"forward": {"z": tiny.inputs(1)[0]}}])


def test_a_failing_program_says_what_the_runtime_said(device, tmp_path):
    bundle = tiny.bundle(tmp_path, "executorch", b"no program")
    pytest.importorskip("executorch", reason="executorch is not installed: pip install 'edge-sdk[executorch]'")
    with pytest.raises(DeviceError) as caught:
        measure(bundle, device, timing=QUICK)
    assert "the executorch runner failed at step 'load'" in str(caught.value)
    assert "[mmap_data_loader.cpp" in str(caught.value)


def test_the_device_is_locked_meanwhile(bundle, device):
    with LocalDevice().lock("a test"), pytest.raises(DeviceError, match="is being measured by a test"):
        measure(bundle, LocalDevice(lock_wait_s=0), timing=QUICK)


def lying_device(tmp_path: Path, messages: str) -> LocalDevice:
    folder = tmp_path / "runtimes" / "onnxruntime"
    folder.mkdir(parents=True)
    (folder / "runner.py").write_text(f"print({messages!r})")
    return LocalDevice(runtimes_dir=folder.parent, limits=Limits(silence_s=20))


def test_samples_that_do_not_add_up(bundle, tmp_path):
    hello = (
        '{"type":"hello","protocol_version":1,"runtime":"onnxruntime","version":"1","pid":1,'
        '"device":{"os":"x","abi":"y"}}'
    )
    latency = {key: 1.0 for key in ("p50", "p90", "p99", "mean", "std", "min", "max", "first", "load")}
    latency = json.dumps({**latency, "ci95": [1, 1], "samples": 3, "warmup": 0})
    memory = '{"unavailable":"x"}'
    sample = '{"type":"sample","start_ns":[0],"ns":[5]}'
    result = f'{{"type":"result","latency":{latency},"memory":{memory},"conditions":{{}},"outputs":null}}'
    with lying_device(tmp_path, "\n".join([hello, sample, result])) as device:
        with pytest.raises(DeviceError, match=r"the runner counts 3 samples but sent \[1, 1\]"):
            measure(bundle, device, timing=QUICK)


@pytest.mark.parametrize("content", [b"PK nonsense", b"", b"\x80\x04."])
def test_outputs_that_are_no_npz(content, tmp_path):
    (tmp_path / "out.npz").write_bytes(content)
    with pytest.raises(DeviceError, match="the outputs that the runner wrote cannot be read"):
        read_outputs(tmp_path / "out.npz")


def test_outputs_that_claim_more_than_there_is(tmp_path):
    header = b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,)}"
    with zipfile.ZipFile(tmp_path / "out.npz", "w") as archive:
        archive.writestr("reference/forward/outputs/y.npy", header.ljust(127) + b"\n")
    with pytest.raises(DeviceError, match="the outputs that the runner wrote cannot be read"):
        read_outputs(tmp_path / "out.npz")


def test_unknown_quantizers_have_no_roofline(device, tmp_path):
    method = Quantization(method="ternary")
    bundle = tiny.bundle(tmp_path, "onnxruntime", tiny.onnx_program(), quantization=method)
    target = load_target("desktop-cpu")
    report = build_report(bundle, measure(bundle, device, target, timing=QUICK), target)
    assert report.roofline.fraction == Unavailable(unavailable="the precision of quantizer 'ternary' is not known")
