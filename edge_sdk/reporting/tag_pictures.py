"""Pictures of an evaluation: photos with their tags, and precision over recall."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk._files import write_atomic
from edge_sdk.errors import MissingDependencyError
from edge_sdk.reporting.text import clean

if TYPE_CHECKING:
    import numpy as np

    from edge_sdk.evaluation.result import Evaluation, Judged

TAGS = "tags.png"
CURVES = "precision_recall.png"

_PHOTOS = 12
_COLUMNS = 4
_MOST_TAGS = 6
_PHOTO_IN, _GAP_IN, _TITLE_IN, _HEAD_IN, _LINE_IN = 3.0, 0.35, 0.4, 0.85, 0.21  # inches
_MOST_NAME, _MOST_HEADING = 14, 22  # characters: what half a photo's width has room for
# Colours that people with any colour blindness tell apart (Okabe and Ito), each with a sign of its own.
_RIGHT, _MISSED, _WRONG = ("✓", "#00785a"), ("○", "#8a6d00"), ("✗", "#c03a00")
_COLOURS = ("#1f5fa8", "#c2472b")
_MOST_POINTS = 2000
"""Of a curve: more would be closer together than the picture's dots."""


def check_pictures() -> None:
    """Checks that pictures can be drawn, before anything is run for them.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise MissingDependencyError(
            "the pictures of an evaluation need Matplotlib, which is not installed. Run: "
            "pip install 'edge-sdk[report]', or leave --pictures out."
        )


def draw_pictures(
    result: Evaluation, files: Sequence[Path], labels: np.ndarray, probabilities: Sequence[np.ndarray], folder: Path
) -> None:
    """Draws ``tags.png`` and ``precision_recall.png``.

    Args:
        result: The evaluation.
        files: Its images.
        labels: 0 or 1, ``[images, classes]``.
        probabilities: ``[images, classes]`` of the tagger, and of the one beside it where there is one.
        folder: Where to put the pictures.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
        StorageError: A picture cannot be written.
    """
    check_pictures()
    taggers = [result.judged, *([result.against] if result.against else [])]
    pairs = list(zip(taggers, probabilities, strict=True))[::-1]  # FP32, which stands beside, comes first
    _tags(result, pairs, files, labels, folder / TAGS)
    _curves(result, pairs, labels, folder / CURVES)


_Pairs = Sequence[tuple["Judged", "np.ndarray"]]


def _tags(result: Evaluation, pairs: _Pairs, files: Sequence[Path], labels: np.ndarray, path: Path) -> None:
    """Photos, evenly spread over those that have a tag, each with its tags by every tagger."""
    import numpy as np

    from edge_sdk.models.photo_tagging._data import evenly

    tagged = np.flatnonzero(labels.any(1))
    chosen = [int(tagged[place]) for place in evenly(len(tagged), _PHOTOS)]
    names = list(result.judged.average_precision)
    said = {
        image: [_judgements(scores[image], labels[image], names, result.threshold) for _, scores in pairs]
        for image in chosen
    }
    rows = [chosen[start : start + _COLUMNS] for start in range(0, len(chosen), _COLUMNS)]
    depths = [_LINE_IN * (1.5 + max(len(column) for image in row for column in said[image])) for row in rows]
    width = _COLUMNS * (_PHOTO_IN + _GAP_IN) + _GAP_IN
    height = _HEAD_IN + sum(_TITLE_IN + _PHOTO_IN + depth + _GAP_IN for depth in depths)
    figure = _figure(width, height)
    top = height - _HEAD_IN
    for row, depth in zip(rows, depths, strict=True):
        top -= _TITLE_IN + _PHOTO_IN
        for place, image in enumerate(row):
            left = _GAP_IN + place * (_PHOTO_IN + _GAP_IN)
            axis = figure.add_axes((left / width, top / height, _PHOTO_IN / width, _PHOTO_IN / height))
            _photo(axis, files[image], [names[column] for column in np.flatnonzero(labels[image]).tolist()])
            for side, (tagger, _) in enumerate(pairs):
                _column(axis, side / len(pairs), tagger.name, said[image][side])
        top -= depth + _GAP_IN
    _legend(figure, width, height, len(chosen), len(tagged), result.threshold)
    _save(figure, path)


def _legend(figure, width: float, height: float, shown: int, tagged: int, threshold: float) -> None:
    """What the picture shows, and what its signs mean."""
    words = {"va": "top", "fontsize": 11}
    heading = f"{shown} of the {tagged:,} photos with a tag, evenly taken; tags from a probability of {threshold:g} on"
    figure.text(_GAP_IN / width, 1 - 0.2 / height, heading, **words)
    meanings = ("given, and right", "missed", "given, and wrong")
    for place, ((sign, colour), meaning) in enumerate(zip((_RIGHT, _MISSED, _WRONG), meanings, strict=True)):
        x = (_GAP_IN + 1.8 * place) / width
        figure.text(x, 1 - 0.5 / height, f"{sign} {meaning}", color=colour, **words)


def _photo(axis, file: Path, truth: Sequence[str]) -> None:
    """The middle of a photo, as a tagger sees it, and its true tags above."""
    from edge_sdk.models._images import center_square, read_photo

    axis.imshow(center_square(read_photo(file), 0.875, 256))
    axis.set_axis_off()
    words = ", ".join(_short(name) for name in truth[:_MOST_TAGS]) + (", …" if len(truth) > _MOST_TAGS else "")
    middle = words.find(", ", len(words) // 2) + 2 if len(words) > 34 else 0
    two = words[:middle].strip() + "\n" + words[middle:] if middle > 1 else words
    axis.set_title(two, fontsize=9, loc="left", fontweight="bold", pad=4)


_Row = tuple[str, str, str, str]
"""Sign, colour, words and how they are set."""


def _judgements(probabilities: np.ndarray, labels: np.ndarray, names: Sequence[str], threshold: float) -> list[_Row]:
    """The tags that were given or should have been, most probable first."""
    import numpy as np

    given = probabilities >= threshold
    shown = np.flatnonzero(given | labels.astype(bool))
    ordered = shown[np.argsort(-probabilities[shown], kind="stable")]
    lines = []
    for place in map(int, ordered[:_MOST_TAGS]):
        sign, colour = _MISSED if not given[place] else _RIGHT if labels[place] else _WRONG
        style = "normal" if labels[place] and given[place] else "italic"
        lines.append((sign, colour, f"{_short(names[place])} {probabilities[place]:.2f}", style))
    if len(ordered) > _MOST_TAGS:
        lines.append(("", "#444444", f"and {len(ordered) - _MOST_TAGS} more", "normal"))
    return lines


def _column(axis, left: float, heading: str, lines: Sequence[_Row]) -> None:
    """A tagger's tags below a photo."""
    words = {"transform": axis.transAxes, "va": "top", "clip_on": False}
    line = _LINE_IN / _PHOTO_IN
    axis.text(left, -0.03, _short(heading, _MOST_HEADING), fontsize=8.5, color="#444444", **words)
    for row, (sign, colour, text, style) in enumerate(lines):
        y = -0.03 - line * (row + 1)
        axis.text(left, y, sign, fontsize=8.5, color=colour, **words)
        axis.text(left + 0.055, y, text, fontsize=8.5, color=colour, style=style, **words)


def _curves(result: Evaluation, pairs: _Pairs, labels: np.ndarray, path: Path) -> None:
    """A panel for each tagger: its classes light, all decisions together dark; in the second the first's dashed."""
    from edge_sdk.profiling.multilabel import curve

    figure = _figure(5.4 * len(pairs), 5.6)
    figure.subplots_adjust(left=0.12 / len(pairs), right=0.97, bottom=0.1, top=0.83, wspace=0.1)
    axes = figure.subplots(1, len(pairs), squeeze=False, sharey=True)[0]
    names = list(result.judged.average_precision)
    whole = [curve(probabilities.reshape(-1), labels.reshape(-1)) for _, probabilities in pairs]
    for place, (axis, (tagger, probabilities)) in enumerate(zip(axes, pairs, strict=True)):
        colour = _COLOURS[place]
        found = [curve(probabilities[:, column], labels[:, column]) for column in range(len(names))]
        for one in found:
            if one is not None:
                axis.step(*_thinned(one.recall, one.precision), where="pre", color=colour, alpha=0.22, linewidth=0.8)
        axis.plot([], [], color=colour, alpha=0.4, linewidth=0.8, label=_plural(sum(one is not None for one in found)))
        own = whole[place]
        assert own is not None
        label = f"all decisions together, area {own.average_precision:.4f}"
        axis.step(*_thinned(own.recall, own.precision), where="pre", color=colour, linewidth=2, label=label)
        if place:
            first = whole[0]
            assert first is not None
            style = {"color": _COLOURS[0], "linewidth": 1.3, "linestyle": (0, (4, 2))}
            axis.step(
                *_thinned(first.recall, first.precision),
                where="pre",
                label=_short(pairs[0][0].name, _MOST_HEADING),
                **style,
            )
        axis.set_title(f"{_short(tagger.name, 40)}: mAP {100 * tagger.metrics.map:.2f} %", fontsize=10, loc="left")
        axis.set(xlim=(0, 1.005), ylim=(0, 1.02), xlabel="recall")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(loc="lower left", fontsize=8, frameon=False)
    axes[0].set_ylabel("precision")
    figure.suptitle(_heading(result), x=0.02, y=0.975, ha="left", fontsize=10)
    _save(figure, path)


def _heading(result: Evaluation) -> str:
    lines = [f"Precision over recall on {result.images:,} photos of {_short(Path(result.data).name, 40)}"]
    if result.against is not None and result.difference is not None:
        one, other = _short(result.judged.name, 40), _short(result.against.name, 40)
        value, low, high = (100 * points for points in (result.difference.value, *result.difference.ci95))
        lines.append(f"{one} less {other}: {value:+.2f} points of mAP (95 % interval {low:+.2f} to {high:+.2f})")
    return "\n".join(lines)


def _thinned(recall: np.ndarray, precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most so many points of a curve, with its ends."""
    import numpy as np

    if len(recall) <= _MOST_POINTS:
        return recall, precision
    places = np.linspace(0, len(recall) - 1, _MOST_POINTS).round().astype(int)
    return recall[places], precision[places]


def _plural(classes: int) -> str:
    return "1 class" if classes == 1 else f"each of {classes} classes"


def _short(words: str, most: int = _MOST_NAME) -> str:
    """So many characters at most, without what Matplotlib would take for a formula."""
    text = clean(words)
    return (text if len(text) <= most else f"{text[: most - 1]}…").replace("$", r"\$")


def _figure(width: float, height: float):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _save(figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomic(path, buffer.getvalue())
