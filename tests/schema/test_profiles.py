"""The profiles that come with the SDK: each one validates and names the source of each figure."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from edge_sdk.schema import load_target, target_names
from edge_sdk.schema.target import Figure

NAMES = [
    "desktop-cpu",
    "desktop-cuda",
    "desktop-rtx",
    "galaxy-s24-cpu",
    "galaxy-s24-npu",
    "jetson-agx-orin",
    "jetson-orin-nano",
    "raspberry-pi-5",
    "xnnpack-cpu",
]


def figures(value: object, path: str = "") -> Iterator[tuple[str, Figure]]:
    if isinstance(value, Figure):
        yield path, value
    elif isinstance(value, BaseModel):
        for key in type(value).model_fields:
            yield from figures(getattr(value, key), f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from figures(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from figures(item, f"{path}.{key}")


def test_the_nine_profiles_are_there(monkeypatch):
    monkeypatch.delenv("EDGE_SDK_TARGETS", raising=False)
    assert target_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_validates_and_every_figure_has_a_source(name):
    target = load_target(name)
    assert target.name == name
    found = list(figures(target))
    assert len(found) >= 6
    for path, figure in found:
        if figure.value is None:
            words = ("Not stated", "publishes no", "but no", "but publishes neither")
            assert any(word in figure.source for word in words), f"{path}: {figure.source}"
        else:
            assert figure.value > 0
            assert ":" in figure.source or figure.source.startswith("A choice of Edge SDK"), f"{path}: {figure.source}"


@pytest.mark.parametrize("name", NAMES)
def test_every_precision_that_a_runtime_allows_is_plausible_for_its_unit(name):
    target = load_target(name)
    for rule in target.runtimes:
        assert "fp32" in rule.precisions or "fp16" in rule.precisions
        assert target.unit(rule.unit).peak_gops


@pytest.mark.parametrize(
    ("name", "unit", "cores", "ghz", "ops"),
    [
        ("raspberry-pi-5", "cpu", 4, 2.4, {"fp32": 16, "fp16": 32, "int8": 64}),
        ("jetson-orin-nano", "cpu", 6, 1.7, {"fp32": 16, "fp16": 32, "int8": 64}),
        ("jetson-agx-orin", "cpu", 12, 2.2, {"fp32": 16, "fp16": 32, "int8": 64}),
    ],
)
def test_computed_peaks_are_cores_times_clock_times_operations_a_cycle(name, unit, cores, ghz, ops):
    found = load_target(name).unit(unit)
    assert (found.cores.value, found.clock_mhz.value) == (cores, ghz * 1000)
    for precision, per_cycle in ops.items():
        assert found.peak_gops[precision].value == pytest.approx(cores * ghz * per_cycle)
        assert f"{cores} cores x {ghz} GHz x {per_cycle}" in found.peak_gops[precision].source


def test_runtimes_stand_in_the_documented_order():
    order = {name: [(rule.name, rule.delegate) for rule in load_target(name).runtimes] for name in NAMES}
    assert order["desktop-cpu"] == [("onnxruntime", "cpu"), ("executorch", "xnnpack")]
    assert order["xnnpack-cpu"] == [("executorch", "xnnpack")]
    assert order["raspberry-pi-5"] == [("onnxruntime", "cpu"), ("executorch", "xnnpack")]
    assert order["galaxy-s24-npu"] == [("onnxruntime", "nnapi")]
    assert order["jetson-orin-nano"] == [("tensorrt", "gpu"), ("onnxruntime", "cpu")]
    assert order["jetson-agx-orin"] == [("tensorrt", "gpu"), ("tensorrt", "dla"), ("onnxruntime", "cpu")]
    assert order["desktop-cuda"] == [("aotinductor", "cuda"), ("aotinductor", "cpu")]


def test_the_npu_refuses_control_flow_and_dynamic_shapes():
    rule = load_target("galaxy-s24-npu").runtimes[0]
    assert rule.shapes == "static"
    assert rule.precisions == ["fp16", "int8"]
    assert {"If", "Loop"} <= set(rule.operators.deny)
    assert "control flow" in rule.operators.deny["If"]
