"""The CUDA suite where there is no GPU: it says so, and what it would write is right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cuda
from benchmarks._context import Context
from benchmarks._rows import Limit, Row
from edge_sdk import _nvidia
from edge_sdk.errors import UnsupportedError

ROOT = Path(__file__).parents[2]
MACHINE = {"gpu": "Test GPU", "driver": "580.65.06", "cuda": "13.0", "torch": "2.13.0", "python": "3.12.3"}


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_nvidia, "problem", lambda: "needs an NVIDIA GPU with its driver, and there is none")


def test_without_a_gpu_there_are_no_figures_and_a_warning(no_gpu, tmp_path):
    warnings: list[str] = []
    assert list(cuda.run(Context(tmp_path, warn=warnings.append))) == []
    assert warnings == ["no figures: this suite needs an NVIDIA GPU with its driver, and there is none"]


def test_the_program_without_a_gpu_writes_nothing_and_fails(no_gpu, tmp_path, capsys):
    assert cuda.main([str(tmp_path / "out")]) == 1
    assert "no figures: this suite needs an NVIDIA GPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_it_is_run_on_request_only():
    done = subprocess.run([sys.executable, "-m", "benchmarks", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert "(default: all of these); with an NVIDIA GPU also cuda" in " ".join(done.stdout.split())


def test_the_peaks_are_those_of_the_card():
    known = cuda.card_profile("NVIDIA H100 80GB HBM3")
    assert known.unit("gpu").peak_gops["fp16"].value == 989_500 and known.memory.bandwidth_gb_s.value == 3350
    other = cuda.card_profile("NVIDIA H100 PCIe")
    assert other.unit("gpu").peak_gops["fp16"].value is None


def test_a_step_that_fails_or_comes_too_late_is_listed_with_the_reason(tmp_path, monkeypatch):
    warnings: list[str] = []
    suite = cuda.Suite(Context(tmp_path, warn=warnings.append))

    def refuses():
        yield Row("a figure", 1.0, "ms", "once")
        raise UnsupportedError("there is no Triton")

    assert [row.name for row in suite._step("INT8", refuses)] == ["a figure"]
    suite.minutes = -1.0
    assert list(suite._step("FP16", refuses)) == []
    assert suite.left_out["INT8"] == "UnsupportedError: there is no Triton"
    assert suite.left_out["FP16"].startswith("no time was left after ")
    assert len(warnings) == 2


def test_the_markdown_has_every_figure_and_what_gave_none():
    rows = [Row("a | b", 0.912, "ratio", "in turns", (0.9, 0.92), Limit(at_most=1.0)), Row("median", 1.5, "ms", "once")]
    text = cuda.fragment(MACHINE, "2026-11-26T08:00:00+00:00", rows, {"INT8": "no Triton"})
    assert text.startswith("Run on 2026-11-26 on Test GPU, driver 580.65.06, CUDA 13.0, PyTorch 2.13.0, Python 3.12.3")
    assert "| a / b | 0.912 | 0.9 to 0.92 | at most 1 | yes | in turns |" in text
    assert "| median | 1.5 ms |  |  |  | once |" in text
    assert text.endswith("No figure:\n- INT8: no Triton\n")


def test_a_batch_is_made_of_samples_that_follow_each_other():
    pytest.importorskip("torch")
    samples = [{"forward": {"x": np.full((1, 2), index, np.float32)}} for index in range(5)]
    stacked = cuda._stacked(samples, 2)
    assert [batch["forward"]["x"][:, 0].tolist() for batch in stacked] == [[0, 1], [2, 3]]
    (filled,) = cuda._stacked(samples, 8)
    assert filled["forward"]["x"][:, 0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
