"""YAML from strangers: plain data only, bounded in size, depth and count, with the line of every key.

Aliases, anchors, merge keys and explicit tags are refused, so that a small file stays small when
read and nothing in it can name a Python object.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edge_sdk.errors import TargetError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels, the most that a profile may be."
MAX_NODES = 20_000

KeyPath = tuple[str | int, ...]

# The C parser is ten times faster; PyYAML built without libyaml has only the other one.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp"))


@dataclass(frozen=True)
class Place:
    """A line of a file, counted from 1."""

    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass
class Document:
    """A file's data, where each key path of it stands, and the faults that do not hinder reading on."""

    path: Path
    data: dict[str, Any]
    places: dict[KeyPath, Place]
    faults: list[tuple[KeyPath, str]] = field(default_factory=list)


def read_yaml(path: Path) -> Document:
    """Reads a YAML file whose top level is a mapping.

    Args:
        path: The file. At most 256 KiB, 32 levels and 20,000 values.

    Raises:
        TargetError: It cannot be read, is not YAML, or is more than plain data.
    """
    text = _text(path)
    try:
        _check_events(path, text)
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        context = f" {error.context}" if error.context else ""
        if "nesting depth" in str(error.problem):  # PyYAML 6.0.3 and newer have a limit of their own
            raise TargetError(f"{where}: {_TOO_DEEP}") from error
        raise TargetError(f"{where}: this is not valid YAML: {error.problem}{context}.") from error
    if not isinstance(root, yaml.MappingNode):
        found = "an empty file" if root is None else f"a {root.id}"
        raise TargetError(f"{path}: expected a mapping at the top level (keys such as 'name:'), found {found}.")
    document = Document(path, {}, {})
    document.data = _value(root, (), document)
    return document


def _text(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise TargetError(f"{path} is a folder: expected the path of one .yaml file in it.")
        if not stat.S_ISREG(mode):
            raise TargetError(f"{path} is not a regular file: expected a .yaml file.")
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise TargetError(
            f"there is no file {path}. Give the path of a .yaml file, or a name that 'edge-sdk targets' lists."
        ) from error
    except (OSError, ValueError) as error:
        raise TargetError(f"cannot read {str(path)!r:.200}: {getattr(error, 'strerror', None) or error}.") from error
    if len(raw) > MAX_BYTES:
        raise TargetError(f"{path} is larger than {MAX_BYTES // 1024} KiB, the most that a target profile may be.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TargetError(
            f"{path} is not UTF-8 text: byte 0x{raw[error.start]:02x} at offset {error.start}. Save it as UTF-8."
        ) from error
    if bad := yaml.reader.Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        raise TargetError(f"{path}:{line}: the control character U+{ord(bad.group()):04X} is not allowed in YAML.")
    return text


def _check_events(path: Path, text: str) -> None:
    """Refuses what must not reach the composer, while the text is still a stream of events."""
    depth = nodes = documents = 0
    for event in yaml.parse(text, Loader=_LOADER):
        place = Place(path, event.start_mark.line + 1)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise TargetError(
                f"{place}: YAML anchors and aliases (&{event.anchor}, *{event.anchor}) are not read. "
                "Write the value out, or put what is shared in a profile that others name in 'extends'."
            )
        if getattr(event, "tag", None):
            raise TargetError(f"{place}: the YAML tag '{event.tag:.60}' is not read: a profile is plain data.")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise TargetError(f"{place}: a second YAML document starts here: expected one profile in one file.")
        nodes += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise TargetError(f"{place}: {_TOO_DEEP}")
        if nodes > MAX_NODES:
            raise TargetError(f"{place}: more than {MAX_NODES} values, the most that a profile may hold.")


def _value(node: yaml.Node, path: KeyPath, document: Document) -> Any:
    place = Place(document.path, node.start_mark.line + 1)
    document.places.setdefault(path, place)
    if isinstance(node, yaml.MappingNode):
        return dict(_items(node, path, document))
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, index), document) for index, item in enumerate(node.value)]
    if node.tag not in _PLAIN:
        raise TargetError(f"{place}: '{node.value:.60}' has a special meaning in YAML: put it in quotes.")
    try:
        return yaml.constructor.SafeConstructor().construct_object(node)
    except ValueError as error:
        raise TargetError(f"{place}: '{node.value:.60}' cannot be read: {error}.") from error


def _items(node: yaml.MappingNode, path: KeyPath, document: Document) -> Iterator[tuple[str, Any]]:
    seen: dict[str, int] = {}
    for key, value in node.value:
        place = Place(document.path, key.start_mark.line + 1)
        if not isinstance(key, yaml.ScalarNode):
            raise TargetError(f"{place}: a {key.id} stands where a key was expected.")
        if key.tag == "tag:yaml.org,2002:merge":
            raise TargetError(f"{place}: the YAML merge key '<<' is not read. Use 'extends: NAME_OR_PATH'.")
        # A key is its text, so that 'on' or '8' is the key that was written and not True or the number.
        here = (*path, key.value)
        if first := seen.get(key.value):
            document.faults.append((here, f"the key is there twice (first on line {first})"))
        seen.setdefault(key.value, place.line)
        document.places[here] = place
        yield key.value, _value(value, here, document)
