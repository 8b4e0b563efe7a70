"""The frozen values that the stages hand on: Captured, Quantized, Lowered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge_sdk.models.base import Sample
from edge_sdk.schema.manifest import (
    Cost,
    Partition,
    PartSpec,
    Quantization,
    Rewrite,
    RuntimeRef,
    SkippedLayer,
    TensorSpec,
)

if TYPE_CHECKING:
    import onnx
    import torch


@dataclass(frozen=True)
class Graph:
    """One part as a graph: a PyTorch exported program, or an ONNX model.

    ``dynamic_shapes`` is what `torch.export.export` was given, so that a rewritten module can be
    exported again; ``layers`` maps nothing by itself: quantizers name layers by graph node.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    torch: torch.export.ExportedProgram | None = None
    onnx: onnx.ModelProto | None = None
    dynamic_shapes: Any = None


@dataclass(frozen=True)
class Captured:
    """The model as graphs, with the rewrites applied so far."""

    graphs: tuple[Graph, ...]
    cost: Cost
    rewrites: tuple[Rewrite, ...] = ()


@dataclass(frozen=True)
class Quantized:
    """Graphs after quantization. ``deferred`` names a method that the backend applies to the ONNX graph."""

    graphs: tuple[Graph, ...]
    quantization: Quantization
    rewrites: tuple[Rewrite, ...] = ()
    deferred: Any = None
    calibration: Sequence[Sample] = ()


@dataclass(frozen=True)
class Lowered:
    """Program files and what became of the graph on the way."""

    files: Mapping[str, bytes]
    parts: tuple[PartSpec, ...]
    runtime: RuntimeRef
    partition: Partition
    skipped: tuple[SkippedLayer, ...] = field(default=())
