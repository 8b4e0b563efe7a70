from __future__ import annotations

import copy
import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from edge_sdk.bundle import Bundle
from edge_sdk.reporting.listings import target_view, targets_view
from edge_sdk.reporting.tables import bundle_view, report_view
from edge_sdk.schema import load_target, target_names
from edge_sdk.schema.manifest import Manifest, Selection
from edge_sdk.schema.report import Report
from edge_sdk.support import support

HOSTILE = "[bold red]\x1b[2J\u202eowned[/]"

REPORT = {
    "created": "2026-11-23T06:47:53+00:00",
    "model": {"name": "photo_tagging", "variant": "resnet18"},
    "target": "desktop-cpu",
    "runtime": {
        "name": "executorch",
        "version": "1.4.1",
        "delegate": "xnnpack",
        "selection": {
            "by": "measurement",
            "reason": "the fastest of 2",
            "medians_ms": {"executorch": 2.123, "onnxruntime": 2.61},
        },
    },
    "quantization": {
        "method": "int8-static",
        "skipped": [{"layer": "forward.fc", "op": "aten.linear", "precision": "fp32", "reason": "accuracy budget"}],
    },
    "device": {"uri": "local", "model": HOSTILE, "soc": "AMD EPYC", "os": "Debian 12", "abi": "x86_64"},
    "bundle": {"path": "/out/photo_tagging.edge", "sha256": "0" * 64, "size_bytes": 11_300_000},
    "latency": {
        "p50": 2.1234,
        "p90": 2.3,
        "p99": 2.9,
        "mean": 2.15,
        "std": 0.1,
        "min": 2.0,
        "max": 3.1,
        "ci95": [2.1201, 2.1267],
        "samples": 1234,
        "warmup": 40,
        "first": 9.87,
        "load": 31.2,
    },
    "throughput_per_s": 465.1,
    "memory": {"peak": 123.4, "baseline": 100.1, "model": 23.3, "method": "VmHWM"},
    "energy": {"unavailable": "no power sensor"},
    "numerics": {"cosine": 0.998123, "max_abs_err": 0.123, "sqnr_db": 25.12, "reference": "FP32 eager"},
    "accuracy": {"top1_agreement": 0.9615, "photos": 85.0},
    "conditions": {"throttled": False, "threads": 2, "load_average": 0.51, "warnings": ["the machine is busy"]},
    "partition": {
        "delegated": 69,
        "pieces": 2,
        "fallback": [{"op": f"aten.op{n}", "count": 1, "reason": "no rule"} for n in range(15)],
        "rewrites": [{"name": "mean-to-pool", "count": 1, "max_abs_err": 1.2e-7}],
    },
    "roofline": {
        "macs": 1_820_000_000,
        "bytes": 12_000_000,
        "bound_ms": 0.8,
        "fraction": 0.377,
    },
    "predictions": [
        {
            "input": "coffee.png",
            "fp32": [
                {"label": "espresso", "score": 0.91},
                {"label": "cup", "score": 0.05},
                {"label": "pot", "score": 0.002},
            ],
            "device": [{"label": "espresso", "score": 0.89}],
        },
        {
            "input": HOSTILE,
            "fp32": [{"label": "baboon", "score": 0.5}],
            "device": [{"label": "macaque", "score": 0.4}],
        },
        {"input": "dark.png", "fp32": [], "device": []},
    ],
}


def _shown(view, *, terminal: bool = False) -> str:
    stream = io.StringIO()
    Console(file=stream, width=160, force_terminal=terminal, color_system="truecolor" if terminal else None).print(view)
    return stream.getvalue()


def _report(**changes) -> Report:
    return Report.model_validate({**copy.deepcopy(REPORT), **changes})


@pytest.mark.parametrize(
    "words",
    [
        "photo_tagging (resnet18) on desktop-cpu, int8-static",
        "executorch 1.4.1, xnnpack",
        "the fastest of 2 (executorch 2.12 ms, onnxruntime 2.61 ms)",
        "2.12 ms median, 95 % interval 2.120 to 2.127, of 1,234 samples after 40 of warm-up",
        "p90 2.30, p99 2.90, mean 2.15, deviation 0.100, 2.00 to 3.10",
        "first inference 9.87, load 31.2",
        "465 inferences/s",
        "123 MiB peak, 23.3 over the runner's own 100 (VmHWM)",
        "unavailable: no power sensor",
        "cosine 0.99812, largest error 0.123, SQNR 25.1 dB, against FP32 eager",
        "top1_agreement 0.9615, photos 85",
        "11.3 MB (11,300,000 bytes)",
        "69 of 84 operators in 2 pieces",
        "outside: aten.op0 x 1: no rule",
        "and 3 more, in the report's JSON",
        "mean-to-pool x 1, outputs moved by 1.2e-07 at most",
        "forward.fc (aten.linear) in fp32: accuracy budget",
        "1.82 GMAC, 12.0 MB moved; 0.800 ms at the target's peaks, reached to 38%",
        "threads 2, throttled no, load average 0.510",
        "not told by the device: processors, governor, temperature, charging",
        "the machine is busy",
        "\nBundle: /out/photo_tagging.edge\n",
    ],
)
def test_the_report_shows(words):
    assert words in _shown(report_view(_report()))


def test_tags_stand_side_by_side():
    lines = _shown(report_view(_report())).splitlines()
    assert re.split(r" {2,}", lines[0].strip()) == ["Input", "FP32", "On the device", "Same first tag"]
    assert lines[1].split() == ["coffee.png", "espresso", "0.91", "espresso", "0.89", "yes"]
    assert lines[2].split() == ["cup", "0.05"]
    assert lines[3].split()[-5:] == ["baboon", "0.50", "macaque", "0.40", "no"]


def test_what_comes_from_outside_cannot_drive_the_terminal():
    shown = _shown(report_view(_report()), terminal=True)
    assert "[bold red]\\x1b[2J\\u202eowned[/]" in shown
    assert "\x1b[2J" not in shown and "\u202e" not in shown


def test_what_could_not_be_had_is_shown_with_its_reason():
    shown = _shown(
        report_view(
            _report(
                memory={"unavailable": "no /proc"},
                energy={
                    "per_inference": 4.2,
                    "ci95": [4.0, 4.4],
                    "idle_mw": 900,
                    "mean_mw": 2100,
                    "samples": 40,
                    "method": "RAPL",
                    "inferences_per_battery_percent": 1234.0,
                },
                numerics={"cosine": 1.0, "max_abs_err": 0.0, "sqnr_db": None, "reference": "FP32 eager"},
                accuracy=None,
                roofline={
                    "macs": 1,
                    "bytes": 1,
                    "bound_ms": {"unavailable": "no peaks"},
                    "fraction": {"unavailable": "no bound"},
                },
                predictions=None,
            )
        )
    )
    assert "unavailable: no /proc" in shown
    assert "4.20 mJ an inference, 95 % interval 4.00 to 4.40, over 900 mW idle, 2,100 mW on the whole" in shown
    assert "40 readings (RAPL)" in shown
    assert "1,234 inferences for a percent of the battery" in shown
    assert "equal to the last bit" in shown
    assert "not measured: the model brings no evaluation data or no metric" in shown
    assert "bound unavailable: no peaks" in shown
    assert "On the device" not in shown


def test_a_bundle_shows_what_became_of_the_model():
    tensor = {"name": "image", "dtype": "float32", "shape": [1, 3, 8, 8]}
    manifest = Manifest.model_validate(
        {
            "name": "net-xnnpack-cpu-int8-static-executorch",
            "created": "2026-11-23T06:47:53+00:00",
            "sdk_version": "0.1.0",
            "key": "0" * 64,
            "target": "xnnpack-cpu",
            "model": {"name": HOSTILE},
            "runtime": {"name": "executorch", "version": "1.4.1", "delegate": "xnnpack"},
            "quantization": {"method": "int8-static", "skipped": REPORT["quantization"]["skipped"]},
            "parts": [
                {"name": "forward", "program": "a.pte", "entry": "forward", "inputs": [tensor], "outputs": [tensor]}
            ],
            "partition": {"delegate": "xnnpack", **REPORT["partition"]},
            "cost": {"macs": 385_000_000, "weight_bytes": 1, "activation_bytes": 1},
            "versions": {},
            "compile_s": {"capture": 1.5, "lower": 0.25},
            "files": {"a.pte": {"sha256": "0" * 64, "size_bytes": 4_950_000}},
        }
    )
    selection = Selection(by="only", reason="the target names no other")
    shown = _shown(bundle_view(Bundle(Path("/out/net.edge"), manifest, "0" * 64, selection)))
    for words in (
        "[bold red]\\x1b[2J\\u202eowned[/] for xnnpack-cpu, int8-static",
        "executorch 1.4.1, xnnpack",
        "no choice: the target names no other",
        "4.95 MB in 1 file",
        "385 MMAC an inference",
        "69 of 84 operators in 2 pieces",
        "forward.fc (aten.linear) in fp32: accuracy budget",
        "capture 1.50 s, lower 0.250 s",
        "/out/net.edge",
    ):
        assert words in shown


def test_targets_show_why_not_and_what_to_do():
    found = [(target, support(target)) for target in map(load_target, ("xnnpack-cpu", "galaxy-s24-npu"))]
    shown = _shown(targets_view(found, {"mine": "mine.yaml: soc: Field required"}))
    assert "'galaxy-s24-npu' is a device of its own" in " ".join(shown.split())
    assert "mine.yaml: soc: Field required" in " ".join(shown.split())


@pytest.mark.parametrize("name", target_names())
def test_a_target_shows_every_figure_with_its_source(name):
    target = load_target(name)
    shown = " ".join(_shown(target_view(target, support(target))).split())
    assert target.title in shown
    for unit in target.units:
        for peak in unit.peak_gops.values():
            assert " ".join(peak.source.split())[:40] in shown


def test_an_engine_shows_its_steps_and_the_layers_that_take_longest():
    layer = {"part": "forward", "kind": "gemm", "inputs": ["int8"], "outputs": ["fp16"], "nodes": []}
    latency = {"p50": 1.0, "p90": 1.1, "mean": 1.0, "min": 0.9, "max": 1.2, "samples": 9}
    steps = {"host_to_device": 0.1, "compute": 1.0, "device_to_host": 0.05, "enqueue": 0.2}
    changes = {
        "gpu": {"name": "Orin", "latency": latency, "memory": {"unavailable": "trtexec"}, "steps": steps},
        "engine": {
            "builder": "TensorRT 10.3.0",
            "build_s": 12.5,
            "size_bytes": 4_500_000,
            "layers": [
                {**layer, "name": "small", "ms": 0.25},
                {**layer, "name": HOSTILE, "ms": 0.75},
                {**layer, "name": "untimed", "inputs": ["fp16"], "ms": None},
            ],
            "fallback": [{"op": "REDUCE", "count": 2, "reason": "the GPU computes it"}],
        },
    }
    shown = " ".join(_shown(report_view(Report.model_validate({**REPORT, **changes}))).split())
    for words in (
        "0.100 ms to the GPU, 1.00 computing, 0.0500 back; 0.200 to enqueue",
        "TensorRT 10.3.0, 4.50 MB, built in 12.5 s",
        "3 layers: 2 from int8, 1 from fp16 0.750 ms, 75 %: [bold red]\\x1b[2J\\u202eowned[/] (gemm, int8 to fp16)",
        "0.250 ms, 25 %: small",
        "2 of REDUCE: the GPU computes it",
    ):
        assert words in shown
