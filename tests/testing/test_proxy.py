"""Links that break: the proxy, before plain sockets and before the genuine clients."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from time import monotonic

import pytest

from edge_sdk.testing import LinkProxy, Phone

from .conftest import wait_for


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(sock: socket.socket) -> None:
            with sock:
                try:
                    while data := sock.recv(65536):
                        sock.sendall(data)
                except OSError:
                    pass  # the link was cut, which is what is tested

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(sock,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def proxy(echo) -> Iterator[LinkProxy]:
    with LinkProxy("127.0.0.1", echo) as proxy:
        yield proxy


def _connect(proxy: LinkProxy) -> socket.socket:
    sock = socket.create_connection((proxy.host, proxy.port), timeout=10)
    sock.settimeout(10)
    return sock


def _exchange(sock: socket.socket, data: bytes) -> bytes:
    sender = threading.Thread(target=sock.sendall, args=(data,))
    sender.start()
    got = bytearray()
    while len(got) < len(data):
        got += sock.recv(65536)
    sender.join()
    return bytes(got)


def test_bytes_pass_in_both_directions(proxy):
    data = os.urandom(5_000_000)
    with _connect(proxy) as sock:
        assert _exchange(sock, data) == data
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    wait_for(lambda: proxy.connections == 0)


def test_cut(proxy):
    with _connect(proxy) as sock:
        _exchange(sock, b"a")
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    with _connect(proxy) as sock:
        assert _exchange(sock, b"again") == b"again"


def test_cut_after(proxy):
    with _connect(proxy) as sock:
        _exchange(sock, b"before")
        proxy.cut_after(100_000)
        assert _exchange(sock, bytes(99_999)) == bytes(99_999)
        assert proxy.cuts == 0
        with pytest.raises(ConnectionError):
            sock.sendall(bytes(100))
            while sock.recv(1000):
                continue
            raise ConnectionResetError
    assert proxy.cuts == 1
    with _connect(proxy) as sock:
        assert _exchange(sock, bytes(200_000)) == bytes(200_000)


def test_freeze_and_thaw(proxy):
    with _connect(proxy) as sock:
        _exchange(sock, b"a")
        proxy.freeze()
        sock.sendall(b"late")
        sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        sock.settimeout(10)
        proxy.thaw()
        assert sock.recv(10) == b"late"


def test_refuse_and_accept(proxy):
    with _connect(proxy) as sock:
        _exchange(sock, b"a")
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    with pytest.raises(ConnectionRefusedError):
        _connect(proxy)
    proxy.refuse()
    proxy.accept()
    proxy.accept()
    with _connect(proxy) as sock:
        assert _exchange(sock, b"b") == b"b"


def test_delay(proxy):
    with _connect(proxy) as sock:
        _exchange(sock, b"a")
        proxy.delay_ms = 100
        begin = monotonic()
        _exchange(sock, b"b")
        assert 0.2 <= monotonic() - begin < 2


def test_a_rate(proxy):
    with _connect(proxy) as sock:
        proxy.bytes_per_s = 1e6
        begin = monotonic()
        for _ in range(4):  # in a row, which a wake-up that was slept through would stop for good
            _exchange(sock, bytes(50_000))
        assert 0.4 <= monotonic() - begin < 4


def test_a_server_that_refuses(echo):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with LinkProxy("127.0.0.1", closed.getsockname()[1]) as proxy, pytest.raises(ConnectionError):
            with _connect(proxy) as sock:
                sock.recv(1)


@pytest.mark.debian("adb")
def test_adb_through_a_link_that_is_cut(server, tmp_path):
    (tmp_path / "file").write_bytes(data := os.urandom(20_000_000))
    with Phone(tmp_path / "phone") as phone, LinkProxy(phone.host, phone.port) as proxy:
        serial = server.connect(proxy)
        proxy.cut_after(5_000_000)
        done = server.run("-s", serial, "push", tmp_path / "file", "/sdcard/file")
        assert done.returncode and proxy.cuts == 1
        wait_for(lambda: not (phone.sdcard / "file").exists())  # adbd removes what did not come whole
        server.run("disconnect", serial)
        server.connect(proxy)
        assert server.run("-s", serial, "push", tmp_path / "file", "/sdcard/file").returncode == 0
        assert (phone.sdcard / "file").read_bytes() == data
        command = [server.client, "-s", serial, "shell", "sleep 100; true"]
        with subprocess.Popen(command, env=os.environ | server.env) as running:
            wait_for(lambda: "sleep 100" in [process.command for process in phone.processes()])
            proxy.cut()
            running.wait(10)  # with 0, as if all were well: adb's exit code tells nothing of the link
        # adbd hangs up on the shell alone: what the shell had started goes on.
        wait_for(lambda: [process.command for process in phone.processes()] == ["sleep 100"])
        server.run("disconnect", serial)


@pytest.mark.debian("openssh-server")
def test_ssh_through_a_link_that_is_cut(sshd, ssh):
    with LinkProxy(sshd.host, sshd.port) as proxy:
        assert ssh("echo via", "-p", str(proxy.port)).stdout == b"via\n"
        proxy.cut_after(5_000_000)
        done = ssh("cat > cut", "-p", str(proxy.port), input=bytes(20_000_000))
        assert done.returncode == 255 and proxy.cuts == 1
        wait_for(lambda: sshd.processes() == [])
        assert 0 < (sshd.home / "cut").stat().st_size < 5_000_000
