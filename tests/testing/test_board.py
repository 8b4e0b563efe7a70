"""The board as the genuine ssh finds it."""

from __future__ import annotations

import os
import subprocess

import pytest

from edge_sdk.testing import SshServer

from .conftest import wait_for

pytestmark = pytest.mark.debian("openssh-server")


def test_a_session_has_a_home_of_its_own(sshd, ssh):
    done = ssh('echo "$HOME"; pwd; env | grep -c "^XDG_\\|^SSH_ORIGINAL"; echo err >&2; exit 5')
    assert done.stdout.decode().split() == [str(sshd.home), str(sshd.home), "0"]
    assert (done.returncode, done.stderr) == (5, b"err\n")


def test_binary_input_and_output_arrive_whole(sshd, ssh):
    data = os.urandom(3_000_001)
    assert ssh("cat > in && cat in", input=data).stdout == data
    assert (sshd.home / "in").read_bytes() == data


def test_scp(sshd, tmp_path):
    (tmp_path / "file").write_bytes(data := os.urandom(300_001))
    subprocess.run(["scp", "-q", "-F", sshd.config, tmp_path / "file", f"{sshd.alias}:there"], check=True)
    assert (sshd.home / "there").read_bytes() == data


def test_an_unknown_host_and_a_changed_one_are_refused(tmp_path):
    with SshServer(tmp_path / "ssh with a space") as sshd:

        def ssh() -> subprocess.CompletedProcess[str]:
            command = ["ssh", "-F", sshd.config, "-p", str(sshd.port), sshd.host, "true"]
            return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)

        assert ssh().returncode == 0
        sshd.forget_host()
        assert ssh().stderr.strip() == "Host key verification failed."
        sshd.trust()
        sshd.change_host_key()
        assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in ssh().stderr
        sshd.trust()
        assert ssh().returncode == 0


def test_sessions_and_what_they_left(sshd, ssh):
    command = ["ssh", "-F", str(sshd.config), sshd.alias, "sleep 100"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as running:
        wait_for(lambda: any("sleep 100" in process.command for process in sshd.processes()))
        assert len(sshd.sessions()) == 1
        running.kill()
    wait_for(lambda: sshd.sessions() == [])
    assert any(process.command == "sleep 100" for process in sshd.processes())  # sshd kills nothing
    ssh("pkill -x -f 'sleep 100'")
    wait_for(lambda: sshd.processes() == [])


def test_nothing_is_left_behind(tmp_path):
    with SshServer(tmp_path) as sshd:
        command = ["ssh", "-F", str(sshd.config), sshd.alias, "echo begun; sleep 100"]
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert running.stdout and running.stdout.readline() == b"begun\n"
        session, left = sshd.sessions(), sshd.processes()
        assert session and left
    assert running.wait(10) == 255
    running.stdout.close()
    assert sshd.sessions() == [] and sshd.processes() == []
    assert not any(os.path.exists(f"/proc/{process.pid}/cwd") for process in (*session, *left))


def test_two_boards_in_one_configuration(sshd, tmp_path):
    with SshServer(tmp_path / "other") as other:
        (tmp_path / "both").write_text(f'Include "{sshd.config}"\nInclude "{other.config}"\n')
        for board in (sshd, other):
            command = ["ssh", "-F", tmp_path / "both", board.alias, "pwd"]
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
            assert done.stdout == f"{board.home}\n", done.stderr
