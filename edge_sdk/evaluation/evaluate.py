"""Judges a tagger on the val split of a COCO folder, alone or beside another."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.errors import ModelError
from edge_sdk.evaluation._open import Loader, Say
from edge_sdk.evaluation.result import Evaluation, Judged, MapDifference, Metrics, SkippedImage

if TYPE_CHECKING:
    import numpy as np

    from edge_sdk.evaluation._subject import Subject
    from edge_sdk.models.base import Sample
    from edge_sdk.models.photo_tagging._data import Skips

RESULT = "evaluation.json"
_PIECE_BYTES = 96 << 20
"""Of inputs that are in memory at once, and that a runner gets in one run."""


def evaluate(
    what: Path | str,
    data: Path | str,
    *,
    against: Path | str | None = None,
    model: str = "photo_tagging",
    settings: Mapping[str, str] | None = None,
    device: str | None = None,
    runner: str | None = None,
    threads: int | None = None,
    limit: int | None = None,
    threshold: float = 0.5,
    pictures: Path | str | None = None,
    out: Path | str | None = None,
    progress: Say | None = None,
) -> Evaluation:
    """Judges a tagger on the val split of a labelled data set, and another beside it on the same images.

    Args:
        what: A checkpoint (``.pt``, ``.pth``), a bundle, a ``.pte`` or a ``.onnx`` file.
        data: A folder in COCO's layout, or ``embedded``.
        against: Another of these; the difference of mAP gets its 95 % interval by resampling the images.
        model: The plugin that prepares photos.
        settings: The model's settings by name.
        device: Where bundles and programs run, None: here. Checkpoints run here.
        runner: See `edge_sdk.profile`.
        threads: Processor threads, None for the runtime's choice.
        limit: So many images, evenly taken from the split; None for all.
        threshold: The probability from which on a tag is given.
        pictures: The folder for ``tags.png`` and ``precision_recall.png``; None draws none.
        out: The folder for ``evaluation.json``; None does not write it.
        progress: Called with a line as each stage starts.

    Raises:
        ModelError: A file or the data does not fit, or more than 1 % of the images are damaged.
        DeviceError: The device or the runner failed.
        EdgeSdkError: See `edge_sdk.errors`.
    """
    from edge_sdk.models.photo_tagging._data import Skips, evenly, index_identity
    from edge_sdk.models.photo_tagging.coco import read_index
    from edge_sdk.models.photo_tagging.embedded import data_root

    if pictures is not None:
        from edge_sdk.reporting.tag_pictures import check_pictures

        check_pictures()
    say = progress or (lambda _: None)
    index = read_index(data_root(str(data)), "val")
    places = evenly(len(index.files), limit or 0)
    files, labels = [index.files[place] for place in places], index.labels[places]
    _check_labels(labels, index.root)
    paths = [Path(path).expanduser() for path in ([what] if against is None else [what, against])]
    with tempfile.TemporaryDirectory() as scratch:
        loader = Loader(model, dict(settings or {}), str(index.root), index.categories, Path(scratch))
        subjects = loader.subjects(paths, device, runner, threads, say)
        skips = Skips(str(index.root), len(files))
        scores: list[np.ndarray] = []
        runtimes: list[str] = []
        for subject in subjects:
            with subject.start() as started:
                found, kept = _run(subject, started.logits, files, len(index.categories), skips, say)
                runtimes.append(started.runtime)
            files, labels = [files[place] for place in kept], labels[kept]
            scores = [*(earlier[kept] for earlier in scores), found]
    _check_labels(labels, index.root)
    judged = [
        _judged(subject, runtime, probabilities, labels, index.categories, threshold)
        for subject, runtime, probabilities in zip(subjects, runtimes, scores, strict=True)
    ]
    result = Evaluation(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        data=str(index.root),
        data_sha256=index_identity(index),
        split=index.split,
        images=len(files),
        skipped=[SkippedImage(file=path.name, reason=reason) for path, reason in skips.reasons.items()],
        threshold=threshold,
        judged=judged[0],
        against=judged[1] if against is not None else None,
        difference=_difference(scores, labels, say) if against is not None else None,
    )
    if pictures is not None:
        from edge_sdk.reporting.tag_pictures import draw_pictures

        say("drawing the pictures")
        draw_pictures(result, files, labels, scores, Path(pictures))
    if out is not None:
        from edge_sdk._files import write_atomic

        write_atomic(Path(out) / RESULT, result.model_dump_json(indent=2) + "\n")
    return result


def _check_labels(labels: np.ndarray, root: Path) -> None:
    if not labels.any():
        raise ModelError(
            f"{root}: none of the {len(labels)} images to judge with has a category, so there is nothing to measure. "
            "Take more of them (--limit), or other data."
        )


def _run(
    subject: Subject,
    logits: Callable[[Sequence[Sample]], np.ndarray],
    files: Sequence[Path],
    categories: int,
    skips: Skips,
    say: Say,
) -> tuple[np.ndarray, list[int]]:
    """The probabilities of all images that can be read, ``[n, c]``, and the places of those images."""
    import numpy as np

    from edge_sdk.models._tags import sigmoid
    from edge_sdk.models.photo_tagging._data import readable

    rows, kept = [], []
    for piece in _pieces(readable(files, subject.model.preprocess, skips)):
        found = logits([sample for _, sample in piece])
        places = [place for place, _ in piece]
        if found.ndim != 2 or found.shape[1] != categories:
            raise ModelError(
                f"{subject.path} gives {found.shape[-1]} values for an image, and the data has {categories} categories."
            )
        if not np.isfinite(found).all():
            bad = places[int(np.flatnonzero(~np.isfinite(found).all(1))[0])]
            raise ModelError(f"{subject.path} gives NaN or infinity for {files[bad].name}; its figures mean nothing.")
        rows.append(found)
        kept += places
        say(f"{subject.name} on {subject.device}: {places[-1] + 1:,} of {len(files):,} images")
    raw = np.concatenate(rows)
    if len(raw) > 1 and raw.min() >= 0 and raw.max() <= 1:
        raise ModelError(
            f"all values that {subject.path} gives lie between 0 and 1: they are probabilities, and logits are "
            "expected. Export the model without its last sigmoid."
        )
    return sigmoid(raw), kept


def _pieces(samples: Iterator[tuple[int, Sample]]) -> Iterator[list[tuple[int, Sample]]]:
    """Samples in groups that are small enough to be held."""
    piece, size = [], 0
    for place, sample in samples:
        piece.append((place, sample))
        size += sum(array.nbytes for arrays in sample.values() for array in arrays.values())
        if size >= _PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _judged(
    subject: Subject,
    runtime: str,
    probabilities: np.ndarray,
    labels: np.ndarray,
    categories: Sequence[str],
    threshold: float,
) -> Judged:
    from edge_sdk.profiling.multilabel import average_precisions, metrics

    size = subject.model.input_size
    areas = average_precisions(probabilities, labels).tolist()
    return Judged(
        name=subject.name,
        kind=subject.kind,
        path=str(subject.path),
        sha256=subject.sha256,
        size_bytes=subject.size_bytes,
        method=subject.method,
        runtime=runtime,
        device=subject.device,
        input_size=[size, size],
        metrics=Metrics(**metrics(probabilities, labels, threshold)),
        average_precision={n: None if isnan(area) else area for n, area in zip(categories, areas, strict=True)},
    )


def _difference(scores: Sequence[np.ndarray], labels: np.ndarray, say: Say) -> MapDifference:
    from edge_sdk.evaluation.bootstrap import RESAMPLES, SEED, map_difference

    say(f"resampling the images {RESAMPLES:,} times")
    value, ci95 = map_difference(scores[0], scores[1], labels)
    return MapDifference(value=value, ci95=ci95, resamples=RESAMPLES, seed=SEED)
