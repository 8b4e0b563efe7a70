"""Faults on demand, of the phone and of the board, through the genuine clients."""

from __future__ import annotations

import os
import subprocess
from time import monotonic

import pytest

from edge_sdk.testing import KINDS, Phone

from .conftest import wait_for


@pytest.fixture(
    params=[
        pytest.param("phone", marks=pytest.mark.debian("adb")),
        pytest.param("sshd", marks=pytest.mark.debian("openssh-server")),
    ]
)
def device(request):
    """The phone or the board, with the command line that runs a script there and its environment."""
    device = request.getfixturevalue(request.param)
    if isinstance(device, Phone):
        server = request.getfixturevalue("server")
        prefix, env = [server.client, "-s", device.serial, "shell"], os.environ | server.env
    else:
        prefix, env = ["ssh", "-F", str(device.config), device.alias], dict(os.environ)

    def run(script: str, **options) -> subprocess.CompletedProcess[bytes]:
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run([*prefix, script], env=env, capture_output=True, timeout=30, **options)

    device.test_run = run
    device.test_start = lambda script: subprocess.Popen(
        [*prefix, script], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    yield device
    device.clear_faults()
    wait_for(lambda: device.processes() == [])


def test_a_fault_meets_only_its_command_and_only_so_often(device):
    fault = device.fault("exit", on="make [a-z]+", times=2, code=3, words="no such thing")
    assert (fault.kind, fault.hits) == ("exit", 0)
    assert device.test_run("echo well").stdout == b"well\n"
    for hits in (1, 2):
        done = device.test_run("echo make all")
        assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"no such thing\n")
        assert fault.hits == hits
    assert device.test_run("echo make all").stdout == b"make all\n"


def test_garbage(device):
    device.fault("garbage", bytes=1000)
    done = device.test_run("echo well")
    assert done.returncode == 0 and len(done.stdout) == 1000 and b"well" not in done.stdout


@pytest.mark.parametrize("line", [80, 0])
def test_endless(device, line):
    device.fault("endless", line=line)
    with device.test_start("echo well") as running:
        got = running.stdout.read(3_000_000)
        assert got.count(b"\n") == (3_000_000 // 80 if line else 0)
        running.kill()
        running.stdout.close()
    wait_for(lambda: device.processes() == [])


def test_hang(device):
    device.fault("hang", on="well")
    with device.test_start("echo well") as running:
        wait_for(lambda: device.processes())
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.3)
        running.kill()
        assert running.stdout.read() == b""
    wait_for(lambda: device.processes() == [])


def test_disk_full(device, tmp_path):
    folder = device.tmp if isinstance(device, Phone) else device.home
    script = f"cat > {folder}/file && mv {folder}/file {folder}/whole"
    device.fault("disk_full", on="cat >", bytes=5000)
    done = device.test_run(script, input=bytes(100_000))
    assert done.returncode == 1 and done.stderr == b"cat: write error: No space left on device\n"
    assert (folder / "file").stat().st_size == 5000
    device.fault("disk_full")
    done = device.test_run(f"mkdir -p {folder} {folder}/new")
    assert done.returncode == 1 and b"mkdir: cannot create directory" in done.stderr
    assert b"No space left on device" in done.stderr
    device.fault("disk_full")
    assert device.test_run(f"mkdir -p {folder} && cat {folder}/file").stdout == bytes(5000)
    assert device.test_run(script, input=bytes(100_000)).returncode == 0
    assert (folder / "whole").stat().st_size == 100_000
    (folder / "whole").unlink()


def test_kill(device):
    device.fault("kill", on="sleep", after_s=0.2)
    begin = monotonic()
    done = device.test_run("echo begun; sleep 20; echo never")
    assert done.stdout == b"begun\n" and done.returncode in (137, 255)  # ssh tells of any signal by 255
    assert monotonic() - begin < 10
    assert device.processes() == []
    device.fault("kill", after_s=20)
    assert device.test_run("exit 4").returncode == 4


def test_what_is_no_fault_is_said(tmp_path):
    phone = Phone(tmp_path)
    with pytest.raises(ValueError, match="unknown fault 'flood'; known: garbage, endless, hang, disk_full, exit, kill"):
        phone.fault("flood")
    with pytest.raises(ValueError, match=r"the fault 'hang' has no option 'after_s': it says nothing and never ends"):
        phone.fault("hang", after_s=1)
    with pytest.raises(ValueError, match=r"'\(' is no regular expression: "):
        phone.fault("hang", on="(")
    assert set(KINDS) == {"garbage", "endless", "hang", "disk_full", "exit", "kill"}


@pytest.mark.debian("adb")
def test_a_push_into_a_full_disk_leaves_nothing(adb, phone, tmp_path):
    (tmp_path / "file").write_bytes(bytes(3_000_000))
    fault = phone.fault("disk_full", on="push .*file$")
    done = adb("push", tmp_path / "file", "/data/local/tmp/file", text=True)
    assert done.returncode and "No space left on device" in done.stdout + done.stderr
    assert fault.hits == 1 and not (phone.tmp / "file").exists()
    assert adb("push", tmp_path / "file", "/data/local/tmp/file").returncode == 0


@pytest.mark.debian("adb")
@pytest.mark.parametrize(("kind", "words"), [("exit", "I/O error"), ("garbage", ""), ("kill", "")])
def test_other_faults_of_a_pull(adb, phone, tmp_path, kind, words):
    (phone.tmp / "file").write_bytes(b"data")
    phone.fault(kind, on="pull ")
    done = adb("pull", "/data/local/tmp/file", tmp_path / "file", text=True, errors="replace")
    assert done.returncode and words in done.stdout + done.stderr
    assert adb("pull", "/data/local/tmp/file", tmp_path / "file").returncode == 0


@pytest.mark.debian("adb")
def test_offline_and_back(server, phone):
    phone.offline()

    def state() -> str:
        done = server.run("-s", phone.serial, "get-state", text=True)
        return (done.stdout + done.stderr).strip()

    wait_for(lambda: "offline" in state())
    with pytest.raises(ConnectionError, match="refused"):
        server.run("disconnect", phone.serial)
        server.connect(phone)
    phone.online()
    server.connect(phone)
    assert server.run("-s", phone.serial, "shell", "echo back").stdout == b"back\n"


@pytest.mark.debian("adb")
def test_silent_and_back(server, phone):
    phone.offline(silent=True)
    with pytest.raises(subprocess.TimeoutExpired):
        server.run("-s", phone.serial, "shell", "true", timeout=0.5)
    phone.online()
    assert server.run("-s", phone.serial, "shell", "echo back").stdout == b"back\n"


@pytest.mark.debian("adb")
def test_a_silent_phone_can_be_left(tmp_path, server):
    with Phone(tmp_path / "phone") as phone:
        server.connect(phone)
        phone.offline(silent=True)
    server.run("disconnect", phone.serial)
    assert phone.processes() == []
