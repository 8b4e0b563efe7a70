"""What the genuine adb of today does not say: older and newer clients, strangers, broken packets."""

from __future__ import annotations

import base64
import socket
import struct

import pytest

from edge_sdk.testing import Phone
from edge_sdk.testing._adb_wire import AUTH, CLSE, CNXN, OKAY, OPEN, WRTE

HEADER = struct.Struct("<6I")
KEY = base64.b64encode(struct.pack("<II256s256sI", 64, 0, b"\xff" * 256, bytes(256), 65537)) + b" me@here\0"


class Client:
    """An adb server in its simplest form."""

    def __init__(self, phone: Phone, version: int = 0x01000000, most: int = 4096) -> None:
        self.sock = socket.create_connection((phone.host, phone.port), timeout=10)
        self.send(CNXN, version, most, b"host::\0")

    def send(self, command: int, first: int, second: int, data: bytes = b"", check: int | None = None) -> None:
        check = sum(data) if check is None else check
        self.sock.sendall(HEADER.pack(command, first, second, len(data), check, command ^ 0xFFFFFFFF) + data)

    def get(self) -> tuple[int, int, int, bytes, int]:
        command, first, second, size, check, magic = HEADER.unpack(self._exactly(HEADER.size))
        assert magic == command ^ 0xFFFFFFFF
        return command, first, second, self._exactly(size), check

    def enter(self) -> bytes:
        """Asks to be let in by a new key; the phone's banner."""
        assert self.get()[0] == AUTH
        self.send(AUTH, 3, 0, KEY)
        command, _, _, banner, _ = self.get()
        assert command == CNXN
        return banner

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.sock.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data


@pytest.fixture
def bare(tmp_path):
    with Phone(tmp_path) as phone:
        yield phone


def test_an_old_client_gets_checksums_and_small_payloads(bare):
    client = Client(bare)
    banner = client.enter()
    assert banner.startswith(b"device::ro.product.name=e2sxeea;ro.product.model=SM-S926B;")
    client.send(OPEN, 5, 0, b"shell:head -c 10000 /dev/zero | tr '\\0' a\0")
    command, local, remote, _, _ = client.get()
    assert (command, remote) == (OKAY, 5)
    got = b""
    while True:
        command, first, second, data, check = client.get()
        if command == CLSE:
            break
        assert command == WRTE and (first, second) == (local, 5) and len(data) <= 4096 and check == sum(data)
        got += data
        client.send(OKAY, 5, local)
    assert got == b"a" * 10000


def test_one_payload_at_a_time(bare):
    client = Client(bare, 0x01000001, 1 << 20)
    client.enter()
    client.send(OPEN, 1, 0, b"shell:echo one; sleep 0.2; echo two\0")
    assert client.get()[0] == OKAY
    _, local, _, data, check = client.get()
    assert (data, check) == (b"one\n", 0)
    client.sock.settimeout(0.5)
    with pytest.raises(TimeoutError):
        client.get()
    client.send(OKAY, 1, local)
    assert client.get()[3] == b"two\n"


def test_a_wrong_signature_opens_nothing(bare):
    client = Client(bare)
    client.enter()
    second = Client(bare)
    token = second.get()[3]
    assert len(token) == 20
    for signature in (b"\x01" * 256, bytes(256), b"short", b""):
        second.send(AUTH, 2, 0, signature)
        command, first, _, again, _ = second.get()
        assert (command, first) == (AUTH, 1) and again != token
        token = again
    second.send(AUTH, 3, 0, b"no key")
    second.send(OPEN, 1, 0, b"shell:echo in > leak\0")
    second.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        second.get()
    assert not (bare.folder / "leak").exists()


@pytest.mark.parametrize(
    "packet",
    [
        b"GET / HTTP/1.1\r\nHost: phone\r\n\r\n",
        HEADER.pack(OPEN, 1, 0, (1 << 20) + 1, 0, OPEN ^ 0xFFFFFFFF),
        HEADER.pack(WRTE, 1, 99, 3, 7, WRTE ^ 0xFFFFFFFF) + b"abc",
    ],
    ids=["no packet", "too long", "wrong checksum"],
)
def test_broken_packets_end_the_connection(bare, packet):
    client = Client(bare)
    client.enter()
    client.sock.sendall(packet)
    with pytest.raises((EOFError, ConnectionResetError)):
        client.get()
    assert Client(bare).enter()


def test_a_service_that_is_not_there_closes(bare):
    client = Client(bare)
    client.enter()
    client.send(OPEN, 1, 0, b"tcp:80\0")
    assert [client.get()[0] for _ in range(2)] == [OKAY, CLSE]


def test_lists_of_newer_clients(bare):
    (bare.sdcard / "file").write_bytes(b"12345")
    client = Client(bare, 0x01000001, 1 << 20)
    assert b"ls_v2" in client.enter()
    client.send(OPEN, 1, 0, b"sync:\0")
    assert client.get()[0] == OKAY
    client.send(WRTE, 1, 1, b"LIS2" + struct.pack("<I", 7) + b"/sdcard")
    got = b""
    while b"DONE" not in got:
        command, local, _, data, _ = client.get()
        if command == WRTE:
            client.send(OKAY, 1, local)
            got += data
    entry = struct.Struct("<4sIQQIIIIQqqqI")
    name, code, _, _, mode, *_, size, _, _, _, length = entry.unpack_from(got)
    assert (name, code, mode & 0o170000, size, length) == (b"DNT2", 0, 0o100000, 5, 4)
    assert got[entry.size : entry.size + 4] == b"file"
    assert got[entry.size + 4 :] == b"DONE" + bytes(entry.size - 4)
