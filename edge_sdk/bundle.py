"""A bundle: what compilation gives. A folder ``NAME.edge/``, or the same zipped."""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pydantic import ValidationError

from edge_sdk._files import atomic_dir, sha256_file
from edge_sdk.errors import BundleError
from edge_sdk.schema._base import faults
from edge_sdk.schema.manifest import SCHEMA_VERSION, FileEntry, Manifest, Selection

if TYPE_CHECKING:
    import numpy as np

MANIFEST = "manifest.json"
SUFFIX = ".edge"
_MAX_MANIFEST_BYTES = 16 * 2**20
_MAX_UNPACKED_BYTES = 16 * 2**30
_MAX_FILES = 1000


@dataclass(frozen=True)
class Bundle:
    """A bundle that was opened and found whole.

    Attributes:
        path: The folder.
        manifest: What stands in its ``manifest.json``.
        manifest_sha256: The hash of ``manifest.json``; it covers the files through their own hashes.
        selection: How its runtime was chosen, where that was just decided.
        beside: The bundles that were just built for the target beside.
    """

    path: Path
    manifest: Manifest
    manifest_sha256: str = field(repr=False)
    selection: Selection | None = field(default=None, compare=False)
    beside: tuple[Bundle, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def open(cls, path: Path | str) -> Bundle:
        """Opens a bundle and checks every file against its hash.

        Args:
            path: The folder, or a zip file of it; the latter is unpacked beside itself once.

        Raises:
            BundleError: There is no bundle, or it is damaged, hostile or of another schema version.
        """
        path = Path(path)
        try:
            return cls._open(path)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise BundleError(f"the bundle {str(path)!r:.200} cannot be read: {reason}.") from error

    @classmethod
    def _open(cls, path: Path) -> Bundle:
        if path.is_file() and zipfile.is_zipfile(path):
            path = _unpack(path)
        if not path.is_dir():
            raise BundleError(
                f"no bundle at {path}: it is {'a file' if path.exists() else 'missing'}; expected a folder "
                f"NAME{SUFFIX} or a zip of it, as 'edge-sdk compile' writes them."
            )
        text = _read_manifest(path)
        manifest = _parse(path, text)
        for name, entry in manifest.files.items():
            _check_file(path, name, entry)
        return cls(path, manifest, hashlib.sha256(text).hexdigest())

    @cached_property
    def _reference(self) -> dict[str, np.ndarray]:
        import numpy as np

        try:
            with np.load(self.path / self.manifest.reference, allow_pickle=False) as arrays:
                return dict(arrays)
        except Exception as error:  # numpy's reader raises whatever it stumbles over
            raise BundleError(f"{self.path}: {self.manifest.reference} cannot be read: {error}") from error

    def reference(self) -> dict[str, np.ndarray]:
        """Reference inputs and FP32 outputs: ``PART/inputs/NAME`` and ``PART/outputs/NAME``.

        Each has a leading sample dimension: ``[samples, *shape]``.

        Raises:
            BundleError: The file cannot be read.
        """
        return self._reference


def write_bundle(final: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Writes a bundle whole or not at all.

    Args:
        final: The folder to make; what stood there is replaced.
        manifest: All but ``files``, which is filled in here.
        files: Content by path within the bundle.

    Raises:
        StorageError: The disk is full, read-only or not ours.
    """
    entries = {
        name: FileEntry(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data)) for name, data in files.items()
    }
    manifest = manifest.model_copy(update={"files": entries})
    text = manifest.model_dump_json(indent=2).encode()
    with atomic_dir(final) as scratch:
        for name, data in files.items():
            path = scratch / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        (scratch / MANIFEST).write_bytes(text)
    return Bundle(final, manifest, hashlib.sha256(text).hexdigest())


def _read_manifest(path: Path) -> bytes:
    manifest = path / MANIFEST
    if manifest.is_symlink() or not manifest.is_file():
        raise BundleError(f"{path}: {MANIFEST} is missing; this is not a bundle. Compile it again.")
    if (size := manifest.stat().st_size) > _MAX_MANIFEST_BYTES:
        raise BundleError(f"{manifest} is {size} bytes; at most {_MAX_MANIFEST_BYTES} are read.")
    return manifest.read_bytes()


def _parse(path: Path, text: bytes) -> Manifest:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path / MANIFEST} is not JSON: {error}. Compile the bundle again.") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{path / MANIFEST} has schema version {version!r:.40}; this Edge SDK reads {SCHEMA_VERSION}. "
            "Compile the bundle again, or use the Edge SDK that made it."
        )
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise BundleError(f"{path / MANIFEST} is not valid:\n  " + "\n  ".join(faults(error))) from error
    named = {manifest.reference, *(part.program for part in manifest.parts)}
    for name in sorted({*manifest.files, *named}):
        _check_name(path / MANIFEST, name)
    if unlisted := named - set(manifest.files):
        raise BundleError(f"{path / MANIFEST} uses files that it gives no hash for: {', '.join(sorted(unlisted))}.")
    return manifest


def _check_name(where: Path, name: str) -> None:
    pure = PurePosixPath(name)
    if not name or pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name or not name.isprintable():
        raise BundleError(f"{where} names {name!r:.200}, which is no path within the bundle. Do not use this bundle.")


def _check_file(path: Path, name: str, entry: FileEntry) -> None:
    file = path / name
    if not file.exists():
        raise BundleError(f"{path}: {name} is missing. Compile the bundle again or copy it whole.")
    if not file.resolve().is_relative_to(path.resolve()) or not file.is_file():
        raise BundleError(f"{path}: {name} leads out of the bundle or is no file. Do not use this bundle.")
    size = file.stat().st_size
    if size != entry.size_bytes:
        raise BundleError(f"{path}: {name} has {size} bytes, its manifest says {entry.size_bytes}. It was changed.")
    if (found := sha256_file(file)) != entry.sha256:
        raise BundleError(
            f"{path}: {name} was changed: SHA-256 {found[:12]}…, its manifest says {entry.sha256[:12]}…. "
            "Compile the bundle again or copy it anew."
        )


def _unpack(archive: Path) -> Path:
    """Unpacks a zipped bundle to a folder beside it, named by the archive's hash, and returns that."""
    final = archive.parent / f".{archive.name}.{sha256_file(archive)[:16]}{SUFFIX}"
    if final.is_dir():
        return final
    try:
        with zipfile.ZipFile(archive) as source:
            members = [member for member in source.infolist() if not member.is_dir()]
            _check_members(archive, members)
            prefix = _common_folder([member.filename for member in members])
            with atomic_dir(final) as scratch:
                for member in members:
                    target = scratch / member.filename[len(prefix) :]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with source.open(member) as data, open(target, "wb") as file:
                        _copy_bounded(data, file, member.file_size, archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
        raise BundleError(f"{archive} cannot be unpacked: {error}") from error
    return final


def _check_members(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    names = {member.filename for member in members}
    if len(members) > _MAX_FILES or sum(member.file_size for member in members) > _MAX_UNPACKED_BYTES:
        raise BundleError(f"{archive} unpacks to more than {_MAX_FILES} files or {_MAX_UNPACKED_BYTES} bytes.")
    for member in members:
        _check_name(archive, member.filename)
        if stat.S_ISLNK(member.external_attr >> 16):
            raise BundleError(f"{archive}: {member.filename} is a symbolic link. Do not use this bundle.")
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    if len(names) != len(members) or names & folders:
        raise BundleError(f"{archive} holds two files of one name. Do not use this bundle.")


def _common_folder(names: list[str]) -> str:
    """``NAME.edge/`` where the archive holds the folder itself, else an empty string."""
    tops = {name.partition("/")[0] for name in names}
    return f"{tops.pop()}/" if len(tops) == 1 and all("/" in name for name in names) else ""


def _copy_bounded(source, file, size: int, archive: Path) -> None:
    copied = 0
    while block := source.read(1 << 20):
        copied += len(block)
        if copied > size:
            raise BundleError(f"{archive} holds more than it declares. Do not use this bundle.")
        file.write(block)
