"""The service ``sync:``: files to and from the phone's folder.

Source: AOSP, packages/modules/adb/SYNC.TXT, file_sync_protocol.h and daemon/file_sync_service.cpp.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from edge_sdk.testing._adb_wire import ClosedError, Pieces, Stream
from edge_sdk.testing._faults import FaultBook

MOST_DATA = 64 * 1024
_MOST_PATH = 1024
_REQUEST = struct.Struct("<4sI")
_STAT_1 = struct.Struct("<III")
_STAT_2 = struct.Struct("<IQQIIIIQqqq")
_FILE_1 = struct.Struct("<IIII")
_FILE_2 = struct.Struct("<IQQIIIIQqqqI")


class _RefusedError(Exception):
    """What the other side asks for cannot be done; the words are for it."""


def host_path(root: Path, path: str) -> Path:
    """Where a path of the phone lies on this machine: always below ``root``.

    Raises:
        PermissionError: A link on the way leads out of the folder.
    """
    text = os.path.normpath("/" + path)
    text = "/" + text.lstrip("/")
    real = Path(os.path.realpath(root))
    for base in (root, real):
        if text == str(base) or text.startswith(f"{base}/"):
            text = text[len(str(base)) :] or "/"
            break
    place = real / text.lstrip("/")
    if text != "/" and not Path(os.path.realpath(place.parent)).is_relative_to(real):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    return place


class _Reader:
    """Bytes of a stream in any portions."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._view = memoryview(b"")

    def pieces(self, size: int) -> Iterator[memoryview]:
        while size:
            if not self._view:
                payload = self._stream.read()
                if not payload:
                    raise ClosedError
                self._view = memoryview(payload)
            piece, self._view = self._view[:size], self._view[size:]
            size -= len(piece)
            yield piece

    def exactly(self, size: int) -> bytes:
        return b"".join(self.pieces(size))

    def request(self) -> tuple[bytes, int]:
        return _REQUEST.unpack(self.exactly(_REQUEST.size))


def serve(stream: Stream, root: Path, faults: FaultBook) -> None:
    """Answers requests until the other side says QUIT or one of them fails."""
    reader = _Reader(stream)
    while True:
        name, size = reader.request()
        if name == b"QUIT":
            return
        if size > _MOST_PATH:
            _fail(stream, "path too long")
            return
        path = reader.exactly(size).decode(errors="surrogateescape")
        try:
            if name == b"STAT":
                stream.write(b"STAT", _stat_1(_lstat(root, path)[1]))
            elif name in (b"STA2", b"LST2"):
                stream.write(name, _stat_2(*_lstat(root, path, follow=name == b"STA2")))
            elif name in (b"LIST", b"LIS2"):
                _list(stream, host_path(root, path), name == b"LIS2")
            elif name == b"RECV":
                _receive(stream, root, path, faults)
            elif name == b"SEND":
                _send(stream, reader, root, path, faults)
            else:
                _fail(stream, f"unknown command {name!r}")
                return
        except (OSError, _RefusedError) as error:
            words = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            _fail(stream, f"{_VERBS.get(name, 'request')} failed: {words}")
            if name == b"SEND":
                # The other side may not look before all is sent: what still comes is read and dropped.
                _drain(reader)
            if name != b"RECV":
                return


_VERBS = {b"SEND": "couldn't create file", b"RECV": "open"}


def _fail(stream: Stream, words: str) -> None:
    text = words.encode(errors="surrogateescape")
    stream.write(_REQUEST.pack(b"FAIL", len(text)), text)


def _drain(reader: _Reader) -> None:
    while True:
        name, size = reader.request()
        if name != b"DATA":
            return
        for _ in reader.pieces(size):
            continue


def _lstat(root: Path, path: str, follow: bool = False) -> tuple[int, os.stat_result | None]:
    try:
        place = host_path(root, path)
        if follow:
            place = host_path(root, os.path.realpath(place))
        return 0, os.stat(place, follow_symlinks=follow)
    except OSError as error:
        return error.errno or errno.EIO, None


def _stat_1(found: os.stat_result | None) -> bytes:
    if found is None:
        return bytes(_STAT_1.size)
    return _STAT_1.pack(found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime) & 0xFFFFFFFF)


def _stat_2(code: int, found: os.stat_result | None) -> bytes:
    return _STAT_2.pack(code, *_fields(found))


def _fields(found: os.stat_result | None) -> tuple[int, ...]:
    if found is None:
        return (0,) * 10
    times = (int(found.st_atime), int(found.st_mtime), int(found.st_ctime))
    head = (found.st_dev, found.st_ino, found.st_mode, found.st_nlink, found.st_uid, found.st_gid)
    return (*head, found.st_size, *times)


def _list(stream: Stream, folder: Path, is_v2: bool) -> None:
    with suppress(OSError):  # a folder that cannot be read lists as empty, as adbd does it
        for entry in sorted(os.listdir(folder)):
            name = os.fsencode(entry)
            found = os.lstat(folder / entry)
            if is_v2:
                stream.write(b"DNT2", _FILE_2.pack(0, *_fields(found), len(name)), name)
            else:
                stream.write(b"DENT", _stat_1(found), struct.pack("<I", len(name)), name)
    stream.write(b"DONE", bytes((_FILE_2 if is_v2 else _FILE_1).size))


def _receive(stream: Stream, root: Path, path: str, faults: FaultBook) -> None:
    """Sends a file; several pieces of at most `MOST_DATA` bytes go in one payload."""
    _meet(stream, faults.take(f"pull {path}"))
    slot = _REQUEST.size + MOST_DATA
    buffer = memoryview(bytearray(slot * max(1, stream.max_payload // slot)))
    with open(host_path(root, path), "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise _RefusedError("not a regular file")
        while True:
            filled = 0
            for place in range(0, len(buffer), slot):
                count = file.readinto(buffer[place + _REQUEST.size : place + slot])
                if not count:
                    break
                _REQUEST.pack_into(buffer, place, b"DATA", count)
                filled = place + _REQUEST.size + count
                if count < MOST_DATA:
                    break
            if not filled:
                break
            stream.write(buffer[:filled])
    stream.write(_REQUEST.pack(b"DONE", 0))


def _send(stream: Stream, reader: _Reader, root: Path, target: str, faults: FaultBook) -> None:
    """Takes a file (or a link) for ``PATH,MODE``; a file that does not come whole is removed."""
    path, _, digits = target.rpartition(",")
    if not path or not digits.isdigit():
        raise _RefusedError("no mode")
    mode = int(digits)
    room = _meet(stream, faults.take(f"push {path}"))
    place = host_path(root, path)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink() or place.is_file():
        place.unlink()
    if stat.S_ISLNK(mode):
        _take_link(reader, place)
    else:
        rights = mode & 0o700
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            modified = _take_data(reader, descriptor, room)
            os.fchmod(descriptor, rights | rights >> 3 | rights >> 6)  # adbd gives all what it gives the owner
            os.utime(descriptor, (modified, modified))
        except BaseException:
            place.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
    stream.write(_REQUEST.pack(b"OKAY", 0))


def _take_data(reader: _Reader, descriptor: int, room: int | None) -> int:
    """Writes the pieces of a file and returns its time; a full disk has room for so many bytes."""
    while True:
        name, size = reader.request()
        if name == b"DONE":
            return size
        if name != b"DATA" or size > MOST_DATA:
            raise _RefusedError("invalid data message")
        for piece in reader.pieces(size):
            if room is not None:
                if len(piece) > room:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                room -= len(piece)
            _write_all(descriptor, piece)


def _write_all(descriptor: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(descriptor, piece) :]


def _take_link(reader: _Reader, place: Path) -> None:
    name, size = reader.request()
    if name != b"DATA" or size > _MOST_PATH:
        raise _RefusedError("invalid data message")
    os.symlink(reader.exactly(size).rstrip(b"\0"), os.fsencode(place))
    reader.request()


def _meet(stream: Stream, fault: tuple[str, dict] | None) -> int | None:
    """Plays a fault of a push or pull; returns the room that a full disk has left."""
    if fault is None:
        return None
    kind, options = fault
    if kind == "disk_full":
        return options["bytes"]
    if kind == "exit":
        raise _RefusedError(options["words"] or "I/O error")
    if kind == "garbage":
        data = os.urandom(options["bytes"])
        # A length that is no lie: adb would else reserve gigabytes for it.
        stream.write(os.urandom(4), struct.pack("<I", len(data)), data)
    elif kind == "endless":
        block: Pieces = _REQUEST.pack(b"DATA", MOST_DATA) + b"x" * MOST_DATA
        while True:
            stream.write(block)
    elif kind == "hang":
        while stream.read():
            continue
    raise ClosedError
