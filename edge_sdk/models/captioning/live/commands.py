"""What the program is told: by a key, or by a script."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from edge_sdk.errors import UnsupportedError

Kind = Literal["caption", "repeat", "statistics", "switch", "wait", "quit"]

KEYS: dict[str, Kind] = {"S": "caption", "R": "repeat", "P": "statistics", "M": "switch", "Q": "quit"}
HELP = "S caption   R repeat   P statistics   M model and precision   Q quit"
_FORM = "S, R, P, M:MODEL:PRECISION (such as M:2:3), W:SECONDS and Q, with commas between them"
_LONGEST_S = 3600.0


@dataclass(frozen=True)
class Command:
    """One thing to do.

    Attributes:
        kind: What.
        model: Of ``switch``: the number in the menu; 0 asks.
        precision: Likewise.
        seconds: Of ``wait``.
    """

    kind: Kind
    model: int = 0
    precision: int = 0
    seconds: float = 0.0


def parse_script(text: str) -> list[Command]:
    """The commands of a script such as ``S,P,M:2:3,S,Q``.

    Raises:
        UnsupportedError: A word of it is not known.
    """
    words = [word.strip() for word in text.split(",")]
    return [_parse(place, word, text) for place, word in enumerate(words, 1)]


def _parse(place: int, word: str, text: str) -> Command:
    key, *rest = word.upper().split(":")
    if key == "M" and len(rest) == 2 and all(re.fullmatch(r"\d{1,3}", number) for number in rest):
        return Command("switch", int(rest[0]), int(rest[1]))
    if key == "W" and len(rest) == 1 and re.fullmatch(r"\d{1,4}(\.\d{1,3})?", rest[0]):
        if float(rest[0]) <= _LONGEST_S:
            return Command("wait", seconds=float(rest[0]))
    if key in KEYS and key != "M" and not rest:
        return Command(KEYS[key])
    raise UnsupportedError(f"--script '{text:.80}': '{word:.40}' at place {place} is no command; expected {_FORM}.")
