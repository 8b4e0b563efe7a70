"""Files written whole or not at all, and their hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_sdk.errors import StorageError

_CAUSES = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission denied; choose a folder of your own",
    errno.EPERM: "permission denied; choose a folder of your own",
    errno.EEXIST: "a file stands where a folder should be; choose another folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
    errno.EFBIG: "a file would be larger than the system allows (see 'ulimit -f'); raise the limit",
}

_MAX_RIVALS = 100
"""How often another process may put the same folder there first before that is an error."""


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def storage_error(path: Path, error: OSError) -> StorageError:
    """What to raise where writing ``path`` failed with ``error``."""
    if isinstance(error, shutil.Error) and error.args and error.args[0]:
        error = _first_of(error)
    cause = _CAUSES.get(error.errno or 0, error.strerror or str(error))
    return StorageError(f"cannot write {path}: {cause}. Nothing was left half written.")


def _first_of(error: shutil.Error) -> OSError:
    """The first fault of a copied folder, which is told as text alone: ``[Errno 28] No space left on device``."""
    text = str(error.args[0][0][-1])
    known = (number for number in _CAUSES if text.startswith(f"[Errno {number}]"))
    return OSError(next(known, 0), text)


@contextmanager
def atomic_dir(final: Path) -> Iterator[Path]:
    """A folder that appears at ``final`` whole when the block ends well, and never otherwise.

    What stood at ``final`` is replaced. The temporary folder stands beside it, so that the last
    step is a rename within one file system.

    Raises:
        StorageError: The disk is full, read-only or not ours.
    """
    scratch = aside = None
    with _writing(final):
        try:
            scratch = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
            scratch.chmod(0o755)
            yield scratch
            aside = Path(tempfile.mkdtemp(prefix=f".{final.name}.old.", dir=final.parent))
            _put(scratch, final, aside)
        finally:
            for folder in (aside, scratch):
                if folder is not None:
                    shutil.rmtree(folder, ignore_errors=True)


def _put(scratch: Path, final: Path, aside: Path) -> None:
    """Renames ``scratch`` to ``final``; what stands there, or what others put there meanwhile, goes to ``aside``."""
    for attempt in range(_MAX_RIVALS):
        old = aside / str(attempt)
        try:
            if final.is_dir() and not final.is_symlink():
                with suppress(FileNotFoundError):
                    os.replace(final, old)
            os.replace(scratch, final)
            return
        except BaseException as error:
            rival = isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST)
            if not rival or attempt == _MAX_RIVALS - 1:
                if old.is_dir() and not final.exists():
                    os.replace(old, final)
                raise


def write_atomic(path: Path, data: bytes | str) -> None:
    """Writes a file whole or not at all.

    Raises:
        StorageError: The disk is full, read-only or not ours.
    """
    if isinstance(data, str):
        data = data.encode()
    scratch = None
    with _writing(path):
        try:
            handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(scratch, 0o644)
            os.replace(scratch, path)
            scratch = None
        finally:
            if scratch is not None:
                Path(scratch).unlink(missing_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Makes the folders above a path, and takes the new ones away again where writing it fails."""
    made: list[Path] = []
    try:
        for folder in (*reversed(path.parent.parents), path.parent):
            if not folder.is_dir():
                folder.mkdir(exist_ok=True)
                made.append(folder)
        yield
    except BaseException as error:
        with suppress(OSError):  # another process has written there meanwhile
            for folder in reversed(made):
                folder.rmdir()
        if isinstance(error, OSError):
            raise storage_error(path, error) from error
        raise
