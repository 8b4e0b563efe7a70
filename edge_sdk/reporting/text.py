"""Words and figures for people: untrusted text made harmless, numbers with a sensible precision."""

from __future__ import annotations

import unicodedata

# Formatting characters that turn the reading order around (Cf: bidirectional controls and isolates).
_TURNS = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

_TINY = 1e-4
"""Below this a number is easier to read with an exponent."""


def clean(text: object, *, keep: str = "") -> str:
    """The text with control characters made visible, so that it cannot drive a terminal.

    Args:
        text: What to show; it may come from a file or a device.
        keep: Control characters to leave as they are, such as a line break.
    """
    return "".join(
        char
        if char in keep or (unicodedata.category(char) not in ("Cc", "Cs") and char not in _TURNS)
        else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in str(text)
    )


def figure(value: float, digits: int = 3) -> str:
    """A number with ``digits`` significant digits: ``5.4e-07``, ``0.00123``, ``4.56``, ``1,230``."""
    if value == 0:
        return "0"
    if abs(value) < _TINY:
        return f"{value:.{digits - 1}e}"
    magnitude = f"{value:.{digits - 1}e}"
    exponent = int(magnitude.partition("e")[2])
    return f"{float(magnitude):,.{max(0, digits - 1 - exponent)}f}"


def scaled(value: float, unit: str) -> str:
    """A large amount with the SI prefix of its unit: ``11.3 MB``, ``1.82 GMAC``."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{figure(value / factor)} {prefix}{unit}"
    return f"{value:g} {unit}"


def plural(count: int, noun: str) -> str:
    """``1 piece``, ``2 pieces``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
