"""Set-up, push, run and verification on an aarch64 userland; see README.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = "EDGE_SDK_TEST_ARM64_ROOT"
PROGRAM = Path(__file__).with_name("arm64_root.py")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ROOT not in os.environ, reason=f"no arm64 root is named: set {ROOT} (tests/emulated/README.md)"),
]


@pytest.fixture
def uri(monkeypatch: pytest.MonkeyPatch):
    """The emulated board's URI."""
    folder = os.environ[ROOT]
    done = subprocess.run([sys.executable, PROGRAM, "start", folder], capture_output=True, text=True, check=True)
    monkeypatch.setenv("EDGE_SDK_SSH_CONFIG", f"{folder}/ssh_config")
    yield done.stdout.split()[-1]
    subprocess.run([sys.executable, PROGRAM, "stop", folder], check=True)


def test_a_deploy_on_aarch64_is_right_and_a_second_pushes_nothing(uri: str, cli) -> None:
    for _ in range(2):
        done = cli("device", "setup", uri, "--json", timeout=1800)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runtimes"][0]["changed"] is False
    kept = []
    for _ in range(2):
        done = cli(
            *("deploy", "efficientnet_lite0", "--target", "raspberry-pi-5", "--runtime", "onnxruntime"),
            *("--quantize", "int8-static", "--device", uri, "--json"),
            timeout=1800,
        )
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert report["device"]["abi"] == "aarch64"
        assert report["numerics"]["cosine"] > 0.99
        assert report["accuracy"]["top1_agreement_with_fp32"] > 0.9
        kept.append(_stored())
    assert kept[0] and kept[1] == kept[0]


def _stored() -> dict[str, tuple[int, int]]:
    """The board's store of pushed files: name to inode and time of change, which a new push would alter."""
    store = Path(os.environ[ROOT], "root/home/edge/.local/share/edge-sdk/objects")
    return {item.name: (item.stat().st_ino, item.stat().st_mtime_ns) for item in store.iterdir()}
