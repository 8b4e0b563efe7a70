"""The live captioning program for the terminal: the picture, the caption, and what they take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from edge_sdk.reporting.tables import facts, listing
from edge_sdk.reporting.text import clean, figure, plural, scaled

if TYPE_CHECKING:
    import numpy as np

    from edge_sdk.models.captioning.live.program import Outcome, Screen
    from edge_sdk.models.captioning.live.source import Frame

HELP = "S caption · R repeat · P statistics · M model and precision · Q quit"
_SHARE = 0.55
_MOST_COLUMNS = 72
_FEWEST_ROWS, _LEFT_ROWS = 4, 11
_STEP = 12
"""Colours of the picture are told apart by so much: fewer colours are fewer bytes to the terminal."""


class Picture:
    """A frame in half blocks: each character is two pixels, one above the other.

    Args:
        frame: The frame.
        rows: Lines at most.
    """

    def __init__(self, frame: Frame, rows: int) -> None:
        self._frame, self._rows = frame, rows

    def _size(self, columns: int) -> tuple[int, int]:
        """Columns and rows that it takes."""
        height, width = self._frame.pixels.shape[:2]
        columns = max(2, min(columns, _MOST_COLUMNS, int(2 * self._rows * width / height)))
        return columns, max(1, min(self._rows, round(columns * height / width / 2)))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """It takes what fits."""
        columns, _ = self._size(options.max_width)
        return Measurement(columns, columns)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines."""
        columns, rows = self._size(options.max_width)
        pixels = _reduced(self._frame.pixels, columns, 2 * rows)
        for row in range(rows):
            yield from _line(pixels[2 * row], pixels[2 * row + 1])
            yield Segment.line()


def _reduced(pixels: np.ndarray, columns: int, rows: int) -> np.ndarray:
    import numpy as np
    from PIL import Image

    small = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize((columns, rows), Image.Resampling.BOX))
    return np.minimum(255, (small.astype(np.int32) + _STEP // 2) // _STEP * _STEP)


def _line(upper: np.ndarray, lower: np.ndarray) -> Iterator[Segment]:
    """Two rows of pixels as one line, equal neighbours together."""
    pairs = [(*above, *below) for above, below in zip(upper.tolist(), lower.tolist(), strict=True)]
    begin = 0
    for place in range(1, len(pairs) + 1):
        if place == len(pairs) or pairs[place] != pairs[begin]:
            yield Segment("▀" * (place - begin), _style(pairs[begin]))
            begin = place


@lru_cache(maxsize=1 << 16)
def _style(pair: tuple[int, ...]) -> Style:
    red, green, blue, *lower = pair
    return Style.parse(f"rgb({red},{green},{blue}) on rgb({lower[0]},{lower[1]},{lower[2]})")


class CaptionView:
    """A screen of the program, as large as the terminal lets it be.

    Args:
        screen: The moment.
    """

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The view."""
        screen = self._screen
        below = [*_caption(screen), *(Text(clean(note), style="yellow") for note in screen.notes)]
        panel = _panel(screen)
        if screen.frame is None or console.color_system is None:
            yield Group(panel, *below)
        else:
            rows = max(_FEWEST_ROWS, (options.height or console.height) - _LEFT_ROWS)
            grid = Table.grid(padding=(0, 2), pad_edge=False)
            grid.add_column(max_width=int(options.max_width * _SHARE))
            grid.add_column()
            grid.add_row(Picture(screen.frame, rows), panel)
            yield Group(grid, *below)
        yield Text(HELP, style="dim")


def caption_view(screen: Screen) -> RenderableType:
    """A screen of the program."""
    return CaptionView(screen)


def _caption(screen: Screen) -> list[RenderableType]:
    words = screen.caption or ("..." if screen.said is None else "(nothing)")
    lines: list[RenderableType] = [Text(f"» {clean(words)}", style="bold green")]
    said = screen.said
    if said is not None:
        lines.append(Text(f"  {latency_line(said)}", style="dim"))
    return [Text(), *lines]


def latency_line(said: Any) -> str:
    """What a caption took, in words."""
    steps_ms = sum(said.steps_ms)
    return (
        f"{figure(said.latency_ms)} ms: encoder {figure(said.encoder_ms)}, {plural(len(said.steps_ms), 'step')} "
        f"{figure(steps_ms)} ({figure(steps_ms / max(1, len(said.steps_ms)))} each); with the host's part "
        f"{figure(said.wall_ms)} ms"
    )


def _panel(screen: Screen) -> RenderableType:
    if screen.menu:
        return Text("\n".join(clean(line) for line in screen.menu), style="bold")
    rows = [("Stream", _stream(screen)), *status_rows(screen.statistics)]
    if screen.busy:
        rows.append(("Busy", screen.busy))
    rows[1:1] = [("Runs by", f"{screen.about['runtime']} on {screen.about['device']}")]
    if screen.is_asked:
        return facts(f"Statistics: {screen.title}", statistics_rows(screen.statistics))
    return facts(screen.title, rows)


def _stream(screen: Screen) -> str:
    shown = "-" if screen.shown_per_s is None else figure(screen.shown_per_s)
    number = screen.frame.number if screen.frame else 0
    return f"{screen.source}, frame {number:,}, {shown} a second"


def status_rows(statistics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The three lines that are always shown: how fast, and how much memory."""
    if not statistics["captions"]:
        return [("FPS", "no caption yet")]
    last, memory = statistics["latency"]["last"], statistics["memory"]
    of = "the last caption" if last["count"] == 1 else f"the last {last['count']}"
    cpu, gpu = (_mib(memory[name]).partition(" (")[0] for name in ("cpu", "gpu"))
    return [
        ("FPS", f"{figure(1e3 / last['mean'])}   Latency {figure(last['mean'])} ms, mean of {of}"),
        ("Memory", f"CPU {cpu}   GPU {gpu}"),
    ]


def statistics_rows(statistics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """All that was measured of a model in a precision."""
    if not statistics["captions"]:
        return [("Count", "no caption yet")]
    last, everything = statistics["latency"]["last"], statistics["latency"]["all"]
    memory = statistics["memory"]
    rows = [
        ("Latency", f"mean {figure(everything['mean'])} ms"),
        ("", f"median {figure(everything['median'])} ms"),
        ("", f"min/max {figure(everything['min'])} / {figure(everything['max'])} ms"),
        ("", f"deviation {figure(everything['std'])} ms"),
        ("", f"last {last['count']}: mean {figure(last['mean'])}, median {figure(last['median'])} ms"),
        ("Parts", f"encoder {figure(statistics['encoder']['mean'])} ms"),
        ("", f"{statistics['steps_per_caption']:.1f} steps of {figure(statistics['step']['mean'])} ms"),
        ("", f"with the host's part {figure(statistics['with_host']['mean'])} ms"),
        ("Throughput", f"FPS {figure(statistics['throughput_per_s'])}"),
        ("", f"one frame {figure(everything['mean'])} ms"),
        ("Memory", f"CPU {_mib(memory['cpu'])}, at most {_mib(memory['cpu_most'])}"),
        ("", f"GPU {_mib(memory['gpu'])}"),
        ("Count", plural(everything["count"], "caption")),
    ]
    return rows


def outcome_view(outcome: Outcome) -> RenderableType:
    """What is left when the program has ended: the captions, and the statistics of each model and precision."""
    captions = [event for event in outcome.events if event["kind"] == "caption"]
    rows = [
        (figure(one["t_s"]), f"{one['frame']:,}", one["title"], figure(one["latency_ms"]), one["text"])
        for one in captions
    ]
    views: list[RenderableType] = []
    if rows:
        views += [listing(["Second", "Frame", "Model", "ms", "Caption"], rows), Text()]
    measured = [one for one in outcome.statistics if one["captions"]]
    for statistics in measured:
        views += [facts(_title(statistics), statistics_rows(statistics)), Text()]
    return Group(*views, Text(f"Ended: {clean(outcome.ended)}"))


def _title(statistics: Mapping[str, Any]) -> str:
    size = scaled(statistics["size_bytes"], "B")
    return f"{statistics['title']}: {statistics['runtime']} on {statistics['device']}, {size}"


def _mib(value: Any) -> str:
    return f"none ({value['unavailable']})" if isinstance(value, Mapping) else f"{figure(value)} MiB"


_COLUMNS = (
    "Model",
    "Size",
    "Latency",
    "Encoder\n+ steps",
    "Times FP32's\n(95 % interval)",
    "FPS",
    "Memory",
    "Energy",
    "Same\ncaptions",
    "Same\nwords",
    "CIDEr",
)


def matrix_view(document: Mapping[str, Any]) -> RenderableType:
    """The table of all models and precisions, and what its columns are."""
    rows = [_matrix_row(row) for row in document["rows"]]
    notes = [Text(f"\n{clean(note)}") for note in _matrix_notes(document)]
    return Group(listing(_COLUMNS, rows), *notes)


def matrix_page(document: Mapping[str, Any]) -> str:
    """The same as a page of Markdown."""
    rows = [_COLUMNS, ["---"] * len(_COLUMNS), *(_matrix_row(row) for row in document["rows"])]
    lines = [f"| {' | '.join(cell.replace(chr(10), ' ').replace('|', '/') for cell in row)} |" for row in rows]
    return "\n\n".join(["# Captioning: models and precisions", "\n".join(lines), *_matrix_notes(document)]) + "\n"


def _matrix_row(row: Mapping[str, Any]) -> list[str]:
    name = row["title"].replace(" Model + ", ", ")
    if "unavailable" in row:
        return [name, "not available", *[""] * (len(_COLUMNS) - 2)]
    bundle, ratio, memory, energy = row["bundle"], row["ratio"], row["memory"], row["energy"]
    low, high = ratio["ci95"]
    interval = "" if low == high else f"\n({figure(low)} to {figure(high)})"
    return [
        name,
        f"{scaled(bundle['size_bytes'], 'B')}\n{100 * bundle['share_of_base']:.0f} %",
        f"{figure(row['latency_ms'])} ms",
        f"{figure(row['encoder_ms'])}\n+ {row['steps_per_caption']:.1f} x {figure(row['step_ms'])}",
        f"{figure(ratio['value'])}{interval}",
        figure(row["captions_per_s"]),
        "-" if "unavailable" in memory else f"{memory['peak']:.0f} MiB",
        "-" if "unavailable" in energy else f"{figure(energy['per_inference'])} mJ",
        f"{100 * row['same_captions']:.0f} %",
        f"{100 * row['same_words']:.0f} %",
        f"{row['cider']:.2f}",
    ]


def _matrix_notes(document: Mapping[str, Any]) -> list[str]:
    """What the columns are, and what is missing and why."""
    device = document["device"]
    found = [row for row in document["rows"] if "unavailable" not in row]
    notes = [
        f"{document['runtime']} for {document['target']} on {device['model']}, {device['soc']} ({device['uri']}). "
        f"{document['photos']} photos in {document['rounds']} turns each, taking turns.",
        "Latency is the median of a caption by the runner's clock, encoder and steps together; FPS is how many of them "
        "fit into a second. Size beside the original's in FP32; times FP32's: the ratio to its latency. Memory is the "
        "peak of the runner's process in 'edge-sdk profile', energy that of the encoder and one step there.",
        "Same captions and same words: the share that is equal to the original's in FP32, word by word at its place. "
        "CIDEr, 0 to 10, judges by what people wrote; photos and captions are few, and training has seen the photos.",
    ]
    for name in ("memory", "energy"):
        reasons = sorted({row[name]["unavailable"] for row in found if "unavailable" in row[name]})
        notes += [f"No {name}: {reason}" for reason in reasons]
    notes += dict.fromkeys(row["unavailable"] for row in document["rows"] if "unavailable" in row)
    return notes
