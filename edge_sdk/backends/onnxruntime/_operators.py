"""Which operators a graph has, by ONNX's names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

    from edge_sdk.pipeline.values import Graph

# What PyTorch's operators with graphs of their own become when they are exported.
_CONTROL_FLOW = {"cond": "If", "while_loop": "Loop", "scan": "Scan", "map_impl": "Scan"}


def of_onnx(part: str, graph: onnx.GraphProto) -> Iterator[tuple[str, str, str]]:
    """Part, operator and node of an ONNX graph and of the graphs within."""
    for node in graph.node:
        yield part, node.op_type, node.name or next(iter(node.output), "")
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from of_onnx(part, inner)


def of_torch(graph: Graph) -> Iterator[tuple[str, str, str]]:
    """Part, operator and node of what becomes control flow; the other operators' names come with the export."""
    assert graph.torch is not None
    for node in graph.torch.graph.nodes:
        name = getattr(node.target, "__name__", "")
        if node.op == "call_function" and name in _CONTROL_FLOW:
            yield graph.name, _CONTROL_FLOW[name], node.name
