"""Where the NNAPI provider cuts a graph: which units it takes, in how many pieces.

Source: ONNX Runtime, core/providers/partitioning_utils.cc (CreateSupportedPartitionNodeGroups: waves of
a topological walk, each giving at most one piece), core/providers/nnapi/nnapi_builtin/
nnapi_execution_provider.cc (GetCapability), builders/helper.cc (IsInternalQuantizationSupported,
IsValidSupportedNodeGroup).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from onnx import TensorProto

from edge_sdk.backends.onnxruntime.nnapi._rules import why_not
from edge_sdk.backends.onnxruntime.nnapi._units import Unit, units_of
from edge_sdk.backends.onnxruntime.nnapi._view import View

# These compute on UINT8 without scales of their own, which they take over from what is before them in their piece.
_INHERITS = {"Transpose", "Resize", "Concat", "MaxPool"}
_COPIES = {"Reshape", "Flatten", "Identity"}


@dataclass(frozen=True)
class Cut:
    """What the provider takes of a graph.

    Attributes:
        view: The graph.
        pieces: The units of each piece.
        left: The units that stay on the CPU, each with the reason.
    """

    view: View
    pieces: tuple[tuple[Unit, ...], ...]
    left: tuple[tuple[Unit, str], ...]


def cut(view: View, level: int) -> Cut:
    """Cuts a graph as the provider does, before it changes the layout to channels last.

    Args:
        view: The graph, as ONNX Runtime's basic optimisations leave it.
        level: The NNAPI feature level.
    """
    units = units_of(view)
    edges = _Edges(view, units)
    ready = deque(edges.roots())
    later: deque[int] = deque()
    pieces: list[tuple[Unit, ...]] = []
    left: dict[int, str] = {}
    piece: list[Unit] = []
    border: set[int] = set()
    given: set[str] = set()  # what the piece's nodes give, without what their quantizers give

    def close() -> None:
        if len(piece) == 1 and len(piece[0].places) == 1 and view.nodes[piece[0].target].op_type in _COPIES:
            left[piece[0].target] = "the NNAPI provider leaves an operator alone that only copies"
        elif piece:
            pieces.append(tuple(piece))
        piece.clear()
        border.clear()
        given.clear()

    known: dict[int, str | None] = {}
    while ready or later:
        if not ready:
            close()
            ready, later = later, deque()
            continue
        target = ready.popleft()
        unit = units[target]
        if target not in known:
            known[target] = why_not(unit, view, level) or _without_scale(unit, view, given)
        reason = known[target]
        if reason is not None and target in border:
            later.append(target)
            continue
        if reason is None:
            piece.append(unit)
            border.discard(target)
            given.update(view.nodes[target].output)
        else:
            left[target] = reason
        ready.extend(edges.follow(target, border if reason is None else None))
    close()
    return Cut(view, tuple(pieces), tuple((units[target], reason) for target, reason in left.items()))


class _Edges:
    """Which unit waits for which, with a count of the edges that are still to come."""

    def __init__(self, view: View, units: dict[int, Unit]) -> None:
        self._waits = dict.fromkeys((unit.target for unit in units.values()), 0)
        self._next: dict[int, list[int]] = {target: [] for target in self._waits}
        for place in range(len(view.nodes)):
            for reader in view.edges_out(place):
                if units[reader] is not units[place]:
                    self._waits[units[reader].target] += 1
                    self._next[units[place].target].append(units[reader].target)

    def roots(self) -> list[int]:
        return sorted(target for target, count in self._waits.items() if not count)

    def follow(self, target: int, border: set[int] | None) -> list[int]:
        """What becomes ready when a unit is done; all that reads it joins the border of a piece."""
        free = []
        for reader in self._next[target]:
            if border is not None:
                border.add(reader)
            self._waits[reader] -= 1
            if not self._waits[reader]:
                free.append(reader)
        return free


def _without_scale(unit: Unit, view: View, given: set[str]) -> str | None:
    """Why an operator that runs on UINT8 without scales of its own gets none, None where it does or needs none."""
    node = view.nodes[unit.target]
    if unit.grouped or node.op_type not in _INHERITS or view.dtype(node.input[0]) != TensorProto.UINT8:
        return None
    names = node.input if node.op_type == "Concat" else node.input[:1]
    if all(name in given for name in names):
        return None
    return "runs on UINT8 and takes its scale from the node before it, which NNAPI does not run or which is a group"
