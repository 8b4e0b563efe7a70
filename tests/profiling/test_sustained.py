"""Sustained running: the last minute against the first, with an interval."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from edge_sdk.errors import DeviceError
from edge_sdk.profiling.sustained import sustained
from edge_sdk.reporting.plots import sustained_plot
from edge_sdk.schema.messages import Power, Window


def windows(medians_ms, **facts) -> list[Window]:
    return [
        Window(
            type="window",
            end_ns=5_000_000_000 + place * 1_000_000_000,
            runs=100,
            p50_ns=round(value * 1e6),
            p90_ns=round(value * 1.1e6),
            max_ns=round(value * 2e6),
            **{name: values[place] for name, values in facts.items()},
        )
        for place, value in enumerate(medians_ms)
    ]


def throttling(count: int = 600):
    dice = np.random.default_rng(1)
    places = np.arange(count)
    heat = 45 + 40 * (1 - np.exp(-places / 150))
    return 2.0 * np.where(heat > 75, 1.3, 1.0) * (1 + 0.01 * dice.standard_normal(count)), heat


def test_a_device_that_throttles_is_slower_in_the_last_minute() -> None:
    medians, heat = throttling()
    found = sustained(windows(medians, temperature_c=list(heat)), [])
    assert (found.time_s, found.edge_s) == (pytest.approx(600), 60)
    assert found.first == pytest.approx(2.0, rel=0.01) and found.last == pytest.approx(2.6, rel=0.01)
    assert found.last_over_first == pytest.approx(1.3, rel=0.01)
    assert found.ci95[0] < 1.3 < found.ci95[1] and found.ci95[1] - found.ci95[0] < 0.03


def test_a_steady_device_keeps_its_pace() -> None:
    dice = np.random.default_rng(2)
    covered = sum(
        (found := sustained(windows(3.0 * (1 + 0.02 * dice.standard_normal(180))), [])).ci95[0] <= 1 <= found.ci95[1]
        for _ in range(200)
    )
    assert covered >= 180


def test_a_short_run_compares_thirds() -> None:
    assert sustained(windows([1.0] * 30), []).edge_s == pytest.approx(10)


@pytest.mark.parametrize("count", range(6, 25))
def test_a_run_of_few_windows_has_a_wide_interval(count: int) -> None:
    dice = np.random.default_rng(count)
    found = sustained(windows(1 + 0.01 * dice.standard_normal(count)), [])
    assert found.ci95[0] < found.last_over_first < found.ci95[1]


def test_too_few_windows_say_nothing() -> None:
    assert sustained(windows([1.0] * 5), []) is None


@pytest.mark.parametrize(
    "broken",
    [
        [window.model_copy(update={"end_ns": 7}) for window in windows([1.0] * 8)],
        windows([1.0] * 8)[::-1],
        windows([1.0] * 7 + [0.0]),
    ],
)
def test_windows_that_cannot_be_true_are_refused(broken: list[Window]) -> None:
    with pytest.raises(DeviceError, match="are not in the order of time, or took no time"):
        sustained(broken, [])


@pytest.mark.parametrize("unit", ["mW", "uJ"])
def test_power_falls_into_its_windows(unit: str) -> None:
    times = [round((4.0 + place / 10) * 1e9) for place in range(101)]
    level = [3000.0 if t < 9e9 else 6000.0 for t in times]
    values = level if unit == "mW" else list(np.concatenate([[0], np.cumsum(level[:-1]) * 100]))
    message = Power(type="power", phase="sustain", unit=unit, t_ns=times, value=values)
    found = sustained(windows([1.0] * 10), [message])
    means = [window.power_mw for window in found.windows]
    assert means[0] == pytest.approx(3000, rel=0.02) and means[-1] == pytest.approx(6000, rel=0.02)


def test_the_picture_is_a_whole_svg_and_says_what_was_not_told(tmp_path: Path) -> None:
    medians, heat = throttling()
    found = sustained(windows(medians, temperature_c=list(heat), throttled=list(map(bool, heat > 75))), [])
    sustained_plot(found, tmp_path / "sustained.svg", "a <title> & more")
    root = ElementTree.parse(tmp_path / "sustained.svg").getroot()
    assert root.tag.endswith("svg")
    sustained_plot(found, tmp_path / "sustained.png", "a title")
    assert (tmp_path / "sustained.png").read_bytes().startswith(b"\x89PNG")
