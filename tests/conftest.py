"""What all tests share: a cache of their own, the command line as a process, and the reasons not to run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from debian_packages import NEEDED

DEVICE = "EDGE_SDK_TEST_DEVICE"

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("debian"):
        for package in marker.args:
            if not NEEDED[package].exists():
                pytest.skip(f"the Debian package {package} is not installed: apt-get install {package}")
    if item.get_closest_marker("gpu") and not Path("/dev/nvidia0").exists():
        pytest.skip("there is no NVIDIA GPU in this machine")
    if item.get_closest_marker("hardware") and DEVICE not in os.environ:
        pytest.skip(f"no device is named: set {DEVICE} to its URI")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    """A cache that the whole run shares, and that is not the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_SDK_CACHE", str(folder))
        yield folder


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Runs ``edge-sdk`` as a process in an empty folder."""

    def run(*arguments: str | Path, **options) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edge_sdk", *map(str, arguments)]
        options = {"cwd": tmp_path, "text": True, "capture_output": True, "timeout": 600, **options}
        return subprocess.run(command, **options)

    return run
