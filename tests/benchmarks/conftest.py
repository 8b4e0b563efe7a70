"""The suites' own modules, and a model that is small enough for them to run in seconds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # benchmarks/ lies in the checkout and in no package

from benchmarks._context import Case, Context  # noqa: E402

MODEL = f"{Path(__file__).with_name('tiny_classifier.py')}:build"


@pytest.fixture
def case() -> Case:
    for package in ("executorch", "onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'edge-sdk[demo]'")
    return Case("Tiny", MODEL)


@pytest.fixture
def context(tmp_path: Path, case: Case) -> Context:
    return Context(tmp_path, quick=True, models=(case,))
