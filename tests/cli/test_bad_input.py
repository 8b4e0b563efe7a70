"""Each kind of bad input, as a user meets it: the message and the exit code, and nothing half written."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_sdk.bundle import MANIFEST, write_bundle
from edge_sdk.schema.manifest import Manifest

NET = """
import torch

class Branch(torch.nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x

def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval(), (torch.ones(1, 3, 8, 8),)

def branch():
    return Branch().eval(), (torch.ones(1, 3),)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def _error(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The message, after checking that it is well formed on both streams."""
    assert done.returncode == code, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["exit_code"] == code
    assert done.stderr.endswith(f"edge-sdk: error: {error['message']}\n")
    assert "Traceback" not in done.stderr
    return error["message"]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("efficientnet_lite", [], "unknown model 'efficientnet_lite'. Did you mean 'efficientnet_lite0'?"),
        ("net.py:build", ["--target", "xnnpack-cpus"], "unknown target 'xnnpack-cpus'. Did you mean 'xnnpack-cpu'?"),
        (
            "net.py:build",
            ["--quantize", "int8-statics"],
            "unknown quantizer 'int8-statics'. Did you mean 'int8-static'?",
        ),
        ("net.py:build", ["--runtime", "onnxruntim"], "unknown runtime 'onnxruntim'. Did you mean 'onnxruntime'?"),
        (
            "net.py:build",
            ["--runtime", "onnxruntime"],
            "target 'xnnpack-cpu' does not allow runtime 'onnxruntime'; it allows: executorch.",
        ),
        (
            "net.py:build",
            ["--quantize", "int8-static"],
            "quantizer 'int8-static' needs calibration inputs, and model 'build' brings none",
        ),
        ("net.py:build", ["--input", "nowhere"], "--input nowhere: no such file or folder."),
        ("photo_tagging", ["--set", "variant=resnet9"], "unknown variant 'resnet9'. Did you mean 'resnet"),
    ],
)
def test_what_cannot_be_is_refused(model, options, message, cli, folder):
    target = [] if "--target" in options else ["--target", "xnnpack-cpu"]
    assert message in _error(cli("deploy", model, *target, *options, "--out", "out", "--json"))
    assert not (folder / "out").exists()


def test_a_model_that_does_not_export_names_operator_and_line(cli, folder):
    message = _error(cli("compile", "net.py:branch", "--target", "xnnpack-cpu", "--json"))
    assert "cannot be exported" in message
    assert "net.py:6: `if x.sum() > 0:`" in message
    assert message.count("\n") == 0 and len(message) < 1000


STATIC_TARGET = """
name: static-cpu
extends: desktop-cpu
runtimes:
  - name: onnxruntime
    delegate: cpu
    unit: cpu
    precisions: [fp32]
    shapes: static
"""


def test_an_onnx_file_with_dynamic_shapes_for_a_static_target(cli, folder):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'edge-sdk[onnxruntime]'")
    helper = onnx.helper
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 3, 8, 8]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "graph", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), folder / "dynamic.onnx")
    (folder / "static.yaml").write_text(STATIC_TARGET)
    message = _error(cli("compile", "dynamic.onnx", "--target", "static.yaml", "--json"))
    assert "input 'x' of model 'dynamic' has sizes that vary, [?, 3, 8, 8]" in message
    assert message.endswith("Fix it: --set shape.x=1,3,8,8.")


PROFILE_FAULTS = """
name: mine
extends: xnnpack-cpu
soc: [1]
colour: red
units:
  - name: cpu
    kind: tpu
"""


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (PROFILE_FAULTS, ["mine.yaml:4: soc: ", "mine.yaml:5: colour: ", "units[0].kind: ", "units[0].cores: "]),
        ("name: [unclosed", ["mine.yaml"]),
        ("a: &a [x]\nb: *a\n", ["mine.yaml:1: YAML anchors and aliases"]),
        ("x: !!python/object/apply:os.system [touch pwned]", ["the YAML tag", "is not read"]),
        ("a" * 300_000, ["mine.yaml is larger than 256 KiB"]),
        ("[" * 5000, ["mine.yaml"]),
        (b"\xff\xfe\x00", ["mine.yaml"]),
    ],
    ids=["faults", "broken", "aliases", "hostile", "large", "deep", "binary"],
)
def test_yaml_that_is_broken_hostile_or_over_large(text, messages, cli, folder):
    (folder / "mine.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    message = _error(cli("compile", "net.py:build", "--target", "mine.yaml", "--json"))
    for words in messages:
        assert words in message
    assert not (folder / "pwned").exists()


@pytest.fixture
def bundle(folder: Path) -> Path:
    """A bundle whose program is never run, since its damage must be found before."""
    tensor = {"name": "x", "dtype": "float32", "shape": [1, 3]}
    part = {"name": "forward", "program": "model.pte", "entry": "forward", "inputs": [tensor], "outputs": [tensor]}
    manifest = Manifest.model_validate(
        {
            "name": "net",
            "created": "2026-11-23T06:47:53+00:00",
            "sdk_version": "0.1.0",
            "key": "0" * 64,
            "target": "xnnpack-cpu",
            "model": {"name": "net"},
            "runtime": {"name": "executorch", "version": "1.4.1", "delegate": "xnnpack"},
            "quantization": {"method": "fp32"},
            "parts": [part],
            "partition": {"delegate": "xnnpack", "delegated": 1, "pieces": 1},
            "cost": {"macs": 1, "weight_bytes": 1, "activation_bytes": 1},
            "versions": {},
            "files": {},
        }
    )
    return write_bundle(folder / "net.edge", manifest, {"model.pte": b"program", "reference.npz": b"arrays"}).path


def _edit_manifest(bundle: Path, change) -> None:
    content = json.loads((bundle / MANIFEST).read_text())
    change(content)
    (bundle / MANIFEST).write_text(json.dumps(content))


def test_a_bundle_with_a_changed_byte(cli, bundle):
    (bundle / "model.pte").write_bytes(b"Program")
    assert "model.pte was changed: SHA-256 " in _error(cli("profile", bundle, "--json"))


def test_a_bundle_with_a_missing_file(cli, bundle):
    (bundle / "model.pte").unlink()
    assert "model.pte is missing." in _error(cli("profile", bundle, "--json"))


def test_a_bundle_without_its_manifest(cli, bundle):
    (bundle / MANIFEST).unlink()
    assert f"{MANIFEST} is missing; this is not a bundle" in _error(cli("profile", bundle, "--json"))


@pytest.mark.parametrize("name", ["../net.py", "/etc/passwd", "a/../../net.py", "a\\..\\net.py"])
def test_a_bundle_with_a_path_that_climbs_out(name, cli, bundle):
    _edit_manifest(bundle, lambda content: content["files"].update({name: content["files"]["model.pte"]}))
    assert "which is no path within the bundle. Do not use this bundle." in _error(cli("profile", bundle, "--json"))


def test_a_bundle_with_a_link_that_leads_out(cli, bundle):
    (bundle / "model.pte").unlink()
    (bundle / "model.pte").symlink_to(bundle.parent / "net.py")
    assert "leads out of the bundle" in _error(cli("profile", bundle, "--json"))


def test_a_bundle_of_another_schema_version(cli, bundle):
    _edit_manifest(bundle, lambda content: content.update(schema_version=99))
    message = _error(cli("profile", bundle, "--json"))
    assert "has schema version 99; this Edge SDK reads 1." in message


def _small_disk(folder: Path, command: list[str], size_kib: int) -> subprocess.CompletedProcess[str]:
    """Runs a command with a file system of that size mounted at ``folder``, in a name space of its own."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare here to mount a small file system with")
    mount = f"mount -t tmpfs -o size={size_kib}k tmpfs {shlex.quote(str(folder))}"
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*unshare, mount], capture_output=True).returncode:
        pytest.skip("this system does not let us mount a small file system")
    script = f"{mount} && {shlex.join(command)}; code=$?; find {shlex.quote(str(folder))} -mindepth 1 >&2; exit $code"
    return subprocess.run([*unshare, script], capture_output=True, text=True, timeout=600, cwd=folder.parent)


@pytest.mark.slow
@pytest.mark.parametrize("full", ["out", "cache"])
def test_a_disk_that_is_full(full, folder, monkeypatch):
    pytest.importorskip("executorch", reason="executorch is not installed: pip install 'edge-sdk[executorch]'")
    place = folder / full
    place.mkdir()
    if full == "cache":
        monkeypatch.setenv("EDGE_SDK_CACHE", str(place))
    command = [sys.executable, "-m", "edge_sdk", "compile", "net.py:build", "--target", "xnnpack-cpu", "--out", "out"]
    done = _small_disk(place, command, size_kib=4)
    assert done.returncode == 1, done.stderr
    lines = done.stderr.splitlines()
    place_of_error = next(number for number, line in enumerate(lines) if line.startswith("edge-sdk: error: "))
    assert "the disk is full; free some space. Nothing was left half written." in lines[place_of_error]
    left = [Path(line) for line in lines[place_of_error + 1 :]]
    assert not [path for path in left if path.name.startswith(".") or path.suffix == ".edge"], left


@pytest.mark.slow
def test_a_folder_that_cannot_be_made(cli, folder):
    pytest.importorskip("executorch", reason="executorch is not installed: pip install 'edge-sdk[executorch]'")
    (folder / "out").write_text("a file")
    arguments = ("compile", "net.py:build", "--target", "xnnpack-cpu", "--out", Path("out") / "below", "--json")
    message = _error(cli(*arguments))
    assert message.startswith("cannot write out/below/") and "Nothing was left half written." in message
    assert (folder / "out").read_text() == "a file"
