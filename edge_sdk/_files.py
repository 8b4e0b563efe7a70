"""Files written whole or not at all, and their hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_sdk.errors import StorageError

_CAUSES = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission denied; choose a folder of your own",
    errno.EPERM: "permission denied; choose a folder of your own",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
}


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def storage_error(path: Path, error: OSError) -> StorageError:
    """What to raise where writing ``path`` failed with ``error``."""
    cause = _CAUSES.get(error.errno or 0, error.strerror or str(error))
    return StorageError(f"cannot write {path}: {cause}. Nothing was left half written.")


@contextmanager
def atomic_dir(final: Path) -> Iterator[Path]:
    """A folder that appears at ``final`` whole when the block ends well, and never otherwise.

    What stood at ``final`` is replaced. The temporary folder stands beside it, so that the last
    step is a rename within one file system.

    Raises:
        StorageError: The disk is full, read-only or not ours.
    """
    scratch = None
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
        scratch.chmod(0o755)
        yield scratch
        if final.is_dir() and not final.is_symlink():
            old = Path(tempfile.mkdtemp(prefix=f".{final.name}.old.", dir=final.parent))
            os.replace(final, old / "was")
            os.replace(scratch, final)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(scratch, final)
    except OSError as error:
        raise storage_error(final, error) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Writes a file whole or not at all.

    Raises:
        StorageError: The disk is full, read-only or not ours.
    """
    if isinstance(data, str):
        data = data.encode()
    scratch = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
        scratch = None
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        if scratch is not None:
            Path(scratch).unlink(missing_ok=True)
