"""``edge-sdk models``: the models that come with the SDK or with plugins, and their settings."""

from __future__ import annotations

import importlib.util
import inspect
from argparse import Namespace
from typing import Any

from edge_sdk.cli._output import Output
from edge_sdk.cli._parser import Parser, example


def configure(parser: Parser) -> None:
    """Adds the verb's arguments."""
    example(parser, "edge-sdk models")


def run(_: Namespace, output: Output) -> int:
    """Shows the table of models."""
    from edge_sdk.models import MODELS

    found = [_describe(MODELS, name) for name in MODELS]
    output.result({"models": found}, lambda: _view(found))
    return 0


def _describe(registry, name: str) -> dict[str, Any]:
    """A model, or why it cannot be used."""
    problem = registry.problem(name)
    if problem is not None:
        return {"name": name, "available": False, "reason": problem}
    kind = registry.load(name)
    missing = [module for module in kind.requires if importlib.util.find_spec(module) is None]
    return {
        "name": name,
        "available": not missing,
        "reason": f"needs {', '.join(missing)}, not installed here; see 'edge-sdk doctor'" if missing else None,
        "summary": (inspect.getdoc(kind) or "").partition("\n")[0],
        "settings": dict(kind.settings),
    }


def _view(found: list[dict[str, Any]]):
    from rich.console import Group
    from rich.text import Text

    from edge_sdk.reporting.tables import listing

    words = "\nA model of your own: FILE.py:FUNCTION (the file is run), FILE.onnx or FILE.pt2 in the place of the name."
    return Group(
        listing(["Model", "What it is", "Settings (--set) and their defaults", ""], [_row(one) for one in found]),
        Text(words, style="dim"),
    )


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    settings = "\n".join(f"{key}={default}" for key, default in one.get("settings", {}).items()) or "none"
    return one["name"], one.get("summary", ""), settings, "" if one["available"] else f"not available: {one['reason']}"
