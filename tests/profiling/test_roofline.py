"""The bound by the target's peaks, and the reason where there is none."""

from __future__ import annotations

import pytest

from edge_sdk import load_target
from edge_sdk.profiling.roofline import bound, roofline
from edge_sdk.schema.manifest import Cost
from edge_sdk.schema.report import Unavailable
from edge_sdk.schema.target import ComputeUnit, Figure, Memory

NONE = {"value": None, "source": "not stated by the maker"}


def figure(value: float) -> Figure:
    return Figure(value=value, source="made up for a test")


@pytest.fixture
def target():
    memory = Memory(total_mib=figure(1024), bandwidth_gb_s=figure(10))
    return load_target("desktop-cpu").model_copy(update={"memory": memory})


def unit(**peaks: float | None) -> ComputeUnit:
    gops = {name: figure(value) if value is not None else Figure(**NONE) for name, value in peaks.items()}
    return ComputeUnit(
        name="cpu",
        kind="cpu",
        description="a test's",
        cores=figure(4),
        clock_mhz=figure(1000),
        peak_gops=gops,  # type: ignore[arg-type]
    )


def test_bound_by_computing(target):
    cost = Cost(macs=10**9, weight_bytes=10**6, activation_bytes=10**6)
    assert bound(cost, target, unit(int8=100), "int8") == pytest.approx(20)


def test_bound_by_memory(target):
    cost = Cost(macs=10**6, weight_bytes=60 * 10**6, activation_bytes=40 * 10**6)
    bound_ms = bound(cost, target, unit(int8=100), "int8")
    assert bound_ms == pytest.approx(10)
    found = roofline(cost, bound_ms, p50_ms=40)
    assert (found.macs, found.bytes, found.fraction) == (10**6, 10**8, pytest.approx(0.25))


@pytest.mark.parametrize(
    ("units", "precision", "reason"),
    [
        ({"fp32": 10}, "int8", "target 'desktop-cpu' gives no int8 peak for its unit 'cpu'"),
        ({"int8": None}, "int8", "target 'desktop-cpu', int8 peak of 'cpu': not stated by the maker"),
    ],
)
def test_no_peak_no_bound(units, precision, reason, target):
    cost = Cost(macs=1, weight_bytes=1, activation_bytes=1)
    found = roofline(cost, bound(cost, target, unit(**units), precision), p50_ms=1)
    assert found.bound_ms == found.fraction == Unavailable(unavailable=reason)


def test_no_bandwidth_no_bound():
    cost = Cost(macs=1, weight_bytes=1, activation_bytes=1)
    found = bound(cost, load_target("desktop-cpu"), unit(int8=1), "int8")
    assert isinstance(found, Unavailable) and "'desktop-cpu', memory bandwidth: Not stated" in found.unavailable
