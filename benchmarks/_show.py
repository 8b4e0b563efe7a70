"""What was found, as tables for people and as one JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks._rows import Limit, Row
from edge_sdk.reporting.text import clean, figure

if TYPE_CHECKING:
    from rich.console import RenderableType

SCHEMA_VERSION = 1


def table(title: str, rows: Sequence[Row]) -> RenderableType:
    """A suite's rows, each with how it was taken below its name."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    view = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in ("Figure", "Value", "95 % interval", "Limit", "Met"):
        view.add_column(column, no_wrap=column != "Figure")
    for row in rows:
        name = Text.assemble(clean(row.name), "\n", (f"  {clean(row.conditions)}", "dim"))
        view.add_row(name, *map(Text, _cells(row)))
    return Group(Text(title, style="bold cyan"), view, Text())


def document(
    machine: Mapping[str, Any],
    quick: bool,
    created: str,
    rows: Mapping[str, Sequence[Row]],
    failures: Mapping[str, str],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Everything as JSON; see docs/benchmarks.md.

    Args:
        machine: Of `benchmarks._machine.describe`.
        quick: Whether the rounds were too short for the figures to mean anything.
        created: When the run began, in ISO 8601.
        rows: Suite to its rows.
        failures: Suite to why it broke off.
        warnings: What makes the figures less believable.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "created": created,
        "quick": quick,
        "machine": dict(machine),
        "warnings": list(warnings),
        "suites": {suite: [row.document() for row in found] for suite, found in rows.items()},
        "failures": dict(failures),
    }


def _cells(row: Row) -> tuple[str, ...]:
    interval = f"{_figure(row.ci95[0])} to {_figure(row.ci95[1])}" if row.ci95 else ""
    unit = "" if row.unit == "ratio" else f" {row.unit}"
    return _figure(row.value) + unit, interval, _limit(row.limit), _met(row)


def _figure(value: float) -> str:
    return figure(value, 4 if 0.1 <= abs(value) < 10 else 3)


def _limit(limit: Limit | None) -> str:
    if limit is None:
        return ""
    if limit.at_least is not None and limit.at_most is not None:
        return f"{limit.at_least:g} to {limit.at_most:g}"
    return f"at most {limit.at_most:g}" if limit.at_most is not None else f"at least {limit.at_least:g}"


def _met(row: Row) -> str:
    if row.limit is None:
        return ""
    return {True: "yes", False: "no", None: "cannot tell"}[row.met]
