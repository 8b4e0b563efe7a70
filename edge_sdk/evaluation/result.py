"""What an evaluation gives: ``evaluation.json``."""

from __future__ import annotations

from typing import Literal

from edge_sdk.schema._base import Frozen

Kind = Literal["checkpoint", "lsq checkpoint", "bundle", "pte", "onnx"]


class Metrics(Frozen):
    """Shares of 1, means over the classes that occur; see `edge_sdk.profiling.multilabel.metrics`."""

    map: float
    precision: float
    recall: float
    f1: float
    best_threshold: float
    best_f1: float


class Judged(Frozen):
    """One tagger and how right it is.

    ``method`` is the quantizer of a bundle, None for a bare program, which does not tell.
    ``size_bytes`` is that of the programs or of the checkpoint. ``average_precision`` has None for a
    class that no image has.
    """

    name: str
    kind: Kind
    path: str
    sha256: str
    size_bytes: int
    method: str | None
    runtime: str
    device: str
    input_size: list[int]
    metrics: Metrics
    average_precision: dict[str, float | None]


class MapDifference(Frozen):
    """The first tagger's mAP less the other's, with its 95 % interval over resampled images."""

    value: float
    ci95: tuple[float, float]
    resamples: int
    seed: int


class SkippedImage(Frozen):
    """An image that could not be read."""

    file: str
    reason: str


class Evaluation(Frozen):
    """``evaluation.json``. ``data_sha256`` is that of the index: categories, names of images, labels."""

    schema_version: Literal[1] = 1
    created: str
    data: str
    data_sha256: str
    split: str
    images: int
    skipped: list[SkippedImage]
    threshold: float
    judged: Judged
    against: Judged | None = None
    difference: MapDifference | None = None
