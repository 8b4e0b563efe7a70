"""Says what is wrong with a profile: every fault, with its file, line, key path and nearest key."""

from __future__ import annotations

import difflib
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from edge_sdk.schema._yaml import Document, KeyPath, Place
from edge_sdk.schema.target import SCHEMA_VERSION, Target

MAX_LISTED = 40


def report(document: Document, error: ValidationError | None = None) -> str:
    """One message with every fault of the document and of its validation, in the order of the file."""
    faults = [*document.faults, *(_schema_faults(document, error) if error else [])]
    lines = [(_place(document, path), f"{dotted(path)}: {text}") for path, text in faults]
    lines.sort(key=lambda line: (line[0].path != document.path, str(line[0].path), line[0].line))
    shown = [f"  {place}: {text}" for place, text in lines[:MAX_LISTED]]
    if len(lines) > MAX_LISTED:
        shown.append(f"  and {len(lines) - MAX_LISTED} more")
    count = "1 fault" if len(lines) == 1 else f"{len(lines)} faults"
    return "\n".join([f"the target profile {document.path} has {count}:", *shown])


def dotted(path: KeyPath) -> str:
    """``("units", 0, "kind")`` as ``units[0].kind``."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step:.60}" for step in path)
    return "".join(steps).removeprefix(".") or "(top level)"


def _schema_faults(document: Document, error: ValidationError) -> list[tuple[KeyPath, str]]:
    texts: dict[KeyPath, str] = {}
    for fault in error.errors(include_url=False):
        loc = fault["loc"]
        path = loc if fault["type"] == "missing" else _written(document, loc)
        if path in texts:
            # The other branches of a union whose every branch failed.
            texts[path] = "expected one plain value: text, a number, true or false"
        else:
            texts[path] = _text(fault["type"], fault["msg"], fault.get("input"), loc)
    return list(texts.items())


def _text(kind: str, message: str, found: Any, loc: KeyPath) -> str:
    if kind == "extra_forbidden":
        known = _known_keys(loc[:-1])
        nearest = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
        return "unknown key. " + (f"Did you mean '{nearest[0]}'?" if nearest else f"Known: {', '.join(known)}.")
    if kind == "missing":
        return "this key is required"
    if kind == "model_type":
        return f"expected a mapping with the keys {', '.join(_known_keys(loc))} (found {found!r:.60})"
    if loc == ("schema_version",):
        return f"this version of Edge SDK reads schema version {SCHEMA_VERSION} (found {found!r:.60})"
    message = message[:1].lower() + message[1:]
    return message if isinstance(found, (dict, list)) else f"{message} (found {found!r:.60})"


def _written(document: Document, loc: KeyPath) -> KeyPath:
    """The key path of a fault as it was written, without the steps that only the validator knows."""
    return next((loc[:end] for end in range(len(loc), 0, -1) if loc[:end] in document.places), loc)


def _place(document: Document, path: KeyPath) -> Place:
    """Where a key path stands or, where it is missing, where what should hold it stands."""
    return next(document.places[path[:end]] for end in range(len(path), -1, -1) if path[:end] in document.places)


def _known_keys(path: KeyPath) -> list[str]:
    """The keys that a profile may have at a key path, in the order of the schema."""
    kind: Any = Target
    for step in path:
        kind = kind.model_fields[step].annotation if isinstance(step, str) and _is_model(kind) else get_args(kind)[-1]
        if get_origin(kind) not in (list, dict):
            # Optional[X] stands for X.
            kind = next((option for option in get_args(kind) if _is_model(option)), kind)
    return list(kind.model_fields)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
