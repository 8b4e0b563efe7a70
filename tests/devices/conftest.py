"""Runners of a test's own, in a folder laid out like ``runtimes/``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from devices_remotes import BOARD, PHONE, remote

from edge_sdk.devices._process import Limits
from edge_sdk.devices.local import LocalDevice
from edge_sdk.schema.request import PartRequest, RunRequest

HELLO = (
    '{"type":"hello","protocol_version":1,"runtime":"fake","version":"1","python":"3","pid":1,'
    '"device":{"os":"x","abi":"y","cpus":1}}'
)
RESULT = '{"type":"result","latency":null,"memory":null,"conditions":{},"facts":{},"outputs":null}'

Fake = Callable[..., LocalDevice]


@pytest.fixture
def fake(tmp_path: Path):
    """A local device whose runner ``fake`` is the given program."""
    devices = []

    def make(program: str, name: str = "fake", **limits) -> LocalDevice:
        folder = tmp_path / "runtimes" / name
        folder.mkdir(parents=True)
        header = f"import os, sys, time, signal\nHELLO = {HELLO!r}\nRESULT = {RESULT!r}\n"
        say = "def say(*lines):\n    for line in lines:\n        print(line, flush=True)\n"
        (folder / "runner.py").write_text(header + say + program)
        device = LocalDevice(runtimes_dir=folder.parent, limits=Limits(**{"silence_s": 20.0, **limits}))
        devices.append(device)
        return device

    yield make
    for device in devices:
        device.close()


@pytest.fixture
def request_of(tmp_path: Path) -> RunRequest:
    """A request that the fake runners do not read."""
    part = PartRequest(name="forward", program="x", entry="main", inputs=["x"], outputs=["y"])
    return RunRequest(bundle=str(tmp_path), parts=[part], reference="reference.npz")


@pytest.fixture(params=[BOARD, PHONE])
def far(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A device behind a link: once a board, once a phone."""
    with remote(request.param, tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A board behind the genuine sshd."""
    with remote("ssh", tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A phone behind the genuine adb."""
    with remote("adb", tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def bundle(tmp_path: Path):
    """A bundle of ONNX Runtime that is small and right."""
    return tiny.bundle(tmp_path, "onnxruntime", tiny.onnx_program())
