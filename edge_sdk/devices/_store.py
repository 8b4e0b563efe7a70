"""The store of pushed files on a device: each file once, by its hash, and folders made of them.

```
objects/HASH         a file, whole and checked
objects/HASH.part    what has come of one so far; a later push goes on from there
trees/HASH/...       a folder as it was pushed, linked to its objects (or copied, where links are not allowed)
```
"""

from __future__ import annotations

import hashlib
import logging
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from edge_sdk._files import sha256_file
from edge_sdk.devices._link import Done, quoted
from edge_sdk.errors import DeviceError

logger = logging.getLogger(__name__)

_CHUNK = 1 << 18
_SAMPLE_BYTES = 1 << 20
_SLOW_BYTES_S = 16e6
"""Below this rate a link is slower than zlib's fastest level on one core, which packs some 50 MB/s."""
_SLOW_AFTER_S = 0.5
"""So long a file is sent as it is before the link's rate is judged."""
_WORTH_BYTES = 4 << 20
"""With less of a file left it is not packed."""
_WORTH = 0.9
_TRIES = 3
_UNWRITTEN, _CHANGED = 9, 10
_NO_SPACE = ("No space left", "Disk quota exceeded", "File too large")

Run = Callable[..., Done]
"""``run(script, step, source=None)``: runs a script in the device's base folder, again where the link drops.

``source(attempt)`` gives what the script reads; ``attempt`` counts from 0.
"""


@dataclass(frozen=True)
class Tree:
    """Files to be on the device: path in the folder to the file here, and the hashes of their contents."""

    files: Mapping[str, Path]
    hashes: Mapping[str, str]

    @classmethod
    def of(cls, path: Path) -> Tree:
        """A file, or all files of a folder but hidden ones and Python's caches."""
        if path.is_file():
            files = {path.name: path}
        else:
            found = (item for item in sorted(path.rglob("*")) if item.is_file())
            files = {item.relative_to(path).as_posix(): item for item in found}
            files = {name: item for name, item in files.items() if not re.search(r"(^|/)(\.|__pycache__/)", name)}
        return cls(files, {name: sha256_file(item) for name, item in files.items()})

    @property
    def digest(self) -> str:
        """The hash of the tree's names and contents."""
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(self.hashes.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True)
class Store:
    """The store of one device.

    Attributes:
        run: Runs a script in the base folder.
        uri: The device, for messages.
        free: Free bytes there, None where it does not tell.
        gzip: Whether the device has gzip, for slow links.
    """

    run: Run
    uri: str
    free: int | None
    gzip: bool

    def push(self, tree: Tree) -> str:
        """Brings a tree to the device and returns its path below the base folder.

        What lies there already is not sent, and is checked by its hash: one command says so for the
        whole tree. A file that came in part goes on from where it stopped.

        Raises:
            DeviceError: No space is left there, or the file arrives changed.
            LinkLostError: The link dropped and did not come back.
        """
        place = f"trees/{tree.digest}"
        came = self._look(tree, place)
        if came is None:
            return place
        missing = {digest: tree.files[name] for name, digest in tree.hashes.items() if came[digest] is not None}
        size = sum(path.stat().st_size - (came[digest] or 0) for digest, path in missing.items())
        if self.free is not None and size > self.free:
            raise DeviceError(
                f"device '{self.uri}': no space for the push: {size / 1e6:.1f} MB are to be sent and "
                f"{self.free / 1e6:.1f} MB are free there. Free some."
            )
        for digest, path in missing.items():
            # The folder is made by the command that brings the last file: a round trip less.
            is_last = digest == next(reversed(missing))
            self._send(_File(digest, path), came[digest] or 0, _assembly(tree, place) if is_last else "")
        if not missing:
            done = self.run(_assembly(tree, place), "push")
            if done.code:
                raise DeviceError(f"device '{self.uri}': the folder cannot be made at step 'push': {done.reason}.")
        return place

    def _look(self, tree: Tree, place: str) -> dict[str, int | None] | None:
        """None where the tree is there, every file with its hash.

        Else, for each object, None where it is there and right, or how many bytes have come of it.
        """
        script = _LOOK.format(
            place=place, names=quoted(*tree.hashes), digests=" ".join(sorted(set(tree.hashes.values())))
        )
        lines = self.run(script, "push").text.splitlines()
        if lines[:1] == ["tree"]:
            # GNU's sha256sum puts a backslash before a line whose name it had to escape.
            found = [line.removeprefix("\\").partition(" ")[0] for line in lines[1:]]
            if found == list(tree.hashes.values()):
                return None
            lines = self.run(f"rm -rf {place}\n{script}", "push").text.splitlines()
        came: dict[str, int | None] = dict.fromkeys(tree.hashes.values(), 0)
        for line in lines[1:]:
            digest, _, state = line.partition(" ")
            if digest in came:
                came[digest] = None if state == "whole" else _count(state)
        return came

    def _send(self, file: _File, came: int, afterwards: str) -> None:
        """Sends what is missing of a file; what arrives changed is sent again from its beginning."""
        if came > file.size:
            self.run(f"rm -f {file.part}", "push")
            came = 0
        packed, tries = False, _TRIES
        while tries:
            stream = _Stream(file, came, packed, may_stop=self.gzip and not packed)
            done = self._take(stream, afterwards)
            if done.code == 0:
                return
            if done.code == _UNWRITTEN and stream.has_stopped:
                packed, came = True, _count(done.text.strip())
                continue
            if done.code != _CHANGED:
                self.run(f"rm -f {file.part}", "push")
                full = any(words in done.reason for words in _NO_SPACE)
                words = "no space is left there. Free some" if full else done.reason
                raise DeviceError(f"device '{self.uri}': {file.path.name} cannot be written at step 'push': {words}.")
            logger.warning("%s: %s arrived changed; it is sent again", self.uri, file.path.name)
            came, tries = 0, tries - 1
        raise DeviceError(
            f"device '{self.uri}': {file.path.name} arrived changed {_TRIES} times at step 'push'; its storage may be "
            "bad."
        )

    def _take(self, stream: _Stream, afterwards: str) -> Done:
        """Runs the script that takes a file; after a dropped link, from where it stopped."""
        file = stream.file

        def source(attempt: int) -> Iterator[bytes]:
            if attempt:
                came = _count(self.run(f"wc -c < {file.part} 2>/dev/null || echo 0", "push").text.strip())
                stream.start = max(stream.start, min(file.size, came))
            return iter(stream)

        script = _TAKE.format(
            taker="gzip -dc" if stream.packed else "cat",
            part=file.part,
            digest=file.digest,
            size=file.size,
            unwritten=_UNWRITTEN,
            changed=_CHANGED,
            afterwards=afterwards,
        )
        return self.run(script, "push", source=source)


_LOOK = """\
if [ -d {place} ]; then echo tree; cd {place} && sha256sum -- {names} 2>/dev/null; exit; fi
echo objects
for h in {digests}; do
  s=; [ ! -f objects/$h ] || s=$(sha256sum < objects/$h)
  if [ "${{s%% *}}" = $h ]; then echo $h whole; continue; fi
  rm -f objects/$h
  if [ -f objects/$h.part ]; then echo $h $(wc -c < objects/$h.part); else echo $h 0; fi
done"""

_TAKE = """\
if [ ! -f objects/{digest} ]; then
  s=$({{ cat {part} 2>/dev/null; {taker} | tee -a {part}; }} | sha256sum)
  n=$(wc -c < {part})
  [ ${{n:-0}} -ge {size} ] || {{ echo ${{n:-0}}; exit {unwritten}; }}
  if [ "${{s%% *}}" = {digest} ]; then mv -f {part} objects/{digest}; else rm -f {part}; exit {changed}; fi
fi
{afterwards}"""
"""The hash is taken while the file arrives, so that no second pass comes after it."""


@dataclass(frozen=True)
class _File:
    """A file on its way to the store."""

    digest: str
    path: Path

    @property
    def part(self) -> str:
        """Where it gathers."""
        return f"objects/{self.digest}.part"

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.path.stat().st_size

    def packs(self, offset: int) -> bool:
        """Whether a piece of it becomes enough smaller."""
        with open(self.path, "rb") as file:
            file.seek(offset)
            sample = file.read(_SAMPLE_BYTES)
        return len(zlib.compress(sample, 1)) < _WORTH * len(sample)


@dataclass
class _Stream:
    """The bytes of a file from ``start`` to its end, as a gzip stream where ``packed``.

    Where it ``may_stop`` it ends early, and says so by ``has_stopped``, once the link has shown to be slow
    and the rest becomes smaller by packing.
    """

    file: _File
    start: int
    packed: bool
    may_stop: bool
    has_stopped: bool = False

    def __iter__(self) -> Iterator[bytes]:
        self.has_stopped = False
        packer = zlib.compressobj(1, wbits=31) if self.packed else None
        begin, sent = perf_counter(), 0
        with open(self.file.path, "rb") as file:
            file.seek(self.start)
            while chunk := file.read(_CHUNK):
                piece = packer.compress(chunk) if packer else chunk
                if piece:
                    yield piece
                sent += len(chunk)
                seconds = perf_counter() - begin
                if self.may_stop and seconds > _SLOW_AFTER_S:
                    offset = self.start + sent
                    self.may_stop = False
                    left = self.file.size - offset
                    if sent / seconds < _SLOW_BYTES_S and left > _WORTH_BYTES and self.file.packs(offset):
                        self.has_stopped = True
                        return
        if packer:
            yield packer.flush()


def _assembly(tree: Tree, place: str) -> str:
    """A script that makes the folder of a tree from its objects, beside its place, and renames it there."""
    scratch = f"{place}.new"
    folders = sorted({f"{scratch}/{name}".rpartition("/")[0] for name in tree.files})
    lines = [f"rm -rf {scratch} {place}", f"mkdir -p {quoted(*folders)} || exit 1"]
    for name, digest in tree.hashes.items():
        target = quoted(f"{scratch}/{name}")
        # Android does not allow links everywhere.
        lines.append(f"ln objects/{digest} {target} 2>/dev/null || cp objects/{digest} {target} || exit 1")
    return "\n".join([*lines, f"mv {scratch} {place}"])


def _count(text: str) -> int:
    return int(text) if re.fullmatch(r"\d{1,15}", text) else 0
