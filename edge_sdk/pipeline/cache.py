"""The cache of bundles, by key: ``CACHE/bundles/KEY/NAME.edge``."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

from edge_sdk._files import atomic_dir
from edge_sdk._paths import cache_dir
from edge_sdk.bundle import MANIFEST, SUFFIX, Bundle
from edge_sdk.errors import BundleError

logger = logging.getLogger(__name__)


def slot(key: str, name: str) -> Path:
    """Where the bundle of that key lies or will lie."""
    return cache_dir() / "bundles" / key / f"{name}{SUFFIX}"


def find(key: str, name: str) -> Bundle | None:
    """The cached bundle, None where there is none; a damaged one is removed and said so."""
    path = slot(key, name)
    if not path.is_dir():
        return None
    try:
        bundle = Bundle.open(path)
    except BundleError as error:
        logger.warning("a damaged bundle in the cache is compiled again: %s", error)
        shutil.rmtree(path, ignore_errors=True)
        return None
    return bundle if bundle.manifest.key == key else None


def place(bundle: Bundle, out: Path) -> Bundle:
    """A copy of a bundle in ``out``, under its own name; nothing is copied where the same lies there.

    Raises:
        StorageError: ``out`` cannot be written.
    """
    final = out / f"{bundle.manifest.name}{SUFFIX}"
    if final.resolve() == bundle.path.resolve():
        return bundle
    if (final / MANIFEST).is_file():
        try:
            present = Bundle.open(final)
            if present.manifest_sha256 == bundle.manifest_sha256:
                return replace(bundle, path=final)
        except BundleError:
            logger.warning("%s was damaged and is written again", final)
    with atomic_dir(final) as scratch:
        shutil.copytree(bundle.path, scratch, dirs_exist_ok=True)
    return replace(bundle, path=final)
