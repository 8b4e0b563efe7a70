"""What of a package is AOTInductor's own and what it calls PyTorch for."""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from edge_sdk.quantization.base import STATIC_INT8
from edge_sdk.schema.manifest import Fallback, Partition, Rewrite

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

    from edge_sdk.pipeline.values import Graph


_CALL = re.compile(r"aoti_torch_(?:cpu|cuda)_+(\w+)\(")
_LIBRARY = re.compile("conv|mm|linear|attention|lstm|gru")
"""Operators that come from cuDNN, cuBLAS or oneDNN, which no compiler's kernel would do better."""


def report(
    programs: Mapping[str, ExportedProgram],
    packages: Mapping[str, bytes],
    delegate: str,
    kept: list[Fallback],
    rewrites: list[Rewrite],
    warnings: Iterable[str] = (),
) -> Partition:
    """The partition report of all parts together.

    A package is one piece that computes all operators on its device: in kernels of AOTInductor's own, or by
    calls of cuDNN, cuBLAS or oneDNN (convolutions, matrix products, attention). What falls back is an operator
    for which the package calls PyTorch's own kernel.

    Args:
        programs: Part name to exported program.
        packages: Part name to package.
        delegate: The delegate's name.
        kept: Layers that are not computed in the precision that was asked for.
        rewrites: The rewrites so far.
        warnings: To be passed on.
    """
    operators = sum(
        node.op == "call_function" and "quantize" not in str(node.target) and "getitem" not in str(node.target)
        for program in programs.values()
        for node in program.graph.nodes
    )
    left = Counter[str]()
    for package in packages.values():
        left.update(_foreign(package))
    reason = "AOTInductor has no kernel for it; PyTorch's own runs on the same device"
    fallback = [*kept, *(Fallback(op=op, count=count, reason=reason) for op, count in left.most_common())]
    return Partition(
        delegate=delegate,
        delegated=max(0, operators - sum(one.count for one in fallback)),
        pieces=len(packages),
        fallback=fallback,
        rewrites=rewrites,
        warnings=list(warnings),
    )


def in_float(graph: Graph, method: str, package: bytes) -> list[Fallback]:
    """The layers of a quantized part that its package computes in FP32 on the processor.

    Args:
        graph: The part, quantized.
        method: The quantizer's name.
        package: Its package.
    """
    if graph.keeps_float:
        return []
    assert graph.torch is not None
    if method == "int4-weight":
        count = sum("own_linear" in str(node.target) for node in graph.torch.graph.nodes if node.op == "call_module")
        reason = "computed in FP32 from weights rounded to INT4, each of which takes a byte"
        return [Fallback(op="linear.default", count=count, reason=reason)] if count else []
    if method not in STATIC_INT8:
        return []
    from edge_sdk.quantization._annotate import layers, why_not

    wrapper = _wrapper(package)
    found = []
    for kind, call in (("conv", "qconv"), ("linear", "qlinear")):
        wanted = Counter(_name(node) for node in layers(graph.torch) if kind in _name(node) and why_not(node) is None)
        in_integers = len(re.findall(rf"aoti_torch_cpu_+{call}\w*\(", wrapper))
        for op, count in wanted.most_common():
            missing, in_integers = max(0, count - in_integers), max(0, in_integers - count)
            reason = "computed in FP32: oneDNN did not fuse it with the quantizers around it"
            found += [Fallback(op=op, count=missing, reason=reason)] if missing else []
    return found


def _name(node: Node) -> str:
    return ".".join(str(node.target).split(".")[-2:])


def _wrapper(package: bytes) -> str:
    """The source of a package's calls, which travels in it."""
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        names = [name for name in archive.namelist() if name.endswith(".wrapper.cpp")]
        return "".join(archive.read(name).decode("utf-8", "replace") for name in names)


def _foreign(package: bytes) -> list[str]:
    """The operators for which a package calls PyTorch's own kernels, without those that come from a library."""
    wrapper = _wrapper(package)
    called = [name.removesuffix("_out") for name in _CALL.findall(wrapper)]
    # Those without an entry of their own are called through the dispatcher, by the name in a comment or a string.
    through = re.findall(r"aoti_torch_proxy_executor_call_function\(", wrapper)
    named = [name for name in called if not _LIBRARY.search(name)]
    return named + ["an operator called through the dispatcher"] * len(through)
