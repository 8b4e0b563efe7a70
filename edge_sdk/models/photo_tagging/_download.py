"""Fetches COCO 2017: in pieces that go on where they stopped, checked, unpacked, and only then in place.

The images are under the terms of Flickr, the annotations under CC BY 4.0; see https://cocodataset.org/#termsofuse.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_sdk._files import atomic_dir, storage_error
from edge_sdk.errors import EdgeSdkError, ModelError, StorageError

BASE_URL = "http://images.cocodataset.org"
VARIABLE = "EDGE_SDK_COCO_URL"
"""Another server with the same archives."""

_BLOCK = 1 << 20
_EVERY_S = 10.0
_TIMEOUT_S = 60
_RETRIES = 5
_PAUSE_S = 1.0
_MEMBER = re.compile(r"(?:train2017|val2017)/\d+\.jpg|annotations/instances_(?:train|val)2017\.json")
"""What is unpacked; all else, such as captions, or a name that leads elsewhere, stays in the archive."""

Say = Callable[[str], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """One of COCO's zip files.

    Attributes:
        path: Its path on the server.
        size_bytes: Its size.
        md5: Its MD5, as COCO's users note it: it finds damage, not forgery.
        gives: The folder that it fills.
    """

    path: str
    size_bytes: int
    md5: str
    gives: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.rpartition("/")[2]


ANNOTATIONS = Archive(
    "annotations/annotations_trainval2017.zip", 252907541, "f4bbac642086de4f52a3fdda2de5fa2c", "annotations"
)
VAL = Archive("zips/val2017.zip", 815585330, "442b8da7639aecaf257c1dceb8ba8c80", "val2017")
TRAIN = Archive("zips/train2017.zip", 19336861798, "cced6f7f71b7629ddf16f17bbcfab6b2", "train2017")
"""Source of sizes and MD5s: the data set scripts of PaddlePaddle, Intel Geti and others agree on them."""


class DownloadError(EdgeSdkError):
    """The server does not answer, or gives something else."""


def download(
    folder: Path,
    *,
    val_only: bool = False,
    say: Say = lambda _: None,
    base_url: str | None = None,
    archives: Sequence[Archive] | None = None,
) -> None:
    """Fetches COCO 2017 into the layout that training takes; what is there already is not fetched again.

    Args:
        folder: Gets ``annotations``, ``val2017`` and ``train2017``.
        val_only: Only what evaluation needs: 1.1 GB instead of 20.4.
        say: Told how far it is.
        base_url: The server; `VARIABLE`, else COCO's own.
        archives: Other archives than COCO's.

    Raises:
        DownloadError: The server does not answer, or gives something else. What came is kept for the next try.
        StorageError: The disk is too small, full or not ours.
    """
    base_url = (base_url or os.environ.get(VARIABLE) or BASE_URL).rstrip("/")
    chosen = archives or ((ANNOTATIONS, VAL) if val_only else (ANNOTATIONS, VAL, TRAIN))
    wanted = [archive for archive in chosen if not (folder / archive.gives).is_dir()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    _check_space(folder, wanted)
    for archive in wanted:
        part = folder / f"{archive.name}.part"
        _fetch(f"{base_url}/{archive.path}", archive, part, say)
        say(f"checking {archive.name}")
        _check(archive, part)
        say(f"unpacking {archive.name}")
        _unpack(archive, part, folder)
        part.unlink()
    say(f"{folder} is complete" if wanted else f"{folder} has it all already")


def _check_space(folder: Path, wanted: Sequence[Archive]) -> None:
    """Refuses a disk that is too small: photos do not pack, so each archive takes its size twice until it is unpacked.

    Raises:
        StorageError: It is.
    """
    have = sum(path.stat().st_size for path in folder.glob("*.part"))
    largest = max((archive.size_bytes for archive in wanted), default=0)
    need = sum(archive.size_bytes for archive in wanted) + largest - have
    free = shutil.disk_usage(folder).free
    if free < need:
        raise StorageError(
            f"{folder} has {free / 1e9:.1f} GB free, and the data needs {need / 1e9:.1f} GB while it is unpacked: free "
            "some space, choose another folder, or give --val-only."
        )


def _fetch(url: str, archive: Archive, part: Path, say: Say) -> None:
    """Fetches an archive, going on where an earlier try stopped.

    Raises:
        DownloadError: The server does not answer, or gives something else.
        StorageError: The disk is full.
    """
    for attempt in range(_RETRIES):
        have = _size(part)
        if have >= archive.size_bytes:
            break
        try:
            _fetch_rest(url, archive, part, have, say)
        except urllib.error.HTTPError as error:
            raise DownloadError(
                f"{url} answers {error.code} {error.reason}: set {VARIABLE} to a server that has it."
            ) from error
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            if attempt == _RETRIES - 1:
                raise DownloadError(_gave_up(url, part, error)) from error
            _log.warning("%s: %s; trying again", url, _reason(error))
            if _size(part) == have:  # it is not the line that dropped after a while
                time.sleep(_PAUSE_S * 2**attempt)
    found = _size(part)
    if found != archive.size_bytes:
        if found > archive.size_bytes:
            part.unlink()
        raise DownloadError(
            f"{url} gave {found} bytes instead of {archive.size_bytes}. Run the same command again to go on."
        )


def _size(part: Path) -> int:
    """How much of an archive is there."""
    return part.stat().st_size if part.exists() else 0


def _gave_up(url: str, part: Path, error: BaseException) -> str:
    return (
        f"{url} cannot be fetched: {_reason(error)}. {_size(part)} bytes are kept in {part}: run the same command "
        "again to go on."
    )


def _reason(error: BaseException) -> str:
    return str(getattr(error, "reason", None) or error) or type(error).__name__


def _fetch_rest(url: str, archive: Archive, part: Path, have: int, say: Say) -> None:
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
        goes_on = have and answer.status == http.client.PARTIAL_CONTENT
        told = time.monotonic() - _EVERY_S
        begun, here = time.monotonic(), 0
        try:
            with open(part, "ab" if goes_on else "wb") as file:
                done = have if goes_on else 0
                while block := answer.read(_BLOCK):
                    file.write(block)
                    done, here = done + len(block), here + len(block)
                    if done > archive.size_bytes:
                        break
                    if time.monotonic() - told >= _EVERY_S:
                        told = time.monotonic()
                        rate = here / 1e6 / max(told - begun, 1e-3)
                        share = done / archive.size_bytes
                        say(f"{archive.name}: {share:.0%} of {archive.size_bytes / 1e6:.0f} MB, {rate:.1f} MB/s")
        except (TimeoutError, ConnectionError):
            raise
        except OSError as error:
            raise storage_error(part, error) from error
        if done < archive.size_bytes:
            raise http.client.IncompleteRead(b"", archive.size_bytes - done)


def _check(archive: Archive, part: Path) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with open(part, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() != archive.md5:
        part.unlink()
        raise DownloadError(
            f"{archive.name} is damaged: its MD5 is {digest.hexdigest()} instead of {archive.md5}. It was removed; "
            "run the same command again."
        )


def _unpack(archive: Archive, part: Path, folder: Path) -> None:
    """Unpacks an archive's folder, which appears whole or not at all."""
    try:
        with zipfile.ZipFile(part) as packed, atomic_dir(folder / archive.gives) as scratch:
            names = [name for name in packed.namelist() if _MEMBER.fullmatch(name)]
            if not names:
                raise ModelError(f"{archive.name} holds nothing of COCO 2017.")
            for name in names:
                with packed.open(name) as source, open(scratch / Path(name).name, "wb") as file:
                    shutil.copyfileobj(source, file, _BLOCK)
    except (zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        part.unlink()
        raise DownloadError(f"{archive.name} is no zip file: {error}. It was removed.") from error
