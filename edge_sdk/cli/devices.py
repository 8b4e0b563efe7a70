"""``edge-sdk devices``: what is attached, and which targets fit it."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from edge_sdk.cli._output import Output
from edge_sdk.cli._parser import Parser, example

if TYPE_CHECKING:
    from edge_sdk.devices._discover import Found


def configure(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "uris",
        nargs="*",
        metavar="URI",
        help="which: local, ssh://[user@]host[:port], adb://[serial] (default: this machine and all that adb lists)",
    )
    example(parser, "edge-sdk devices", "edge-sdk devices ssh://pi@raspberrypi.local adb://R5CX12345")


def run(args: Namespace, output: Output) -> int:
    """Shows the devices; exit code 3 where one that was named cannot be used."""
    from edge_sdk.devices._discover import discover

    found, notes = discover(args.uris)
    document = {"devices": [_document(one) for one in found], "notes": notes}
    output.result(document, lambda: _view(found, notes))
    return 3 if args.uris and any(one.problem for one in found) else 0


def _document(one: Found) -> dict[str, Any]:
    return {
        "uri": one.uri,
        "problem": one.problem,
        "device": one.about.model_dump(mode="json") if one.about else None,
        "free_bytes": one.free_bytes,
        "memory_mib": one.memory_mib,
        "targets": list(one.profiles),
        "measured_by": one.measured_by,
    }


def _view(found: list[Found], notes: list[str]):
    from edge_sdk.reporting.listings import devices_view

    return devices_view(found, notes)
