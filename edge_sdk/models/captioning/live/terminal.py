"""The program in a terminal: a view that is drawn in place, or lines; and the keyboard."""

from __future__ import annotations

import os
import re
import select
import sys
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_sdk.models.captioning.live.program import Screen

_DRAW_S = 0.2
_MOST_KEYS = 64
_LONG_KEYS = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]")
"""What arrows, function keys and their like send."""


class Keyboard:
    """The keys of the terminal on standard input, one by one and not echoed, until it is closed."""

    def __init__(self) -> None:
        import termios
        import tty

        self._descriptor = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor)

    @staticmethod
    def is_there() -> bool:
        """Whether standard input is a terminal."""
        return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()

    def read(self) -> str:
        """What was pressed since the last call; keys that send several characters, such as arrows, are left out."""
        if not select.select([self._descriptor], [], [], 0)[0]:
            return ""
        return _LONG_KEYS.sub("", os.read(self._descriptor, _MOST_KEYS).decode(errors="ignore"))

    def close(self) -> None:
        """Gives the terminal back as it was."""
        import termios

        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)


class Lines:
    """Events as lines, where nothing is drawn in place.

    Args:
        say: Takes a line.
        keyboard: None where there is none.
    """

    def __init__(self, say: Callable[[str], None], keyboard: Keyboard | None = None) -> None:
        self._say, self._keyboard = say, keyboard
        self._busy = ""

    def show(self, screen: Screen) -> None:
        """Says which stage begins."""
        stage = screen.busy.rpartition(", ")[0]
        if stage and stage != self._busy:
            self._say(stage)
        self._busy = stage

    def tell(self, kind: str, text: str) -> None:
        """Says it."""
        self._say(text if kind in ("note", "error") else f"{kind}: {text}")

    def keys(self) -> str:
        """See `Keyboard.read`."""
        return self._keyboard.read() if self._keyboard is not None else ""

    def close(self) -> None:
        """Gives the keyboard back."""
        if self._keyboard is not None:
            self._keyboard.close()


class Terminal(Lines):
    """The view, drawn in place.

    Args:
        draw: Takes nothing and a screen.
        keyboard: None where there is none.
    """

    def __init__(self, draw: Callable[[Mapping[str, Any], Any], None], keyboard: Keyboard | None) -> None:
        super().__init__(lambda _: None, keyboard)
        self._draw = draw
        self._drawn_s = 0.0

    def show(self, screen: Screen) -> None:
        """Draws it, a few times a second: what draws takes processor time from what is measured."""
        now = perf_counter()
        if now - self._drawn_s >= _DRAW_S:
            self._drawn_s = now
            self._draw({}, screen)
