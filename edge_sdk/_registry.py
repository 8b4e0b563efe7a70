"""One lazy table per plugin family, open to third parties through entry points.

A table maps a name to ``"module:attribute"``; nothing is imported before it is asked for. A plugin
that cannot be imported stays in the table with its reason.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from edge_sdk.errors import EdgeSdkError, MissingDependencyError, unknown_name


class Registry:
    """The plugins of one family.

    Args:
        kind: The family's name in messages, such as ``"quantizer"``.
        group: The entry-point group that third parties use, such as ``"edge_sdk.quantizers"``.
        builtin: Name to ``"module:attribute"`` of the plugins that come with the SDK.
        error: Raised for a name that is in no table.
    """

    def __init__(self, kind: str, group: str, builtin: Mapping[str, str], error: type[EdgeSdkError]) -> None:
        self.kind = kind
        self.group = group
        self._builtin = dict(builtin)
        self._error = error
        self._table: dict[str, str] | None = None

    def _names(self) -> dict[str, str]:
        if self._table is None:
            from importlib.metadata import entry_points

            table = dict(self._builtin)
            for point in entry_points(group=self.group):
                if point.name in table:
                    raise self._error(
                        f"{self.kind} '{point.name}' is defined twice: by {table[point.name]} and by "
                        f"{point.value}. Uninstall one of the two packages or rename its entry point."
                    )
                table[point.name] = point.value
            self._table = table
        return self._table

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def load(self, name: str) -> Any:
        """The plugin of that name.

        Raises:
            EdgeSdkError: The name is unknown (of the family's own error class).
            MissingDependencyError: Its module cannot be imported.
        """
        names = self._names()
        if name not in names:
            raise self._error(unknown_name(self.kind, name, names))
        module, _, attribute = names[name].partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            raise MissingDependencyError(f"{self.kind} '{name}' cannot be imported: {error}.") from error

    def problem(self, name: str) -> str | None:
        """Why the plugin of that name cannot be imported, or None where it can."""
        try:
            self.load(name)
        except MissingDependencyError as error:
            return str(error)
        return None
