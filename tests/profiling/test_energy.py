"""Energy: right within 1 %, an interval that covers the truth as often as it says, and refusals that refuse."""

from __future__ import annotations

import numpy as np
import pytest

from edge_sdk.profiling.energy import energy
from edge_sdk.schema.messages import Power, PowerFacts
from edge_sdk.schema.report import Unavailable

FACTS = PowerFacts(sensor="ina3221", rails=["VDD_IN"], rate_hz=20)
LATENCY_MS = 10.0


def power(phase: str, times_s, values, unit: str = "mW") -> Power:
    return Power(type="power", phase=phase, unit=unit, t_ns=[round(t * 1e9) for t in times_s], value=list(values))


def iterations(span_s: float) -> tuple[list[float], list[float]]:
    """Inferences back to back, from 0 on."""
    count = round(span_s * 1e3 / LATENCY_MS)
    return [LATENCY_MS * place for place in range(count)], [LATENCY_MS] * count


def noise(dice: np.random.Generator, count: int, rho: float) -> np.ndarray:
    """An autoregression of unit variance; white for rho 0."""
    drawn = dice.standard_normal(count)
    for place in range(1, count):
        drawn[place] = rho * drawn[place - 1] + np.sqrt(1 - rho**2) * drawn[place]
    return drawn


def found_of(idle, timed, span_s=10.0, **options):
    start, samples = iterations(span_s)
    settings = {"charging": False, "battery_mwh": None, **options}
    return energy([idle, timed], settings.pop("facts", FACTS), start, samples, **settings)


IDLE_T = np.arange(-6.0, -1.0, 0.05)
TIMED_T = np.arange(-0.1, 10.2, 0.05)
IDLE = power("idle", IDLE_T, np.full(100, 2000.0) + np.arange(100) % 2)
TIMED = power("timed", TIMED_T, np.full(len(TIMED_T), 5000.0) + np.arange(len(TIMED_T)) % 2)


def test_a_steady_trace_gives_its_joules() -> None:
    found = found_of(IDLE, TIMED)
    assert found.per_inference == pytest.approx(3000 * 0.010, rel=1e-3)  # 3 W for 10 ms: 30 mJ
    assert (found.idle_mw, found.mean_mw) == (pytest.approx(2000.5), pytest.approx(5000.5, rel=1e-3))
    assert found.method.startswith("ina3221 (VDD_IN) at 20 Hz: trapezoid over the timed part less the mean of 100 idle")


def test_a_ramp_is_integrated_over_exactly_the_window() -> None:
    timed = power("timed", TIMED_T, 3000 + 200 * TIMED_T)
    found = found_of(IDLE, timed)
    assert found.per_inference * 1000 == pytest.approx(3000 * 10 + 200 * 10**2 / 2 - 2000.5 * 10, rel=1e-6)


def test_a_counter_gives_its_joules() -> None:
    idle = power("idle", IDLE_T, (IDLE_T + 6) * 2.0e6, "uJ")
    timed = power("timed", TIMED_T, 50e6 + TIMED_T * 5.0e6, "uJ")
    found = found_of(idle, timed)
    assert found.per_inference == pytest.approx(30, rel=1e-6)
    assert found.idle_mw == pytest.approx(2000)


def test_a_battery_gives_inferences_for_a_percent() -> None:
    found = found_of(IDLE, TIMED, battery_mwh=18_000.0)
    percent_mj = 18_000 * 3600 / 100
    assert found.inferences_per_battery_percent == pytest.approx(percent_mj / (5000.5 * 0.010), rel=1e-3)


def recorded() -> tuple[Power, Power, float]:
    """A trace in the form of a recording: a module's input rail at 20 Hz whose load pulses, quantised to 8 mW."""
    dice = np.random.default_rng(3)
    quantised = lambda values: np.round(values / 8) * 8  # noqa: E731
    idle = quantised(4312 + 40 * noise(dice, len(IDLE_T), 0.5))
    pulse = 9120 + 900 * np.sign(np.sin(2 * np.pi * TIMED_T / 1.7))
    truth = (9120 + 900 * np.sign(np.sin(2 * np.pi * np.linspace(0, 10, 100_001) / 1.7))).mean() - 4312
    return (
        power("idle", IDLE_T, idle),
        power("timed", TIMED_T, quantised(pulse + 60 * noise(dice, len(TIMED_T), 0.5))),
        truth,
    )


def test_a_pulsing_trace_is_right_within_a_percent() -> None:
    idle, timed, truth_mw = recorded()
    assert found_of(idle, timed).per_inference == pytest.approx(truth_mw * 0.010, rel=0.01)


@pytest.mark.parametrize("rho", [0.0, 0.6])
@pytest.mark.parametrize("unit", ["mW", "uJ"])
def test_over_1000_runs_the_interval_covers_the_truth_as_often_as_it_says(rho: float, unit: str) -> None:
    """White and autoregressive noise of 8 % of the load; the estimate's mean is right within 1 %."""
    dice = np.random.default_rng(20261125)
    truth = 3000 * 0.010
    covered, estimates = 0, []
    for _ in range(1000):
        idle_mw = 2000 + 160 * noise(dice, len(IDLE_T), rho)
        timed_mw = 5000 + 400 * noise(dice, len(TIMED_T), rho)
        if unit == "uJ":
            idle_mw, timed_mw = (1e6 + np.concatenate([[0], np.cumsum(mw[:-1])]) * 50 for mw in (idle_mw, timed_mw))
        found = found_of(power("idle", IDLE_T, idle_mw, unit), power("timed", TIMED_T, timed_mw, unit))
        covered += found.ci95[0] <= truth <= found.ci95[1]
        estimates.append(found.per_inference)
    assert 930 <= covered <= 970
    assert np.mean(estimates) == pytest.approx(truth, rel=0.01)
    assert np.std(estimates) / truth < 0.05


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"facts": Unavailable(unavailable="rapl: no /sys/class/powercap")}, "rapl: no /sys/class/powercap"),
        (
            {"facts": FACTS.model_copy(update={"sensor": "battery"}), "charging": True},
            "the battery was being charged",
        ),
    ],
)
def test_what_the_device_says_is_a_reason(options, reason: str) -> None:
    assert reason in found_of(IDLE, TIMED, **options).unavailable


def test_a_charger_does_not_matter_to_a_sensor_of_the_board() -> None:
    assert found_of(IDLE, TIMED, charging=True).per_inference > 0


@pytest.mark.parametrize(
    ("idle", "timed", "reason"),
    [
        (power("timed", [0], [1]), TIMED, "idle power was not sampled"),
        (IDLE, power("idle", [0], [1]), "only 0 power readings lie in the 10 s that were timed"),
        (IDLE, power("timed", [0, 5, 10], [5000, 5001, 5000]), "only 3 power readings lie in the 10 s that were timed"),
        (IDLE, power("timed", [1], [1]), "power readings lie in the 10 s that were timed"),
        (IDLE, power("timed", TIMED_T, np.full(len(TIMED_T), 5000.0)), "the power reading of ina3221 did not move"),
        (IDLE, power("timed", TIMED_T[:100], 5000 + np.arange(100)), "that were timed without any"),
        (TIMED.model_copy(update={"phase": "idle"}), IDLE.model_copy(update={"phase": "timed"}), "readings"),
        (power("idle", IDLE_T, 6000 + np.arange(100) % 2), TIMED, "is not above the idle power of 6001 mW"),
        (IDLE, power("timed", [*TIMED_T, 0.0], [*np.arange(len(TIMED_T)), 5.0]), "are not in the order of time"),
        (
            power("idle", IDLE_T, np.arange(100), "uJ"),
            power("timed", TIMED_T, -np.arange(len(TIMED_T)) + 1e6, "uJ"),
            "the counter of energy went back",
        ),
    ],
)
def test_readings_that_cannot_be_used_are_refused(idle: Power, timed: Power, reason: str) -> None:
    found = found_of(idle, timed)
    assert isinstance(found, Unavailable)
    assert reason in found.unavailable


def test_a_stretch_without_readings_is_refused() -> None:
    kept = np.abs(TIMED_T - 5) > 1
    found = found_of(IDLE, power("timed", TIMED_T[kept], 5000 + np.arange(kept.sum())))
    assert found.unavailable.startswith("the power readings leave 2.05 of the 10 s that were timed without any")


def test_a_gauge_that_is_renewed_too_slowly_is_refused() -> None:
    found = found_of(IDLE, power("timed", TIMED_T, 5000 + np.floor(TIMED_T / 4)))
    assert "gave only 4 different readings in 10.2 s, and 6 are needed" in found.unavailable


@pytest.mark.parametrize("renewed_s", [0.001, 0.1, 0.19])
def test_a_counter_may_be_renewed_in_its_own_time_and_read_in_a_hurry(renewed_s: float) -> None:
    """A runner reads once more at the edges of a phase: there, two readings lie next to each other."""

    def counter(times_s, watts):
        hurried = np.sort(np.concatenate([times_s, times_s[:1] + 1e-4, times_s[-1:] + 2e-3]))
        return hurried, np.floor((hurried + 10) / renewed_s) * renewed_s * watts * 1e6

    found = found_of(power("idle", *counter(IDLE_T, 2), "uJ"), power("timed", *counter(TIMED_T, 5), "uJ"))
    assert found.per_inference == pytest.approx(30, rel=0.015)
    assert found.idle_mw == pytest.approx(2000, rel=0.02) and found.ci95[0] <= 30 <= found.ci95[1]


def test_readings_of_one_moment_do_no_harm() -> None:
    same = power("timed", [1.0] * 40, np.arange(40), "uJ")
    assert isinstance(found_of(power("idle", [-2.0] * 40, np.arange(40), "uJ"), same), Unavailable)


def test_work_between_inferences_is_told() -> None:
    start = [20.0 * place for place in range(500)]
    found = energy([IDLE, TIMED], FACTS, start, [LATENCY_MS] * 500, charging=False, battery_mwh=None)
    assert found.method.endswith("; 50% of the timed part was inference, the rest is counted with it")
    assert found.per_inference == pytest.approx(3000 * 0.020, rel=0.01)


def test_no_request_and_what_was_assumed() -> None:
    assert found_of(IDLE, TIMED, facts=None).unavailable == "power was not sampled in this run"
    assumed = FACTS.model_copy(update={"assumed": "current_now is in mA"})
    assert found_of(IDLE, TIMED, facts=assumed).method.endswith("; current_now is in mA")
