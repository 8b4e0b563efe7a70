"""Finds the file of a target profile: built in, in ``$EDGE_SDK_TARGETS``, or by path."""

from __future__ import annotations

import os
from pathlib import Path

from edge_sdk._paths import data_dir
from edge_sdk.errors import TargetError, unknown_name

VARIABLE = "EDGE_SDK_TARGETS"
SUFFIXES = (".yaml", ".yml")


def profiles() -> dict[str, Path]:
    """Name to file of every profile that can be asked for by name.

    Raises:
        TargetError: A folder of ``$EDGE_SDK_TARGETS`` is missing, or a name is there twice.
    """
    found: dict[str, Path] = {}
    for folder in _folders():
        for path in sorted(folder.iterdir()):
            if path.suffix not in SUFFIXES or path.name.startswith("."):
                continue
            if path.stem in found:
                raise TargetError(
                    f"two profiles are named '{path.stem}': {found[path.stem]} and {path}. Rename one of the files "
                    f"and its 'name', or take its folder out of ${VARIABLE}."
                )
            found[path.stem] = path
    return found


def find(name: str | Path, beside: Path | None = None) -> Path:
    """The file that a name or a path means.

    Args:
        name: A name of `profiles`, or a path: what ends in ``.yaml`` or ``.yml`` or has a separator in it.
        beside: The file that a relative path is relative to; None: the working directory.

    Raises:
        TargetError: No profile has that name.
    """
    if not is_path(name):
        known = profiles()
        if name not in known:
            raise TargetError(unknown_name("target", str(name), known) + " A file of your own is given by its path.")
        return known[str(name)]
    path = Path(os.path.expanduser(name))
    if path.suffix not in SUFFIXES:
        raise TargetError(f"{path} is not a target profile: expected a file that ends in .yaml or .yml.")
    return path if beside is None else beside.parent / path


def is_path(name: str | Path) -> bool:
    """Whether it is written as a path rather than as a name."""
    return isinstance(name, Path) or name.endswith(SUFFIXES) or os.sep in name or "/" in name


def _folders() -> list[Path]:
    folders = [data_dir("targets")]
    for entry in os.environ.get(VARIABLE, "").split(os.pathsep):
        if not entry:
            continue
        folder = Path(os.path.expanduser(entry))
        if not folder.is_dir():
            raise TargetError(
                f"${VARIABLE} names '{entry}', which is not a folder. It holds folders of profiles, "
                f"separated by '{os.pathsep}'."
            )
        # A folder that is named twice holds no profile twice.
        if not any(folder.samefile(known) for known in folders):
            folders.append(folder)
    return folders
