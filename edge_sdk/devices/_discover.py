"""What is attached to this machine, and what each device is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_sdk.devices import _facts, open_device
from edge_sdk.errors import EdgeSdkError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_sdk.schema._base import Transport
    from edge_sdk.schema.report import ReportDevice


@dataclass(frozen=True)
class Found:
    """A device: what it is, or why nobody can say.

    Attributes:
        uri: Its URI.
        problem: Why it cannot be used, None where it can.
        about: What it says of itself.
        free_bytes: Free space where bundles are pushed.
        memory_mib: Size of its main memory.
        profiles: The targets that it may be, the most particular first.
        measured_by: Who measures on it now.
    """

    uri: str
    problem: str | None = None
    about: ReportDevice | None = None
    free_bytes: int | None = None
    memory_mib: float | None = None
    profiles: tuple[str, ...] = ()
    measured_by: str | None = None


def discover(uris: Sequence[str] = ()) -> tuple[list[Found], list[str]]:
    """Looks at devices.

    Args:
        uris: Which; none: this machine, and all that adb lists. Machines behind SSH are not searched for.

    Returns:
        The devices, and notes on what could not be looked for.
    """
    notes: list[str] = []
    if uris:
        return [look(uri) for uri in uris], notes
    found = [look("local")]
    from edge_sdk.devices.adb import attached

    try:
        for one in attached():
            uri = f"adb://{one.serial}"
            found.append(look(uri) if one.problem is None else Found(uri, problem=one.problem))
    except MissingDependencyError as error:
        notes.append(f"Android devices were not looked for: {error}")
    except EdgeSdkError as error:
        notes.append(f"Android devices could not be looked for: {error}")
    notes.append("machines behind SSH are not searched for: name one, edge-sdk devices ssh://[user@]host")
    return found, notes


def look(uri: str) -> Found:
    """What a device is; an error becomes its ``problem``."""
    from edge_sdk.support import Machine, fitting

    try:
        with open_device(uri) as device:
            about, facts, holder = device.describe(), device.facts, device.held_by()
    except EdgeSdkError as error:
        return Found(uri, problem=str(error))
    scheme: Transport = uri.partition("://")[0]  # type: ignore[assignment]
    system = Machine.this().os if scheme == "local" else "android" if scheme == "adb" else "linux"
    machine = Machine(os=system, abi=about.abi, model=about.model)
    return Found(
        uri,
        about=about,
        free_bytes=_facts.free_bytes(facts.get("space", "")),
        memory_mib=_facts.memory_mib(facts.get("meminfo", "")),
        profiles=tuple(fitting(machine, scheme, bool(facts.get("gpu")))),
        measured_by=holder,
    )
