"""The verbs that work: their documents, and how what fails ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NET = """
import torch

def build():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 5))
    return module.eval(), (torch.randn(1, 3, 8, 8),)
"""

REPORT_KEYS = [
    "schema_version",
    "created",
    "model",
    "target",
    "runtime",
    "pruning",
    "quantization",
    "device",
    "bundle",
    "latency",
    "throughput_per_s",
    "memory",
    "gpu",
    "engine",
    "energy",
    "sustained",
    "numerics",
    "accuracy",
    "conditions",
    "partition",
    "roofline",
    "predictions",
    "beside",
]


@pytest.fixture(scope="module")
def net(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("net") / "net.py"
    path.write_text(NET)
    return path


def test_profile_of_nothing(cli):
    done = cli("profile", "nowhere.edge")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("edge-sdk: error: no bundle at nowhere.edge: it is missing")


def test_a_device_that_nobody_knows_ends_with_3(cli, net):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'edge-sdk[onnxruntime]'")
    arguments = ("deploy", f"{net}:build", "--target", "desktop-cpu", "--runtime", "onnxruntime")
    done = cli(*arguments, "--device", "carrier-pigeon://coop", "--json")
    assert done.returncode == 3
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == "DeviceError" and error["exit_code"] == 3
    assert "unknown device 'carrier-pigeon'" in error["message"]


@pytest.mark.slow
def test_compile_then_profile(cli, net, tmp_path):
    pytest.importorskip("executorch", reason="executorch is not installed: pip install 'edge-sdk[executorch]'")
    done = cli("compile", f"{net}:build", "--target", "xnnpack-cpu", "--out", "out", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert list(document) == ["bundle", "selection", "beside", "manifest"]
    bundle = Path(document["bundle"]["path"])
    assert bundle.suffix == ".edge" and (tmp_path / bundle).parent == tmp_path / "out"
    assert document["bundle"]["size_bytes"] > 0 and len(document["bundle"]["sha256"]) == 64
    assert document["selection"]["by"] == "only"
    assert document["manifest"]["target"] == "xnnpack-cpu"

    done = cli("profile", bundle, "--threads", 1, "--out", "profiled", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert list(report) == REPORT_KEYS
    assert report["conditions"]["threads"] == 1
    assert report == json.loads((tmp_path / "profiled" / "report.json").read_text())
    assert (tmp_path / "profiled" / "samples.json").is_file()
