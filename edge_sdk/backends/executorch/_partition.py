"""What the delegate took of a lowered program, what it left, and why."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
from executorch.exir.backend.utils import WhyNoPartition
from executorch.exir.delegate import executorch_call_delegate

from edge_sdk.schema.manifest import Fallback, Partition, Rewrite

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

_LOGGER = "executorch.backends.xnnpack.partition"
_TAKEN = {config.target_name for config in ALL_PARTITIONER_CONFIGS}


class Reasons(logging.Handler):
    """Collects why XNNPACK's partitioner refused a node, which it tells only to its debug log."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._by_node: dict[str, str] = {}
        self._by_op: dict[str, str] = {}

    def __enter__(self) -> Reasons:
        logger = logging.getLogger(_LOGGER)
        self._before = logger.level, logger.propagate
        logger.addHandler(self)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger(_LOGGER)
        logger.removeHandler(self)
        logger.level, logger.propagate = self._before

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a refusal; lets other records go."""
        if isinstance(record.msg, WhyNoPartition) and record.msg.node is not None:
            self._by_node[record.msg.node.name] = record.msg.reason
            self._by_op[_op(record.msg.node)] = record.msg.reason

    def of(self, node: Node) -> str:
        """Why the node stayed outside."""
        op = _op(node)
        if reason := self._by_node.get(node.name) or self._by_op.get(op):
            return reason
        if op not in _TAKEN:
            return "XNNPACK has no operator for it"
        return "XNNPACK takes it only beside operators that it computes"


def report(
    programs: Mapping[str, ExportedProgram],
    why: Callable[[Node], str],
    rewrites: list[Rewrite],
    delegate: str = "xnnpack",
) -> Partition:
    """The partition report of all parts together.

    Args:
        programs: Part name to lowered program.
        why: Why a node stayed outside.
        rewrites: The rewrites so far.
        delegate: The delegate's name.
    """
    delegated = pieces = 0
    left: Counter[tuple[str, str]] = Counter()
    for program in programs.values():
        for node in program.graph.nodes:
            if node.op != "call_function" or _is_glue(node):
                continue
            if node.target is executorch_call_delegate:
                pieces += 1
                inner = getattr(program.graph_module, node.args[0].target).original_module
                delegated += sum(_counts(inside) for inside in inner.graph.nodes)
            else:
                left[_op(node), why(node)] += 1
    fallback = [Fallback(op=op, count=count, reason=reason) for (op, reason), count in left.most_common()]
    return Partition(delegate=delegate, delegated=delegated, pieces=pieces, fallback=fallback, rewrites=rewrites)


def _op(node: Node) -> str:
    """``conv2d.default`` of an operator of any dialect."""
    name = getattr(node.target, "__name__", str(node.target))
    parts = name.split(".")
    return ".".join(parts[-2:])


def _is_glue(node: Node) -> bool:
    return getattr(node.target, "__name__", "") in ("getitem", "alloc", "sym_size")


def _counts(node: Node) -> bool:
    """Operators that compute: quantize and dequantize nodes only say what their neighbours do."""
    return node.op == "call_function" and not _is_glue(node) and "quantize" not in _op(node)
