"""Reads a target profile: its file, what it extends, and every fault of both in one message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edge_sdk.errors import TargetError
from edge_sdk.schema._faults import report
from edge_sdk.schema._find import find, is_path, profiles
from edge_sdk.schema._yaml import Document, KeyPath, read_yaml
from edge_sdk.schema.target import Target

MAX_CHAIN = 8


def load(name: str | Path) -> Target:
    """See `edge_sdk.schema.load_target`."""
    path = find(name)
    document = _extended(path, [])
    _check_name(document, None if is_path(name) else str(name))
    try:
        target = Target.model_validate(document.data)
    except ValidationError as error:
        raise TargetError(report(document, error)) from error
    if document.faults:
        raise TargetError(report(document))
    return target


def _extended(path: Path, children: list[Path]) -> Document:
    """The file's data merged onto that of the profile it extends. ``children`` are the files that led here."""
    if any(_same(path, child) for child in children):
        raise TargetError(f"the profile extends itself: {_chain([*children, path])}. Take one 'extends' out.")
    chain = [*children, path]
    if len(chain) > MAX_CHAIN:
        raise TargetError(f"profiles extend each other more than {MAX_CHAIN} deep: {_chain(chain)}.")
    document = read_yaml(path)
    if "extends" not in document.data:
        return document
    parent_name = document.data.pop("extends")
    place = document.places[("extends",)]
    if not isinstance(parent_name, str) or not parent_name:
        raise TargetError(f"{place}: extends: expected the name or the path of a profile, found {parent_name!r:.60}.")
    try:
        parent_path = find(parent_name, beside=path)
    except TargetError as error:
        raise TargetError(f"{place}: extends: {error}") from error
    if not parent_path.is_file():
        raise TargetError(f"{place}: extends: there is no file {parent_path}.")
    parent = _extended(parent_path, chain)
    # A profile never goes by the name of another one: reports would say the wrong thing.
    parent.data.pop("name", None)
    replaced: set[KeyPath] = set()
    data = _merged(parent.data, document.data, (), replaced)
    kept = {known: place for known, place in parent.places.items() if not _within(known, replaced)}
    return Document(path, data, {**kept, **document.places}, [*parent.faults, *document.faults])


def _merged(base: dict[str, Any], over: dict[str, Any], path: KeyPath, replaced: set[KeyPath]) -> dict[str, Any]:
    """``over`` on top of ``base``. Key paths whose value is ``over``'s alone are added to ``replaced``."""
    merged = dict(base)
    for key, value in over.items():
        here = (*path, key)
        old = base.get(key)
        # A figure is replaced whole, or its new value would go with the source of the old one.
        if isinstance(value, dict) and isinstance(old, dict) and "value" not in value:
            merged[key] = _merged(old, value, here, replaced)
        else:
            merged[key] = value
            replaced.add(here)
    return merged


def _within(path: KeyPath, replaced: set[KeyPath]) -> bool:
    return any(path[:end] in replaced for end in range(1, len(path) + 1))


def _check_name(document: Document, asked: str | None) -> None:
    """A profile that is asked for by name has that name; one that is given by path has a name of its own."""
    name = document.data.get("name")
    if not isinstance(name, str):
        return  # The schema says what is wrong with it.
    if asked is not None and name != asked:
        document.faults.append((("name",), f"expected '{asked}', as the file is named (found '{name:.60}')"))
    owner = None if asked is not None else profiles().get(name)
    if owner is not None and not _same(owner, document.path):
        document.faults.append((("name",), f"'{name}' is the name of {owner}; give this profile one of its own"))


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _chain(paths: list[Path]) -> str:
    return " extends ".join(str(path) for path in paths)
