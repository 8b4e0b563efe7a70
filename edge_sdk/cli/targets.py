"""``edge-sdk targets``: the hardware profiles, and what this machine can do for each."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edge_sdk.cli._output import Output
from edge_sdk.cli._parser import Parser, example
from edge_sdk.errors import TargetError

if TYPE_CHECKING:
    from edge_sdk.schema.target import Target
    from edge_sdk.support import Support


def configure(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="show one target with all figures and sources; a YAML file will do"
    )
    example(parser, "edge-sdk targets", "edge-sdk targets raspberry-pi-5")


def run(args: Namespace, output: Output) -> int:
    """Shows all targets, or one."""
    from edge_sdk.schema import load_target, target_names
    from edge_sdk.support import support

    if args.name is not None:
        target = load_target(args.name)
        able = support(target)
        document = {"target": target.model_dump(mode="json"), "support": _support(able)}
        output.result(document, lambda: _one(target, able))
        return 0
    found: list[tuple[Target, Support]] = []
    broken: dict[str, str] = {}
    for name in target_names():
        try:
            target = load_target(name)
        except TargetError as error:
            broken[name] = str(error)
        else:
            found.append((target, support(target)))
    output.result(_document(found, broken), lambda: _all(found, broken))
    return 0


def _document(found: list[tuple[Target, Support]], broken: dict[str, str]) -> dict[str, Any]:
    listed = [{"name": target.name, "title": target.title, **_support(able)} for target, able in found]
    return {"targets": listed, "broken": [{"name": name, "problem": problem} for name, problem in broken.items()]}


def _support(able: Support) -> dict[str, Any]:
    return {
        "compile": asdict(able.compile),
        "run": asdict(able.run),
        "runtimes": [asdict(runtime) for runtime in able.runtimes],
    }


def _all(found: list[tuple[Target, Support]], broken: dict[str, str]):
    from edge_sdk.reporting.listings import targets_view

    return targets_view(found, broken)


def _one(target: Target, able: Support):
    from edge_sdk.reporting.listings import target_view

    return target_view(target, able)
