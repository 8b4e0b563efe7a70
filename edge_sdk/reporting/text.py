"""Words and figures for people: untrusted text made harmless, numbers with a sensible precision."""

from __future__ import annotations

import unicodedata

# Formatting characters that turn the reading order around (Cf: bidirectional controls and isolates).
_TURNS = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


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
    """A number with ``digits`` significant digits and no exponent: ``0.00123``, ``4.56``, ``1,234``."""
    if value == 0:
        return "0"
    magnitude = f"{value:.{digits - 1}e}"
    exponent = int(magnitude.partition("e")[2])
    return f"{float(magnitude):,.{max(0, digits - 1 - exponent)}f}"


def megabytes(size_bytes: int) -> str:
    """Bytes as megabytes of 10^6 bytes."""
    return f"{figure(size_bytes / 1e6)} MB"


def large(count: float) -> str:
    """A large count with its SI prefix: ``385 M``, ``1.82 G``."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= factor:
            return f"{figure(count / factor)} {prefix}"
    return figure(count)


def plural(count: int, noun: str) -> str:
    """``1 piece``, ``2 pieces``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
