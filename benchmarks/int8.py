"""What INT8 costs in accuracy and gains in size, on each runtime."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

from benchmarks._context import Case, Context
from benchmarks._rows import Limit, Row

TITLE = "INT8 against FP32"
TARGET = "desktop-cpu"
RUNTIMES = ("executorch", "onnxruntime")
AGREEMENT, COSINE, SIZE = Limit(at_least=0.95), Limit(at_least=0.99), Limit(at_most=0.27)
METRIC, COUNT = "top1_agreement_with_fp32", "photos"
_Z95 = 1.959964


def run(context: Context) -> Iterator[Row]:
    """Agreement or distance, and size, of every model on every runtime."""
    for case in context.models:
        for runtime in RUNTIMES:
            yield from compare(context, case, runtime)


def compare(context: Context, case: Case, runtime: str) -> Iterator[Row]:
    """One model on one runtime: INT8 as it runs there against FP32 in PyTorch, and program against program."""
    import edge_sdk
    from edge_sdk.schema.request import Timing

    label = f"{case.title}, {runtime}"
    built = {"runtime": runtime, "settings": case.settings}
    context.say(f"{label}: compiling as fp32")
    exact = edge_sdk.compile(case.model, TARGET, quantize="fp32", **built)
    context.say(f"{label}: deploying as int8-static")
    briefly = Timing(warmup_max_s=0.1, min_runs=1, min_time_s=0.0, max_time_s=0.1)  # latency is not looked at here
    report = edge_sdk.deploy(case.model, TARGET, quantize="int8-static", timing=briefly, **built)
    if report.accuracy is None:
        figures = report.numerics
        yield Row(f"{label}: cosine to FP32", figures.cosine, "ratio", figures.reference, limit=COSINE)
    else:
        yield _agreement(label, report.accuracy[METRIC], int(report.accuracy[COUNT]))
    small, large = report.bundle.size_bytes, exact.manifest.size_bytes
    how = f"{small / 1e6:.2f} MB and {large / 1e6:.2f} MB, program files only"
    yield Row(f"{label}: program, INT8 / FP32", small / large, "ratio", how, limit=SIZE)


def _agreement(label: str, value: float, sure: int) -> Row:
    how = f"{sure} packaged photos that FP32 labels with confidence 0.2 or more; Wilson's interval"
    return Row(f"{label}: top-1 agreement with FP32", value, "ratio", how, wilson(value, sure), AGREEMENT)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of ``count`` cases.

    Source: E. B. Wilson, JASA 22, 1927.
    """
    square = _Z95**2 / count
    middle = (share + square / 2) / (1 + square)
    half = _Z95 / (1 + square) * sqrt(share * (1 - share) / count + square / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)
