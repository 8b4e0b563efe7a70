"""A figure of a suite, and the limit that it is held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NARROW = 0.05
"""How far above its limit the interval of a figure that is judged by it may reach."""


@dataclass(frozen=True)
class Limit:
    """What a figure must keep to.

    Attributes:
        at_least: The smallest allowed value.
        at_most: The largest allowed value.
        by_interval: Whether a value above ``at_most`` still keeps to it where its interval reaches down
            to ``at_most`` and is narrow enough to say so.
    """

    at_least: float | None = None
    at_most: float | None = None
    by_interval: bool = False

    def met(self, value: float, ci95: tuple[float, float] | None) -> bool | None:
        """Whether a value keeps to the limit; None where its interval is too wide to tell."""
        if self.at_least is not None and value < self.at_least:
            return False
        if self.at_most is None or value <= self.at_most:
            return True
        if not self.by_interval or ci95 is None or ci95[0] > self.at_most:
            return False
        return True if ci95[1] <= self.at_most * (1 + NARROW) else None


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        name: What it is.
        value: The figure.
        unit: Its unit; ``ratio`` for one without.
        conditions: How it was taken.
        ci95: Its 95 % interval, None where it does not vary from run to run.
        limit: What it must keep to, None for a figure that only explains others.
    """

    name: str
    value: float
    unit: str
    conditions: str
    ci95: tuple[float, float] | None = None
    limit: Limit | None = None

    @property
    def met(self) -> bool | None:
        """Whether it keeps to its limit; None where it has none, or where nobody can tell."""
        return self.limit.met(self.value, self.ci95) if self.limit else None

    def document(self) -> dict[str, Any]:
        """The row as JSON."""
        limit = self.limit and {"at_least": self.limit.at_least, "at_most": self.limit.at_most}
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "ci95": list(self.ci95) if self.ci95 else None,
            "limit": limit,
            "met": self.met,
            "conditions": self.conditions,
        }
