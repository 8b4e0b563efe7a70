"""Each suite on a tiny model: that its figures come out and what they are called, never how large they are."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import compile as compile_suite
from benchmarks import int8, latency, monitor, overhead, pruning, startup
from benchmarks.__main__ import Found
from benchmarks.__main__ import _exit_code as exit_code
from benchmarks.__main__ import _run as run_suites
from benchmarks._context import Case
from benchmarks._rows import Limit, Row

ROOT = Path(__file__).parents[2]


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_the_program(tmp_path):
    path = tmp_path / "found.json"
    done = _run("startup", "--quick", "--json", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Start-up\n") and "edge-sdk --help" in done.stdout
    assert "too short for the figures to mean anything" in done.stdout
    found = json.loads(path.read_text())
    assert found["quick"] is True and found["failures"] == {} and list(found["suites"]) == ["startup"]
    assert set(found["machine"]) == {"cpu", "cores", "os", "python", "load_average", "packages"}
    assert len(found["suites"]["startup"]) == 5
    assert all(row["value"] > 0 for row in found["suites"]["startup"][:3])


def test_an_unknown_suite():
    done = _run("startups")
    assert done.returncode == 2
    assert "unknown suite 'startups'. Did you mean 'startup'?" in done.stderr


def test_a_suite_that_breaks_off_leaves_the_others_to_run(context):
    found, out = Found(), io.StringIO()
    missing = replace(context, models=(Case("Missing", "missing.py:build"),))
    run_suites(("int8", "startup"), missing, found, out)
    assert list(found.failures) == ["int8"] and "missing.py" in found.failures["int8"]
    assert found.rows["int8"] == [] and len(found.rows["startup"]) == 5
    assert exit_code(found, quick=True) == 1


def test_exit_codes():
    missed = Found(rows={"suite": [Row("slow", 2.0, "s", "once", limit=Limit(at_most=1.0))]})
    assert (exit_code(missed, quick=False), exit_code(missed, quick=True)) == (4, 0)
    assert exit_code(Found(rows={"suite": [Row("explains", 2.0, "s", "once")]}), quick=False) == 0


def test_startup_judges_whole_processes(context):
    rows = list(startup.run(context))
    judged = {row.name: row.limit.at_most for row in rows if row.limit}
    assert judged == {"import edge_sdk": 0.1, "edge-sdk --help": 0.25}


@pytest.mark.slow
def test_compile(context, case):
    same, tools = compile_suite.cold(context, case, "onnxruntime")
    assert same.name == "cold, onnxruntime: edge_sdk.compile / the same calls by hand"
    assert tools.name == "cold, onnxruntime: edge_sdk.compile / ONNX Runtime's tools by hand"
    for row in (same, tools):
        assert row.value > 0 and row.ci95[0] < row.value < row.ci95[1]
    assert same.limit.at_most == 1.15 and tools.limit is None
    again, torch, first = compile_suite.warm(context, case, "onnxruntime")
    assert 0 < again.value < first.value and torch.limit.at_most == 0 and again.limit.at_most == 0.5


def test_overhead(context):
    row = overhead.compare(context, "onnxruntime", 0.1, rounds=2, turn_s=0.01)
    assert row.value > 0 and row.ci95 and row.limit.at_least == 0.99 and row.limit.at_most == 1.01
    call = overhead.cost_of_a_call()
    assert call.value > 0 and call.unit == "µs" and call.limit.at_most == 3


@pytest.mark.slow
def test_monitor(context):
    device, host, latency = monitor.run(context)
    assert (device.name, host.name) == ("processor time on the device", "processor time on the host")
    assert 0 <= device.value < 100 and 0 <= host.value < 100 and latency.value > 0


@pytest.mark.parametrize(("scored", "figure"), [("true", "top-1 agreement with FP32"), ("false", "cosine to FP32")])
def test_int8(context, case, scored, figure):
    judged = replace(case, settings={"scored": scored})
    right, size = int8.compare(context, judged, "onnxruntime")
    assert right.name == f"Tiny, onnxruntime: {figure}" and 0 <= right.value <= 1
    assert size.name == "Tiny, onnxruntime: program, INT8 / FP32" and size.value > 0
    assert (right.ci95 is not None) == (scored == "true")


@pytest.mark.slow
def test_pruning(context):
    pytest.importorskip("torch_pruning", reason="torch-pruning is not installed: pip install 'edge-sdk[train]'")
    parameters, size, latency = pruning.run(context)
    assert parameters.name == "Tiny, fp32, onnxruntime: parameters, pruned / whole"
    assert parameters.value <= parameters.limit.at_most == 0.7
    assert size.value < 1 and size.limit.at_most == 0.7
    assert latency.ci95[0] < latency.value < latency.ci95[1] and latency.limit.at_most == 0.85


@pytest.mark.slow
def test_latency(context, case):
    ratio, *medians = latency.compare(context, case, runtime="onnxruntime")
    assert ratio.limit.by_interval and ratio.ci95[0] < ratio.value < ratio.ci95[1]
    assert [row.name.partition(" (")[0] for row in medians] == [
        "Tiny: plain executorch",
        "Tiny: plain onnxruntime",
        "Tiny: Edge SDK",
    ]
    for row in medians:
        assert float(row.conditions.rpartition(" ")[2]) > 0.9  # a cosine: the programs by hand compute the same thing


def test_warnings_of_many_turns():
    found = latency.summarised(["executorch: others took 49 %", "executorch: 3 runs", "executorch: others took 51.5 %"])
    assert found == ["executorch: others took 49 % (and 1 like it)", "executorch: 3 runs"]
