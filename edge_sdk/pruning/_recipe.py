"""What is pruned and how much of it, as text: ``struct30``, ``mag10``, ``struct30+mag10``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_sdk.errors import UnsupportedError

_MOST = 90.0
_STEP = re.compile(r"(struct|mag)(\d+(?:\.\d+)?)")
_FORM = "structN, magN or structN+magN, N percent, such as struct30+mag10"


@dataclass(frozen=True)
class Recipe:
    """A way to prune. Channels go before weights.

    Attributes:
        channels: So many percent of a module's parameters go with the channels that are removed.
        weights: So many percent of each remaining layer's weights become zero, the smallest.
    """

    channels: float = 0.0
    weights: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """A recipe from text.

        Raises:
            UnsupportedError: The text is none.
        """
        found: dict[str, float] = {}
        for step in text.split("+"):
            match = _STEP.fullmatch(step.strip())
            if match is None:
                raise UnsupportedError(f"pruning '{text}': '{step}' is no way to prune; expected {_FORM}.")
            kind, percent = match[1], float(match[2])
            if kind in found:
                raise UnsupportedError(f"pruning '{text}' has {kind} twice; expected {_FORM}.")
            if not 0 < percent <= _MOST:
                raise UnsupportedError(
                    f"pruning '{text}': {kind} is {percent:g} percent; expected more than 0 and at most {_MOST:g}."
                )
            found[kind] = percent
        return cls(found.get("struct", 0.0), found.get("mag", 0.0))

    def __str__(self) -> str:
        steps = (("struct", self.channels), ("mag", self.weights))
        return "+".join(f"{kind}{percent:g}" for kind, percent in steps if percent)
