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
    from edge_sdk.devices import open_device
    from edge_sdk.models import load_model
    from edge_sdk.pipeline.data import fp32_forward
    from edge_sdk.profiling.measure import measure

    label = f"{case.title}, {runtime}"
    built = {}
    for method in ("fp32", "int8-static"):
        context.say(f"{label}: compiling as {method}")
        built[method] = edge_sdk.compile(case.model, TARGET, runtime=runtime, quantize=method, settings=case.settings)
    model = load_model(case.model, case.settings)
    photos = model.samples("evaluation")
    context.say(f"{label}: running")
    with open_device("local") as device:
        found = measure(built["int8-static"], device, edge_sdk.load_target(TARGET), inputs=photos, timed=False)
    forward = fp32_forward(model)
    scores = model.score(found.outputs, [forward(photo) for photo in photos]) if photos else None
    if scores is None:
        yield Row(f"{label}: cosine to FP32", found.numerics.cosine, "ratio", found.numerics.reference, limit=COSINE)
    else:
        yield _agreement(label, scores[METRIC], int(scores[COUNT]), len(photos))
    small, large = (built[method].manifest.size_bytes for method in ("int8-static", "fp32"))
    how = f"{small / 1e6:.2f} MB and {large / 1e6:.2f} MB, program files only"
    yield Row(f"{label}: program, INT8 / FP32", small / large, "ratio", how, limit=SIZE)


def _agreement(label: str, value: float, sure: int, photos: int) -> Row:
    how = f"{sure} of {photos} packaged photos, which FP32 labels with confidence 0.2 or more; Wilson's interval"
    return Row(f"{label}: top-1 agreement with FP32", value, "ratio", how, wilson(value, sure), AGREEMENT)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of ``count`` cases.

    Source: E. B. Wilson, JASA 22, 1927.
    """
    square = _Z95**2 / count
    middle = (share + square / 2) / (1 + square)
    half = _Z95 / (1 + square) * sqrt(share * (1 - share) / count + square / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)
