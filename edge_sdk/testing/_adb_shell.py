"""The services ``shell:`` and ``exec:``: commands that really run, on this machine.

Source: AOSP, packages/modules/adb/daemon/shell_service.cpp and shell_protocol.h.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from edge_sdk.testing._adb_wire import ClosedError, Pieces, Stream, rest_of

STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
_PACKET = struct.Struct("<BI")
_PIPE_BYTES = 1 << 20
_MOST_PIECES = 512

Launch = Callable[[str, int], "subprocess.Popen[bytes]"]
"""``launch(script, stderr)`` starts a command with pipes."""


def serve(stream: Stream, service: str, launch: Launch) -> None:
    """Runs the command of ``shell[,v2][,raw|pty][,TERM=...]:COMMAND`` or ``exec:COMMAND`` to its end.

    A terminal is not served: a command that asks for one gets pipes.
    """
    name, _, command = service.partition(":")
    is_v2 = "v2" in name.split(",")
    process = launch(command, subprocess.PIPE if is_v2 else subprocess.STDOUT)
    assert process.stdin and process.stdout
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # small pipes do as well, only slower
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    gone = os.eventfd(0)
    feeder = threading.Thread(
        target=_feed, args=(stream, process, gone, is_v2), name="edge-sdk-phone-stdin", daemon=True
    )
    feeder.start()
    try:
        _pump(stream, process, gone, is_v2)
        code = process.wait()
        if is_v2:
            stream.write(_PACKET.pack(EXIT, 1), bytes([code if code >= 0 else 128 - code]))
    finally:
        stream.close()  # which ends the feeder
        feeder.join()
        os.close(gone)


def _pump(stream: Stream, process: subprocess.Popen[bytes], gone: int, is_v2: bool) -> None:
    """Sends what the command prints until it closes both outputs, or the other side is gone."""
    assert process.stdout
    kinds = {process.stdout.fileno(): STDOUT}
    if process.stderr is not None:
        kinds[process.stderr.fileno()] = STDERR
    poll = select.poll()
    for descriptor in (*kinds, gone):
        poll.register(descriptor, select.POLLIN)
    head = _PACKET.size if is_v2 else 0
    buffer = memoryview(bytearray(min(stream.max_payload, 1 << 18)))
    try:
        _pass(stream, poll, kinds, gone, buffer, head)
    finally:  # a command that goes on printing when nobody listens is ended by that
        process.stdout.close()
        if process.stderr is not None:
            process.stderr.close()


def _pass(stream: Stream, poll: select.poll, kinds: dict[int, int], gone: int, buffer: memoryview, head: int) -> None:
    while kinds:
        for descriptor, _ in poll.poll():
            if descriptor == gone:
                return
            count = os.readv(descriptor, [buffer[head:]])
            if not count:
                poll.unregister(descriptor)
                del kinds[descriptor]
                continue
            if head:
                _PACKET.pack_into(buffer, 0, kinds[descriptor], count)
            try:
                stream.write(buffer[: head + count])
            except ClosedError:
                return


def _feed(stream: Stream, process: subprocess.Popen[bytes], gone: int, is_v2: bool) -> None:
    """Passes standard input on until the other side is gone. With its protocol, adbd then hangs up on the command."""
    assert process.stdin
    descriptor = process.stdin.fileno()
    for payload in _stdin_packets(stream) if is_v2 else ([(STDIN, payload)] for payload in stream):
        data: list[Pieces] = [piece for kind, piece in payload if kind == STDIN]
        if data and not process.stdin.closed:
            try:
                _write(descriptor, data)
            except BrokenPipeError:  # the command wants no more; the rest is read and dropped, as adbd does
                process.stdin.close()
        if any(kind == CLOSE_STDIN for kind, _ in payload):
            process.stdin.close()
    process.stdin.close()
    if is_v2:
        process.send_signal(signal.SIGHUP)
    os.eventfd_write(gone, 1)


def _write(descriptor: int, pieces: list[Pieces]) -> None:
    while pieces:
        pieces = rest_of(pieces, os.writev(descriptor, pieces[:_MOST_PIECES]))


def _stdin_packets(payloads: Iterable[Pieces]) -> Iterator[list[tuple[int, Pieces]]]:
    """The shell protocol's packets in each payload: kind and data, or a piece of its data."""
    head, kind, left = bytearray(), 0, 0
    for payload in payloads:
        view, found = memoryview(payload), []
        place = 0
        while place < len(view):
            if left:
                piece = view[place : place + left]
                found.append((kind, piece))
                place += len(piece)
                left -= len(piece)
                continue
            missing = _PACKET.size - len(head)
            head += view[place : place + missing]
            place += missing
            if len(head) == _PACKET.size:
                kind, left = _PACKET.unpack(head)
                head.clear()
                if not left:
                    found.append((kind, b""))
        yield found
