"""``edge-sdk quantizers``: the methods that change precision, and their options."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import fields
from typing import Any

from edge_sdk.cli._output import Output
from edge_sdk.cli._parser import Parser, example


def configure(parser: Parser) -> None:
    """Adds the verb's arguments."""
    example(parser, "edge-sdk quantizers")


def run(_: Namespace, output: Output) -> int:
    """Shows the table of quantizers."""
    from edge_sdk.quantization import QUANTIZERS

    found = [_describe(QUANTIZERS, name) for name in QUANTIZERS]
    output.result({"quantizers": found}, lambda: _view(found))
    return 0


def _describe(registry, name: str) -> dict[str, Any]:
    """A quantizer, or why it cannot be used."""
    problem = registry.problem(name)
    if problem is not None:
        return {"name": name, "available": False, "reason": problem}
    kind = registry.load(name)
    options = [
        {"name": option.name, "default": option.default, "choices": option.metadata.get("choices")}
        for option in fields(kind)
    ]
    return {
        "name": name,
        "available": True,
        "reason": None,
        "summary": kind.summary,
        "precision": kind.precision,
        "needs_calibration": kind.needs_calibration,
        "takes_budget": kind.takes_budget,
        "options": options,
    }


def _view(found: list[dict[str, Any]]):
    from edge_sdk.reporting.tables import listing

    columns = ["Quantizer", "What it does", "Precision", "Calibration", "--max-drop", "Options (--set quantize.)"]
    return listing(columns, [_row(one) for one in found])


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    if not one["available"]:
        return one["name"], f"not available: {one['reason']}", "", "", "", ""
    options = "\n".join(_option(option) for option in one["options"])
    needs, takes = ("yes" if one[key] else "no" for key in ("needs_calibration", "takes_budget"))
    return one["name"], one["summary"], one["precision"], needs, takes, options


def _option(option: dict[str, Any]) -> str:
    default = str(option["default"]).lower() if isinstance(option["default"], bool) else option["default"]
    others = [choice for choice in option["choices"] or () if choice != option["default"]]
    return f"{option['name']}={default}" + (f" (or {', '.join(others)})" if others else "")
