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
_PROBE_BYTES = 1 << 20
_SLOW_BYTES_S = 16e6
"""Below this rate a link is slower than zlib's fastest level on one core, which packs some 50 MB/s."""
_WORTH = 0.9
_SLOW_FROM_BYTES = 4 * _PROBE_BYTES
"""Of larger files the first MiB is sent by itself, to learn the link's rate."""
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


def push(tree: Tree, run: Run, uri: str, free: int | None, gzip: bool) -> str:
    """Brings a tree to the device and returns its path below the base folder.

    What lies there already is not sent, and is checked by its hash: one command says so for the
    whole tree. A file that came in part goes on from where it stopped.

    Args:
        tree: What to bring.
        run: Runs a script in the base folder.
        uri: The device, for messages.
        free: Free bytes there, None where it does not tell.
        gzip: Whether the device has gzip, for slow links.

    Raises:
        DeviceError: No space is left there, or the file arrives changed.
        LinkLostError: The link dropped and did not come back.
    """
    place = f"trees/{tree.digest}"
    if _is_whole(tree, run, place):
        return place
    came = _what_came(tree, run)
    missing = {digest: tree.files[name] for name, digest in tree.hashes.items() if came[digest] is not None}
    size = sum(path.stat().st_size - (came[digest] or 0) for digest, path in missing.items())
    if free is not None and size > free:
        raise DeviceError(
            f"device '{uri}': no space for the push: {size / 1e6:.1f} MB are to be sent and {free / 1e6:.1f} MB are "
            "free there. Free some."
        )
    for digest, path in missing.items():
        _send(digest, path, came[digest] or 0, run, uri, gzip)
    _assemble(tree, run, place, uri)
    return place


def _is_whole(tree: Tree, run: Run, place: str) -> bool:
    """Whether the tree is there, every file with its hash."""
    names = quoted(*tree.hashes)
    done = run(f"cd {place} 2>/dev/null && sha256sum -- {names} 2>/dev/null", "push")
    # GNU's sha256sum puts a backslash before a line whose name it had to escape.
    found = {line.removeprefix("\\").partition(" ")[0] for line in done.text.splitlines()}
    return done.code == 0 and found == set(tree.hashes.values())


def _what_came(tree: Tree, run: Run) -> dict[str, int | None]:
    """For each object None where it is there and right, else how many bytes have come of it."""
    digests = " ".join(sorted(set(tree.hashes.values())))
    done = run(
        f"for h in {digests}; do\n"
        "  s=; [ ! -f objects/$h ] || s=$(sha256sum < objects/$h)\n"
        '  if [ "${s%% *}" = $h ]; then echo $h whole\n'
        "  elif [ -f objects/$h.part ]; then echo $h $(wc -c < objects/$h.part)\n"
        "  else echo $h 0; fi\ndone",
        "push",
    )
    came: dict[str, int | None] = dict.fromkeys(tree.hashes.values(), 0)
    for line in done.text.splitlines():
        digest, _, state = line.strip().partition(" ")
        if digest in came:
            came[digest] = None if state == "whole" else int(state) if re.fullmatch(r"\d{1,15}", state) else 0
    return came


def _send(digest: str, path: Path, came: int, run: Run, uri: str, gzip: bool) -> None:
    """Sends what is missing of one file; what arrives changed is sent again from its beginning."""
    size = path.stat().st_size
    if came > size:
        run(f"rm -f objects/{digest}.part", "push")
        came = 0
    packed = False
    for _ in range(_TRIES):
        if came + _SLOW_FROM_BYTES < size:
            begin = perf_counter()
            _append(digest, path, came, came + _PROBE_BYTES, run, uri)
            slow = _PROBE_BYTES / (perf_counter() - begin) < _SLOW_BYTES_S
            came += _PROBE_BYTES
            packed = slow and gzip and _packs(path, came)
        if _append(digest, path, came, size, run, uri, packed=packed, last=True):
            return
        logger.warning("%s: %s arrived changed; it is sent again", uri, path.name)
        came = 0
    raise DeviceError(
        f"device '{uri}': {path.name} arrived changed {_TRIES} times at step 'push'; its storage may be bad."
    )


def _append(
    digest: str,
    path: Path,
    start: int,
    end: int,
    run: Run,
    uri: str,
    *,
    packed: bool = False,
    last: bool = False,
) -> bool:
    """Appends bytes ``start`` to ``end`` of a file; after a link that dropped, from where it stopped.

    With ``last``, the whole is checked there and takes its place.

    Returns:
        Whether it is whole; only with ``last`` can it be.
    """
    part = f"objects/{digest}.part"

    def source(attempt: int) -> Iterator[bytes]:
        begin = start if attempt == 0 else max(start, min(end, _came(part, run)))
        return _bytes(path, begin, end, packed)

    script = f"{'gzip -dc' if packed else 'cat'} >> {part} || exit {_UNWRITTEN}\n"
    if last:
        script += (
            f's=$(sha256sum < {part}); if [ "${{s%% *}}" = {digest} ]; then mv -f {part} objects/{digest}; '
            f"else rm -f {part}; exit {_CHANGED}; fi"
        )
    done = run(script, "push", source=source)
    if done.code not in (0, _CHANGED):
        run(f"rm -f {part}", "push")
        full = any(words in done.reason for words in _NO_SPACE)
        words = "no space is left there. Free some" if full else done.reason
        raise DeviceError(f"device '{uri}': {path.name} cannot be written at step 'push': {words}.")
    return last and done.code == 0


def _came(part: str, run: Run) -> int:
    text = run(f"wc -c < {part} 2>/dev/null || echo 0", "push").text.strip()
    return int(text) if re.fullmatch(r"\d{1,15}", text) else 0


def _bytes(path: Path, start: int, end: int, packed: bool) -> Iterator[bytes]:
    """Bytes ``start`` to ``end`` of a file, as a gzip stream where wanted."""
    packer = zlib.compressobj(1, wbits=31) if packed else None
    with open(path, "rb") as file:
        file.seek(start)
        left = end - start
        while left > 0 and (chunk := file.read(min(_CHUNK, left))):
            left -= len(chunk)
            piece = packer.compress(chunk) if packer else chunk
            if piece:
                yield piece
    if packer:
        yield packer.flush()


def _packs(path: Path, offset: int) -> bool:
    """Whether a piece of the file becomes enough smaller."""
    with open(path, "rb") as file:
        file.seek(offset)
        sample = file.read(_PROBE_BYTES)
    return len(zlib.compress(sample, 1)) < _WORTH * len(sample)


def _assemble(tree: Tree, run: Run, place: str, uri: str) -> None:
    """Makes the folder of a tree beside its place and renames it there."""
    scratch = f"{place}.new"
    folders = sorted({parent for name in tree.files for parent in [f"{scratch}/{name}".rpartition("/")[0]]})
    lines = [f"rm -rf {scratch} {place}", f"mkdir -p {quoted(*folders)} || exit 1"]
    for name, digest in tree.hashes.items():
        target = quoted(f"{scratch}/{name}")
        lines.append(f"ln objects/{digest} {target} 2>/dev/null || cp objects/{digest} {target} || exit 1")
    done = run("\n".join([*lines, f"mv {scratch} {place}"]), "push")
    if done.code:
        run(f"rm -rf {scratch}", "push")
        raise DeviceError(f"device '{uri}': the pushed folder cannot be made at step 'push': {done.reason}.")
