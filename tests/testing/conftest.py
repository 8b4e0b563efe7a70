"""Stand-ins that the tests of a file share, and the genuine clients that talk to them."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from time import monotonic, sleep

import pytest

from edge_sdk.testing import AdbServer, Phone, SshServer

RUNNER = """\
import json, os, sys, time
mode = open(sys.argv[1]).read().strip()
def send(**line):
    print(json.dumps(line), flush=True)
send(type="hello", pid=os.getpid())
print("chatter", file=sys.stderr)
if mode == "crash":
    os.kill(os.getpid(), 11)
if mode == "sleep":
    time.sleep(60)
send(type="result", where=os.environ["TMPDIR"])
"""

Ssh = Callable[..., "subprocess.CompletedProcess[bytes]"]


def wait_for(condition: Callable[[], object], timeout_s: float = 15.0) -> None:
    """Waits until something is so."""
    deadline = monotonic() + timeout_s
    while not condition():
        assert monotonic() < deadline, f"it was not so within {timeout_s:g} s"
        sleep(0.02)


@pytest.fixture(scope="session", autouse=True)
def hangup():
    """Shells end when adbd hangs up on them: under nohup they would inherit that they do not."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with AdbServer(tmp_path_factory.mktemp("adb")) as server:
        yield server


@pytest.fixture
def phone(tmp_path, server):
    runner = tmp_path / "runtimes/fake/runner.py"
    runner.parent.mkdir(parents=True)
    runner.write_text(RUNNER)
    with Phone(tmp_path / "phone", runtimes=tmp_path / "runtimes") as phone:
        server.connect(phone)
        yield phone
        server.run("disconnect", phone.serial)


@pytest.fixture
def adb(server, phone):
    """Runs adb for the phone."""

    def run(*arguments, **options) -> subprocess.CompletedProcess[bytes]:
        return server.run("-s", phone.serial, *arguments, **options)

    return run


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    with SshServer(tmp_path_factory.mktemp("ssh")) as sshd:
        yield sshd


@pytest.fixture
def ssh(sshd) -> Ssh:
    """Runs a command by ssh."""

    def run(script: str, *options: str, **more) -> subprocess.CompletedProcess[bytes]:
        if "input" not in more:
            more.setdefault("stdin", subprocess.DEVNULL)
        command = ["ssh", "-F", str(sshd.config), *options, sshd.alias if "-p" not in options else sshd.host, script]
        return subprocess.run(command, capture_output=True, timeout=60, **more)

    return run
