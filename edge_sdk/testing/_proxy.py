"""A link that can be cut, frozen and slowed: a TCP proxy in front of a stand-in."""

from __future__ import annotations

import queue
import selectors
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

from edge_sdk.testing import _ports

_READ_BYTES = 1 << 18
_MOST_WAITING = 1 << 20
_RESET = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class _End:
    """One socket of a connection, and what waits to be sent to it."""

    sock: socket.socket
    is_client: bool
    other: _End = field(init=False)
    waiting: deque[tuple[float, memoryview]] = field(default_factory=deque)
    waiting_bytes: int = 0
    has_ended: bool = False  # the other side sends no more
    is_connected: bool = True


class LinkProxy:
    """Passes bytes between clients and a server on ``host:port``. A context manager.

    Args:
        host: The server's address.
        port: The server's port.
        delay_ms: How much later bytes arrive, in either direction; may be changed at any time.
        bytes_per_s: How much passes in a second in either direction, all connections together; None is as much
            as the machine carries.
    """

    def __init__(self, host: str, port: int, *, delay_ms: float = 0.0, bytes_per_s: float | None = None) -> None:
        self.delay_ms = delay_ms
        self.bytes_per_s = bytes_per_s
        self._free_at = {True: 0.0, False: 0.0}  # when each direction has carried what it was given
        self.port = 0
        self._server = (host, port)
        self._is_frozen = False
        self._is_open = True
        self._left: int | None = None
        self._cuts = 0
        self._ends: set[_End] = set()
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._runs = True

    @property
    def host(self) -> str:
        """Its address."""
        return _ports.HOST

    @property
    def connections(self) -> int:
        """How many connections pass through it now."""
        return len(self._ends) // 2

    @property
    def cuts(self) -> int:
        """How often `cut_after` has cut so far."""
        return self._cuts

    def __enter__(self) -> LinkProxy:
        self._listener = _ports.bound()
        self.port = self._listener.getsockname()[1]
        self._listener.listen(64)
        self._listener.setblocking(False)
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="edge-sdk-proxy", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._order(self._stop)
        self._thread.join()

    def cut(self) -> None:
        """Resets all connections now; new ones are taken."""
        self._order(self._reset)

    def cut_after(self, count: int) -> None:
        """Resets all connections, once, when so many more bytes have gone from clients to the server."""

        def order() -> None:
            self._left = count

        self._order(order)

    def freeze(self) -> None:
        """No byte passes any more; the connections stay."""

        def order() -> None:
            self._is_frozen = True

        self._order(order)

    def thaw(self) -> None:
        """Bytes pass again, those that waited first."""

        def order() -> None:
            self._is_frozen = False

        self._order(order)

    def refuse(self) -> None:
        """Resets all connections and refuses new ones."""

        def order() -> None:
            if self._is_open:
                self._is_open = False
                self._selector.unregister(self._listener)
                with suppress(OSError):
                    self._listener.shutdown(socket.SHUT_RDWR)  # which keeps the port, and may be undone by listen
            self._reset()

        self._order(order)

    def accept(self) -> None:
        """Takes new connections again."""

        def order() -> None:
            if not self._is_open:
                self._is_open = True
                self._listener.listen(64)
                self._selector.register(self._listener, selectors.EVENT_READ)

        self._order(order)

    def _order(self, action: Callable[[], None]) -> None:
        """Lets the thread do something, and waits until it is done."""
        done = threading.Event()

        def act() -> None:
            try:
                action()
            finally:
                done.set()

        self._orders.put(act)
        self._wake.send(b"!")
        done.wait()

    def _run(self) -> None:
        flushed = monotonic()
        while self._runs:
            for key, events in self._selector.select(self._pause(flushed)):
                if key.fileobj is self._woken:
                    self._obey()
                elif key.fileobj is self._listener:
                    self._take()
                elif key.data in self._ends:
                    self._pass(key.data, events)
            flushed = monotonic()
            self._flush(flushed)
        self._selector.close()
        for sock in (self._listener, self._wake, self._woken):
            sock.close()

    def _obey(self) -> None:
        with suppress(BlockingIOError):
            self._woken.recv(4096)
        while not self._orders.empty():
            self._orders.get()()
        for end in self._ends:
            self._watch(end)

    def _stop(self) -> None:
        self._reset()
        self._runs = False

    def _take(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ends = _End(client, True), _End(server, False)
        ends[0].other, ends[1].other = ends[1], ends[0]
        ends[1].is_connected = server.connect_ex(self._server) == 0
        self._ends.update(ends)
        for end in ends:
            self._selector.register(end.sock, selectors.EVENT_READ, end)
            self._watch(end)

    def _watch(self, end: _End) -> None:
        """Asks the selector for what this end can do now."""
        events = 0
        if not self._is_frozen:
            if end.is_connected and not end.other.has_ended and end.other.waiting_bytes < _MOST_WAITING:
                events |= selectors.EVENT_READ
            if not end.is_connected or (end.waiting and end.waiting[0][0] <= monotonic()):
                events |= selectors.EVENT_WRITE
        known = self._selector.get_map().get(end.sock)
        if known is None and events:
            self._selector.register(end.sock, events, end)
        elif known is not None and not events:
            self._selector.unregister(end.sock)
        elif known is not None and known.events != events:
            self._selector.modify(end.sock, events, end)

    def _pass(self, end: _End, events: int) -> None:
        try:
            if not end.is_connected and events & selectors.EVENT_WRITE:
                if end.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise ConnectionError
                end.is_connected = True
            if events & selectors.EVENT_READ and not self._is_frozen:
                self._read(end)
            self._send(end.other)
            self._send(end)
        except BlockingIOError:
            pass
        except OSError:
            self._close(end, reset=True)
            return
        for one in (end, end.other):
            if one in self._ends:
                self._watch(one)

    def _read(self, end: _End) -> None:
        limit = _READ_BYTES
        if end.is_client and self._left is not None:
            limit = max(1, min(limit, self._left))
        data = end.sock.recv(limit)
        other = end.other
        if not data:
            other.has_ended = True
            return
        if end.is_client and self._left is not None:
            self._left -= len(data)
        other.waiting.append((self._due(end, len(data)), memoryview(data)))
        other.waiting_bytes += len(data)
        if self._left is not None and self._left <= 0:
            self._left = None
            self._cuts += 1
            with suppress(OSError):
                self._send(other)
            self._reset()

    def _due(self, end: _End, count: int) -> float:
        """When so many bytes that come from ``end`` have passed."""
        passed = monotonic()
        if self.bytes_per_s is not None:
            passed = max(passed, self._free_at[end.is_client]) + count / self.bytes_per_s
            self._free_at[end.is_client] = passed
        return passed + self.delay_ms / 1000

    def _send(self, end: _End) -> None:
        """Sends what is due; after the last of it, that the other side has ended."""
        if self._is_frozen or not end.is_connected or end not in self._ends:
            return
        try:
            while end.waiting and end.waiting[0][0] <= monotonic():
                due, data = end.waiting.popleft()
                try:
                    sent = end.sock.send(data)
                except BlockingIOError:
                    sent = 0
                end.waiting_bytes -= sent
                if sent < len(data):
                    end.waiting.appendleft((due, data[sent:]))
                    return
        except OSError:
            self._close(end, reset=True)
            return
        if end.has_ended and not end.waiting:
            with suppress(OSError):
                end.sock.shutdown(socket.SHUT_WR)
            if end.other.has_ended and not end.other.waiting:
                self._close(end, reset=False)

    def _flush(self, now: float) -> None:
        for end in [end for end in self._ends if end.waiting and end.waiting[0][0] <= now]:
            self._send(end)
            for one in (end, end.other):
                if one in self._ends:
                    self._watch(one)

    def _pause(self, flushed: float) -> float | None:
        """How long nothing is due; what was due when last sent, and could not be, the selector watches."""
        if self._is_frozen:
            return None
        due = [end.waiting[0][0] for end in self._ends if end.waiting and end.waiting[0][0] > flushed]
        return max(0.0, min(due) - monotonic()) if due else None

    def _reset(self) -> None:
        for end in list(self._ends):
            self._close(end, reset=True)

    def _close(self, end: _End, *, reset: bool) -> None:
        for one in (end, end.other):
            if one in self._ends:
                self._ends.discard(one)
                with suppress(KeyError, ValueError):
                    self._selector.unregister(one.sock)
                if reset:
                    with suppress(OSError):
                        one.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                one.sock.close()
