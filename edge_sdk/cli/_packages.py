"""The packages that ``setup.py`` asks for, and what is installed of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement

DISTRIBUTION = "edge-sdk"
BASE = "base"
EXTRAS = ("executorch", "onnxruntime", "aotinductor", "tensorrt", "demo", "train", "report")
"""The extras of users; ``dev`` is for those who work on the SDK."""


@dataclass(frozen=True)
class Package:
    """A package: the versions that fit, the version that is there, and the extras that ask for it."""

    name: str
    wanted: str
    installed: str | None
    extras: tuple[str, ...]

    @property
    def fits(self) -> bool | None:
        """Whether the installed version is a wanted one; None where none is installed."""
        if self.installed is None:
            return None
        return Requirement(self.pip_name).specifier.contains(self.installed, prereleases=True)

    @property
    def pip_name(self) -> str:
        """Name and versions, as pip takes them."""
        return f"{self.name}{self.wanted}"

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "fits": self.fits}


def packages() -> list[Package]:
    """Each package that Edge SDK or one of its extras asks for on this machine.

    Empty where Edge SDK is run from its folder without being installed, since nothing then says what it needs.
    """
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    wanted: dict[tuple[str, str], list[str]] = {}
    for requirement in map(Requirement, lines):
        if extras := _extras(requirement):
            wanted.setdefault((requirement.name, str(requirement.specifier)), []).extend(extras)
    return [Package(name, specifier, _installed(name), tuple(extras)) for (name, specifier), extras in wanted.items()]


def _extras(requirement: Requirement) -> list[str]:
    """Where a requirement applies: everywhere, in some extras, or (on another platform) nowhere."""
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        return [BASE]
    return [extra for extra in EXTRAS if requirement.marker.evaluate({"extra": extra})]


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
