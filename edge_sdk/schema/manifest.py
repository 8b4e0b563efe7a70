"""``manifest.json``: what a bundle is, and what it was made of."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edge_sdk.schema._base import Frozen

SCHEMA_VERSION = 1


class TensorSpec(Frozen):
    """An input or output. ``shape`` has ``None`` where a dimension is dynamic."""

    name: str
    dtype: Literal["float32", "float16", "int64", "int32", "int8", "uint8", "bool"]
    shape: list[int | None]


class PartSpec(Frozen):
    """A part of the model (encoder, decoder step): which program holds it and what goes in and out."""

    name: str
    program: str
    entry: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]


class SkippedLayer(Frozen):
    """A layer left in a higher precision than the method's, and why."""

    layer: str
    op: str
    precision: str
    reason: str


class Quantization(Frozen):
    """The method, its options as used, and the layers it left alone."""

    method: str
    options: dict[str, str | int | float | bool | None] = {}
    skipped: list[SkippedLayer] = []


class Pruning(Frozen):
    """How the model was pruned before it was quantized.

    ``zeros`` are weights that are zero; ``whole`` are parts that were left as they are, and why.
    """

    recipe: str
    parameters_before: int
    parameters: int
    zeros: int
    whole: dict[str, str] = {}


class Fallback(Frozen):
    """An operator that the delegate did not take: how often and why."""

    op: str
    count: int
    reason: str


class Rewrite(Frozen):
    """A graph rewrite: how often it applied and how far the outputs moved (largest absolute error)."""

    name: str
    count: int
    max_abs_err: float


class Partition(Frozen):
    """What the delegate took: operator nodes inside and outside, in how many pieces.

    ``warnings`` say where another target would probably serve better.
    """

    delegate: str
    delegated: int
    pieces: int
    fallback: list[Fallback] = []
    rewrites: list[Rewrite] = []
    warnings: list[str] = []


class Cost(Frozen):
    """Work of one inference: multiply-accumulates, and bytes of weights and activations moved."""

    macs: int
    weight_bytes: int
    activation_bytes: int


class ModelRef(Frozen):
    """The model's name and variant."""

    name: str
    variant: str | None = None


BUILT_THERE = "built on the device"
"""Stands as a runtime's version where the device's own decides."""


class EngineLayer(Frozen):
    """A layer of an engine: the types of its tensors, each once, and the nodes of the graph that it computes."""

    part: str
    name: str
    kind: str
    inputs: list[str]
    outputs: list[str]
    nodes: list[str]


class RuntimeRef(Frozen):
    """The runtime that a bundle is compiled for, with the options that its runner gets."""

    name: str
    version: str
    delegate: str
    options: dict[str, str | int | float | bool] = {}


class FileEntry(Frozen):
    """A file of the bundle."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class Selection(Frozen):
    """How the runtime was chosen where the target allows several."""

    by: Literal["request", "measurement", "order", "only"]
    reason: str
    medians_ms: dict[str, float] = {}


class Manifest(Frozen):
    """``manifest.json`` of a bundle.

    ``facts`` are what the model says of itself. ``extras`` are programs in another format, for other
    builds of the runtime, and what tells of the programs. ``layers`` are those of engines that were built here.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    created: str
    sdk_version: str
    key: str = Field(pattern="^[0-9a-f]{64}$")
    target: str
    model: ModelRef
    runtime: RuntimeRef
    pruning: Pruning | None = None
    quantization: Quantization
    parts: list[PartSpec]
    partition: Partition
    cost: Cost
    versions: dict[str, str]
    compile_s: dict[str, float] = {}
    labels: list[str] | None = None
    facts: dict[str, str | int | float | bool] = {}
    layers: list[EngineLayer] = []
    reference: str = "reference.npz"
    extras: list[str] = []
    files: dict[str, FileEntry]

    @property
    def size_bytes(self) -> int:
        """Bytes of the program files, without the extras, the reference outputs and the manifest."""
        others = {self.reference, *self.extras}
        return sum(entry.size_bytes for name, entry in self.files.items() if name not in others)
