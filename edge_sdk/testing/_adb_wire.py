"""The ADB transport, the device's side: packets, and streams with their flow control.

Source: AOSP, packages/modules/adb/protocol.txt.
"""

from __future__ import annotations

import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = (
    int.from_bytes(name, "little") for name in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
)
VERSION = 0x01000001
CHECKED = 0x01000000
"""The version that still wants a checksum of every payload."""
MAX_PAYLOAD = 1 << 20
_HEADER = struct.Struct("<6I")

Pieces = bytes | bytearray | memoryview


class ClosedError(Exception):
    """The other side closed the stream, or the link is gone."""


def rest_of(pieces: list[Pieces], done: int) -> list[Pieces]:
    """What is left of pieces after so many bytes were written."""
    while pieces and done >= len(pieces[0]):
        done -= len(pieces[0])
        pieces = pieces[1:]
    return [memoryview(pieces[0])[done:], *pieces[1:]] if done else pieces


class Stream:
    """One stream of a link: a service's two ends. `read` and `write` are each for one thread at a time."""

    def __init__(self, link: Link, local: int, remote: int) -> None:
        self.max_payload = link.max_payload
        self._link = link
        self._local = local
        self._remote = remote
        self._inbox: queue.SimpleQueue[Pieces | None] = queue.SimpleQueue()
        self._ready = threading.Semaphore(1)  # one payload may be under way at a time
        self._is_closed = False

    def read(self) -> Pieces:
        """The next payload; empty where the other side closed. The other side may then send another."""
        payload = self._inbox.get()
        if payload is None:
            self._inbox.put(None)
            return b""
        with suppress(ClosedError):
            self._link.send(OKAY, self._local, self._remote)
        return payload

    def __iter__(self) -> Iterator[Pieces]:
        while payload := self.read():
            yield payload

    def write(self, *pieces: Pieces) -> None:
        """Sends one payload, at most ``max_payload`` bytes, when the other side has taken the one before.

        Raises:
            ClosedError: Nobody is there to take it.
        """
        self._ready.acquire()
        if self._is_closed:
            self._ready.release()
            raise ClosedError
        self._link.send(WRTE, self._local, self._remote, *pieces)

    def close(self) -> None:
        """Closes the stream; what was written before still arrives."""
        self._link.close_stream(self._local, self._remote)

    def took(self) -> None:
        """The other side is ready for another payload."""
        self._ready.release()

    def came(self, payload: Pieces) -> None:
        """The other side sent a payload."""
        self._inbox.put(payload)

    def end(self) -> None:
        """The other side closed the stream, or the link is gone."""
        self._is_closed = True
        self._inbox.put(None)
        self._ready.release()


class Link:
    """One connection of an adb server, from its first packet to its end.

    Args:
        sock: The connection.
        awake: While it is not set nothing is read, answered or sent.
        banner: What the device says of itself.
        admit: Takes an AUTH packet's kind and payload, None for the first packet; sends what is to be
            sent and tells whether the other side is let in.
        serve: Serves a stream by the name of its service; runs in a thread of its own.
    """

    def __init__(
        self,
        sock: socket.socket,
        awake: threading.Event,
        banner: bytes,
        admit: Callable[[Link, int, bytes], bool],
        serve: Callable[[Stream, str], None],
    ) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.max_payload = MAX_PAYLOAD
        self.is_online = False
        self._sock = sock
        self._awake = awake
        self._banner = banner
        self._admit = admit
        self._serve = serve
        self._version = CHECKED
        self._sending = threading.Lock()
        self._streams: dict[int, Stream] = {}
        self._streams_lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._next = 1

    def run(self) -> None:
        """Answers packets until the connection ends, then ends every stream and waits for its service."""
        try:
            while (packet := self._receive()) is not None:
                self._awake.wait()
                self._handle(*packet)
        except (OSError, ClosedError):
            pass  # the connection is gone, which is what links do
        finally:
            self.drop()
            self.is_online = False
            with self._streams_lock:
                streams, self._streams = list(self._streams.values()), {}
            for stream in streams:
                stream.end()
            self._sock.close()
            for thread in self._threads:
                thread.join()

    def drop(self) -> None:
        """Cuts the connection; `run` then ends."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def greet(self) -> None:
        """Lets the other side in."""
        self.is_online = True
        self.send(CNXN, VERSION, MAX_PAYLOAD, self._banner)

    def send(self, command: int, first: int, second: int, *pieces: Pieces) -> None:
        """Sends a packet.

        Raises:
            ClosedError: The connection is gone.
        """
        size = sum(map(len, pieces))
        # Until its version is known the other side expects a checksum.
        wants_sum = self._version == CHECKED or command in (CNXN, AUTH)
        check = sum(map(sum, pieces)) & 0xFFFFFFFF if wants_sum else 0
        parts: list[Pieces] = [_HEADER.pack(command, first, second, size, check, command ^ 0xFFFFFFFF), *pieces]
        self._awake.wait()
        try:
            with self._sending:
                while parts := rest_of(parts, self._sock.sendmsg(parts)):
                    continue
        except OSError as error:
            raise ClosedError from error

    def close_stream(self, local: int, remote: int) -> None:
        """Closes a stream unless the other side has done so."""
        with self._streams_lock:
            stream = self._streams.pop(local, None)
        if stream is not None:
            stream.end()
            with suppress(ClosedError):
                self.send(CLSE, local, remote)

    def _receive(self) -> tuple[int, int, int, Pieces] | None:
        header = self._exactly(_HEADER.size)
        if header is None:
            return None
        command, first, second, size, check, magic = _HEADER.unpack(header)
        if magic != command ^ 0xFFFFFFFF or size > MAX_PAYLOAD:
            return None  # no adb server: there is nothing to say to it
        payload = self._exactly(size)
        if payload is None or (self._version == CHECKED and sum(payload) & 0xFFFFFFFF != check):
            return None
        return command, first, second, payload

    def _exactly(self, size: int) -> Pieces | None:
        buffer = bytearray(size)
        view = memoryview(buffer)
        while view:
            count = self._sock.recv_into(view, len(view), socket.MSG_WAITALL)
            if not count:
                return None
            view = view[count:]
        return buffer

    def _handle(self, command: int, first: int, second: int, payload: Pieces) -> None:
        if command == CNXN:
            self._version = min(first, VERSION)
            self.max_payload = min(second, MAX_PAYLOAD)
            if self._admit(self, 0, b""):
                self.greet()
        elif command == AUTH:
            if self._admit(self, first, bytes(payload)):
                self.greet()
        elif not self.is_online:
            return
        elif command == OPEN:
            self._open(first, bytes(payload).rstrip(b"\0").decode(errors="replace"))
        else:
            with self._streams_lock:
                stream = self._streams.get(second)
            if stream is None:
                return
            if command == WRTE:
                stream.came(payload)
            elif command == OKAY:
                stream.took()
            elif command == CLSE:
                self.close_stream(second, first)

    def _open(self, remote: int, service: str) -> None:
        local, self._next = self._next, self._next + 1
        stream = Stream(self, local, remote)
        with self._streams_lock:
            self._streams[local] = stream
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(
            target=self._run_service, args=(stream, service), name="edge-sdk-phone-service", daemon=True
        )
        self.send(OKAY, local, remote)
        thread.start()
        self._threads.append(thread)

    def _run_service(self, stream: Stream, service: str) -> None:
        try:
            self._serve(stream, service)
        except ClosedError:
            pass  # the other side has gone; the service ended with it
        finally:
            stream.close()
