"""Taking turns: the ratio's interval on simulated rounds, and two real runtimes."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from edge_sdk.devices.local import LocalDevice
from edge_sdk.errors import DeviceError
from edge_sdk.profiling.interleave import compare_rounds, interleave
from edge_sdk.schema.request import Timing


def test_ratios_of_simulated_rounds():
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        # What slows a round slows both bundles; each turn has a little noise of its own.
        round_factor = np.exp(generator.normal(0, 0.3, size=(1, 5, 1)))
        turn_factor = np.exp(generator.normal(0, 0.02, size=(2, 5, 1)))
        base = np.array([1.0, 1.5]).reshape(2, 1, 1)
        samples = base * round_factor * turn_factor * np.exp(generator.normal(0, 0.05, size=(2, 5, 30)))
        found = compare_rounds(samples.tolist())
        low, high = found.ratios[1].ci95
        assert low < found.ratios[1].value < high
        assert found.ratios[1].value == pytest.approx(1.5, rel=0.1)
        hits += low <= 1.5 <= high
    assert 0.9 <= hits / 200


def test_the_fastest():
    found = compare_rounds([[[2.0], [2.2]], [[1.0], [1.1]], [[3.0], [3.1]]])
    assert found.fastest == 1
    assert found.ratios[0].value == 1 and found.ratios[0].ci95 == (1, 1)
    assert found.medians_ms == pytest.approx((2.1, 1.05, 3.05))


def test_inferences_that_took_no_time():
    with pytest.raises(DeviceError, match="took no time"):
        compare_rounds([[[0.0], [0.0]], [[1.0], [1.0]]])


@pytest.mark.parametrize(("count", "rounds"), [(1, 5), (2, 1)])
def test_too_few(count, rounds, tmp_path):
    bundle = tiny.bundle(tmp_path, "onnxruntime", b"x")
    with pytest.raises(ValueError, match=f"needs two bundles and two rounds; found {count} and {rounds}"):
        interleave([bundle] * count, LocalDevice(), rounds=rounds)


def test_two_runtimes_take_turns(tmp_path):
    bundles = []
    for runtime, program in (("onnxruntime", tiny.onnx_program()), ("executorch", tiny.pte_program())):
        folder = tmp_path / runtime
        folder.mkdir()
        bundles.append(tiny.bundle(folder, runtime, program))
    lines: list[str] = []
    quick = Timing(warmup_max_s=0.1, min_runs=10, min_time_s=0.02, max_time_s=0.1)
    with LocalDevice() as device:
        found = interleave(bundles, device, rounds=2, timing=quick, threads=1, progress=lines.append)
    assert [line.split(": ")[1].split(",")[0] for line in lines] == [
        "onnxruntime",
        "executorch",
        "executorch",
        "onnxruntime",
    ]
    assert [len(rounds) for rounds in found.rounds_ms] == [2, 2]
    assert all(len(samples) >= 10 for rounds in found.rounds_ms for samples in rounds)
    assert all(median > 0 for median in found.medians_ms)
    low, high = found.ratios[1].ci95
    assert low <= found.ratios[1].value <= high
