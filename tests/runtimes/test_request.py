"""What a runner refuses before it loads anything."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny

POWER = {"sensors": ["rapl"], "rate_hz": 10, "idle_s": 1}


@pytest.fixture
def good(folder, make_request):
    (folder / "tiny.onnx").write_bytes(tiny.onnx_program())
    return make_request(folder, "tiny.onnx")


def changed(request, **changes):
    return {**request, **changes}


def part_with(request, **changes):
    return {**request, "parts": [{**request["parts"][0], **changes}]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: "{", "the request is not JSON"),
        (lambda r: "[1]", "protocol version None is not known; this runner speaks 1"),
        (lambda r: "[" * 100_000, "the request is not JSON"),
        (lambda r: changed(r, protocol_version=2), "protocol version 2 is not known; this runner speaks 1"),
        (lambda r: changed(r, color="red"), "request.color is not known"),
        (lambda r: {k: v for k, v in r.items() if k != "bundle"}, "request.bundle is missing"),
        (lambda r: changed(r, threads=True), "request.threads has the type bool"),
        (lambda r: changed(r, threads=0), "request.threads is 0; expected at least 1"),
        (lambda r: changed(r, affinity=["0"]), "request.affinity: expected processor numbers"),
        (lambda r: changed(r, parts=[]), "request.parts: expected at least one part"),
        (lambda r: changed(r, parts=r["parts"] * 2), "no name twice"),
        (lambda r: changed(r, timing=None), "the request asks for neither timing nor outputs"),
        (lambda r: changed(r, timing={**r["timing"], "min_runs": 0}), "min_runs of at least 1"),
        (lambda r: changed(r, timing={**r["timing"], "max_time_s": float("nan")}), "NaN is no JSON number"),
        (lambda r: changed(r, inputs="/nowhere.npz"), "request.inputs is given without request.outputs"),
        (lambda r: changed(r, inputs="/nowhere.npz", outputs="/tmp/x"), "no file of inputs at /nowhere.npz"),
        (lambda r: changed(r, reference="gone.npz"), "the bundle holds no file gone.npz"),
        (lambda r: changed(r, reference="../x.npz"), "the path '../x.npz' leads out of the bundle"),
        (lambda r: {k: v for k, v in r.items() if k != "gate"}, "request.gate is missing"),
        (lambda r: changed(r, gate={"below_c": 45}), "gate.wait_s is missing"),
        (lambda r: changed(r, gate={"below_c": 45, "wait_s": -1}), "gate.wait_s is -1; expected no negative figure"),
        (lambda r: changed(r, power={**POWER, "sensors": []}), "power.sensors: expected at least one of rapl, nvml"),
        (lambda r: changed(r, power={**POWER, "sensors": ["rapl", 3]}), "found ['rapl', 3]"),
        (lambda r: changed(r, power={**POWER, "rate_hz": 0}), "expected a rate_hz above 0 and up to 1000"),
        (lambda r: changed(r, power={**POWER, "rate_hz": True}), "power.rate_hz has the type bool"),
        (lambda r: changed(r, power={**POWER, "idle_s": -0.1}), "found 10 and -0.1"),
        (lambda r: changed(r, power={**POWER, "color": 1}), "power.color is not known"),
        (lambda r: changed(r, sustain={"time_s": 0, "window_s": 1}), "sustain: expected time_s and window_s above 0"),
        (lambda r: json.dumps(r).replace('"gate": null', '"gate": {"below_c": 1e999, "wait_s": 1}'), "too large"),
        (lambda r: part_with(r, program="gone.onnx"), "the bundle holds no file gone.onnx"),
        (lambda r: part_with(r, program="../../etc/passwd"), "leads out of the bundle"),
        (lambda r: part_with(r, program="/etc/passwd"), "leads out of the bundle"),
        (lambda r: part_with(r, inputs=[1]), "inputs and outputs are lists of names"),
    ],
)
def test_refused(change, message, good, ask):
    answer = ask("onnxruntime", change(good))
    assert message in answer.error["message"]
    assert answer.error["kind"] == "request" and answer.error["stage"] == "request"
    assert not answer.of("hello") and "Traceback" not in answer.stderr


def test_a_link_out_of_the_bundle_is_refused(good, folder, tmp_path, ask):
    (tmp_path / "outside.onnx").write_bytes(b"")
    (folder / "link.onnx").symlink_to(tmp_path / "outside.onnx")
    assert "leads out of the bundle" in ask("onnxruntime", part_with(good, program="link.onnx")).error["message"]


def test_pickled_samples_are_refused(good, folder, ask):
    np.savez(folder / "reference.npz", **{"forward/inputs/x": np.array([{"a": 1}], dtype=object)})
    error = ask("onnxruntime", good).error
    assert error["kind"] == "data" and "allow_pickle=False" in error["message"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"forward/inputs/z": tiny.inputs(2)}, "holds no inputs for part 'forward'"),
        ({"forward/inputs/x": tiny.inputs(0)}, "expected one number above 0"),
        ({"forward/inputs/x": np.float32(1)}, "expected one number above 0"),
    ],
)
def test_samples_that_do_not_fit(arrays, message, good, folder, ask):
    tiny.write_npz(folder / "reference.npz", arrays)
    assert message in ask("onnxruntime", good).error["message"]


def test_a_reference_that_is_no_npz(good, folder, ask):
    (folder / "reference.npz").write_bytes(b"PK nonsense")
    error = ask("onnxruntime", good).error
    assert error["stage"] == "reference" and "is not an .npz file of numbers" in error["message"]
