"""The program in a window of OpenCV: the picture, with model, figures and caption laid over it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from functools import lru_cache
from time import perf_counter
from typing import TYPE_CHECKING, Any

from edge_sdk.models.captioning.live.commands import HELP
from edge_sdk.reporting.caption import latency_line, statistics_rows, status_rows
from edge_sdk.reporting.text import figure

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

    from edge_sdk.models.captioning.live.program import Screen

TITLE = "Edge SDK captions"
_DRAW_S = 0.04
_WIDTH = 960
_MOST_HEIGHT = 1080
_MARGIN, _PAD = 14, 10
_SMALL, _PLAIN, _LARGE = 15, 18, 26
_WHITE, _GREY, _GREEN, _YELLOW = (255, 255, 255), (190, 195, 200), (120, 230, 140), (255, 214, 102)
_SHADE = (12, 16, 22, 190)
_NO_KEY = 255
_PROBE_S = 20.0
_PROBE = "import cv2; cv2.namedWindow('Edge SDK', cv2.WINDOW_NORMAL); cv2.waitKey(1); cv2.destroyAllWindows()"

Row = tuple[str, int, tuple[int, int, int]]
"""A line of text, its height in pixels, and its colour."""


def problem() -> str:
    """Why no window can be shown here, empty where one can.

    It is tried in a process of its own, since the window's library ends the program where it finds no screen.
    """
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        return "there is no screen: DISPLAY is not set"
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PROBE_S
        )
    except subprocess.TimeoutExpired:
        return f"the screen {os.environ.get('DISPLAY', '')} does not answer"
    if not done.returncode:
        return ""
    if "No module named 'cv2'" in done.stderr:
        return "OpenCV is not installed: pip install 'edge-sdk[live]'"
    if "not implemented" in done.stderr:
        return (
            "this OpenCV is built without windows, as opencv-python-headless is: pip uninstall opencv-python-headless, "
            "then pip install --force-reinstall opencv-python"
        )
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    told = next((line for line in lines if "display" in line or "Error" in line), "")
    return f"OpenCV cannot open one: {(told or ''.join(lines[-1:]) or f'exit code {done.returncode}')[:200]}"


class Window:
    """The window; closing it is quitting. It belongs to the main thread."""

    def __init__(self) -> None:
        import cv2

        self._cv2: Any = cv2
        flags = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
        cv2.namedWindow(TITLE, flags)
        self._size = (0, 0)
        self._drawn_s = 0.0
        self._drawn: tuple[Any, ...] = ()
        self._was_seen = self._is_closed = False

    def show(self, screen: Screen) -> None:
        """Draws what has changed, at most 25 times a second."""
        now = perf_counter()
        if screen.frame is None or self._is_closed or now - self._drawn_s < _DRAW_S:
            return
        said = (screen.title, screen.caption, screen.busy, screen.notes, screen.menu, screen.is_asked)
        drawn = (screen.frame.number, *said)
        if drawn == self._drawn:
            return
        self._drawn_s, self._drawn = now, drawn
        picture = compose(screen)
        if picture.size != self._size:
            self._size = picture.size
            self._cv2.resizeWindow(TITLE, *picture.size)
        import numpy as np

        self._cv2.imshow(TITLE, np.asarray(picture)[:, :, ::-1])

    def tell(self, kind: str, text: str) -> None:
        """Nothing: what happened is on the screen."""

    def keys(self) -> str:
        """The key pressed since the last call; Q where the window was closed."""
        if self._is_closed:
            return "Q"
        key = self._cv2.waitKey(1) & 0xFF
        is_seen = self._is_seen()
        self._was_seen = self._was_seen or is_seen
        self._is_closed = self._was_seen and not is_seen
        return "" if key == _NO_KEY else chr(key)

    def close(self) -> None:
        """Closes it."""
        if not self._is_closed:
            self._cv2.destroyAllWindows()
            self._cv2.waitKey(1)

    def _is_seen(self) -> bool:
        try:
            return self._cv2.getWindowProperty(TITLE, self._cv2.WND_PROP_VISIBLE) >= 1
        except self._cv2.error:  # so some builds say that there is no window left
            return False


def compose(screen: Screen) -> Image:
    """The picture of a moment: the frame, scaled to a width that text fits on, and what is laid over it."""
    from PIL import Image, ImageDraw

    assert screen.frame is not None
    frame = Image.fromarray(screen.frame.pixels.copy() if screen.frame.pixels.strides[-1] < 0 else screen.frame.pixels)
    scale = min(_WIDTH / frame.width, _MOST_HEIGHT / frame.height)
    picture = frame.resize((round(frame.width * scale), round(frame.height * scale)), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(picture, "RGBA")
    _box(draw, picture, _status(screen), at=(0.0, 0.0))
    if screen.menu:
        _box(draw, picture, [(line, _PLAIN, _WHITE) for line in _wrapped(screen.menu, picture.width)], at=(0.5, 0.4))
    elif screen.is_asked:
        _box(draw, picture, _statistics(screen), at=(1.0, 0.0))
    elif screen.busy:
        _box(draw, picture, [(screen.busy, _PLAIN, _YELLOW)], at=(1.0, 0.0))
    _box(draw, picture, _caption(screen, picture.width), at=(0.5, 1.0), centred=True)
    return picture


def _status(screen: Screen) -> list[Row]:
    rows: list[Row] = [(screen.title, _LARGE - 4, _WHITE)]
    for name, value in status_rows(screen.statistics):
        rows.append((f"{name}: {value}" if name == "FPS" else value, _PLAIN, _GREEN))
    shown = "" if screen.shown_per_s is None else f", {figure(screen.shown_per_s)} frames a second"
    rows.append((f"{screen.source}{shown}", _SMALL, _GREY))
    rows.append((f"{screen.about['runtime']} on {screen.about['device']}", _SMALL, _GREY))
    return rows


def _statistics(screen: Screen) -> list[Row]:
    rows = statistics_rows(screen.statistics)
    lines: list[Row] = [("Statistics", _LARGE - 4, _WHITE)]
    return [*lines, *((f"{name}: {value}" if name else f"    {value}", _SMALL, _WHITE) for name, value in rows)]


def _caption(screen: Screen, width: int) -> list[Row]:
    rows: list[Row] = [(line, _SMALL, _YELLOW) for line in _wrapped(screen.notes[-2:], width)]
    if screen.caption:
        rows += [(line, _LARGE, _WHITE) for line in textwrap.wrap(screen.caption, max(16, 2 * width // _LARGE - 8))]
    if screen.said is not None:
        rows.append((latency_line(screen.said), _SMALL, _GREY))
    return [*rows, (HELP, _SMALL, _GREY)]


def _wrapped(lines: Sequence[str], width: int) -> list[str]:
    columns = max(20, 2 * width // _PLAIN - 10)
    return [part for line in lines for part in textwrap.wrap(line, columns) or [""]]


def _box(draw: ImageDraw, picture: Image, rows: Sequence[Row], at: tuple[float, float], centred: bool = False) -> None:
    """Text on a dark ground. ``at`` is where it lies, from 0 (left, top) to 1 (right, bottom)."""
    widths = [draw.textlength(text, font=_font(height)) for text, height, _ in rows]
    width = int(max(widths)) + 2 * _PAD
    height = sum(int(1.35 * row[1]) for row in rows) + 2 * _PAD
    left = _MARGIN + int((picture.width - width - 2 * _MARGIN) * at[0])
    top = _MARGIN + int((picture.height - height - 2 * _MARGIN) * at[1])
    draw.rounded_rectangle((left, top, left + width, top + height), radius=8, fill=_SHADE)
    y = top + _PAD
    for (text, size, colour), long in zip(rows, widths, strict=True):
        x = left + _PAD + (int((width - 2 * _PAD - long) / 2) if centred else 0)
        draw.text((x, y), text, font=_font(size), fill=colour)
        y += int(1.35 * size)


@lru_cache
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
