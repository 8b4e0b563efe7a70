"""The frozen values that the stages hand on: Captured, Quantized, Lowered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge_sdk.schema.manifest import (
    EngineLayer,
    Partition,
    PartSpec,
    Pruning,
    Quantization,
    Rewrite,
    RuntimeRef,
    TensorSpec,
)

if TYPE_CHECKING:
    import onnx
    import torch

    from edge_sdk.models.base import Sample

KEEP_FLOAT = "edge_sdk_keep_float"
"""Key of ``node.meta`` for a piece of an operator that stays in float as a whole: no quantizer touches it."""


@dataclass(frozen=True)
class Graph:
    """One part as a graph: of PyTorch's core operators, or of ONNX. Exactly one of the two is set.

    Attributes:
        name: The part's name.
        inputs: What goes in, in positional order.
        outputs: What comes out, in order.
        torch: The graph module; called with positional tensors, it gives a tensor or a tuple.
        example_inputs: The tensors that the graph was captured with.
        dynamic_shapes: What `torch.export.export` needs to export ``torch`` again, None where all is static.
        onnx: The ONNX model.
        keeps_float: Why the part stays in FP32 whatever the quantizer, empty where it need not.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    torch: torch.fx.GraphModule | None = None
    example_inputs: tuple[torch.Tensor, ...] = ()
    dynamic_shapes: Any = None
    onnx: onnx.ModelProto | None = None
    keeps_float: str = ""


@dataclass(frozen=True)
class Captured:
    """The model as graphs, with the rewrites applied so far and the multiply-accumulates of one inference.

    ``pruning`` tells what was pruned before it was captured.
    """

    graphs: tuple[Graph, ...]
    macs: int
    rewrites: tuple[Rewrite, ...] = ()
    pruning: Pruning | None = None


@dataclass(frozen=True)
class Quantized:
    """Graphs after quantization.

    ``on_onnx`` is the quantizer where it is still to be applied, to the ONNX graph that the backend
    makes; ``calibration`` is what it may need then. ``enabled`` names the rewrites that are switched on.
    """

    graphs: tuple[Graph, ...]
    quantization: Quantization
    rewrites: tuple[Rewrite, ...] = ()
    on_onnx: Any = None
    calibration: Sequence[Sample] = ()
    enabled: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Lowered:
    """Program files by path in the bundle, and what became of the graph on the way.

    ``extras`` are the programs in another format, which no part names, and what tells of the programs.
    """

    files: Mapping[str, bytes]
    parts: tuple[PartSpec, ...]
    runtime: RuntimeRef
    quantization: Quantization
    partition: Partition
    extras: Mapping[str, bytes] = field(default_factory=dict)
    layers: Sequence[EngineLayer] = ()
