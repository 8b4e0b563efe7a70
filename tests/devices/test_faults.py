"""Whatever happens to a device in the middle: a clear error or a whole result, and nothing left behind."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic, sleep

import numpy as np
import pytest
import tiny
from devices_remotes import BOARD, PHONE, QUICK, Remote, remotes

from edge_sdk.bundle import Bundle
from edge_sdk.devices._process import Limits
from edge_sdk.errors import DeviceError, LinkLostError, MissingDependencyError
from edge_sdk.profiling.measure import Measurement, measure
from edge_sdk.testing import KINDS

FAULTS = int(os.environ.get("EDGE_SDK_FAULTS", "6"))
"""In a row on each of five devices of a kind; each takes a second or two."""
HANGS_S = 300.0
"""What takes longer hangs: far more than all patience together, on a machine that runs other tests beside."""
RUNNER = r"cat > request\.json"
"""In the script that starts the runner, on a board and on a phone."""


def goes_well(far: Remote, bundle: Bundle) -> Measurement:
    with far.open() as device:
        found = measure(bundle, device, timing=QUICK)
    assert found.numerics.cosine > 0.9999
    assert found.run.result.latency.samples == len(found.samples_ms) > 0
    return found


def fails(far: Remote, bundle: Bundle, sustain_s: float | None = None, **options) -> str:
    """The message of a run that fails, after checking that it left nothing and that the next run goes well."""
    with pytest.raises(DeviceError) as caught, far.open(**options) as device:
        measure(bundle, device, timing=QUICK, sustain_s=sustain_s)
    assert caught.value.exit_code == 3
    assert str(caught.value).startswith(f"device '{far.uri}'")
    far.stand_in.clear_faults()
    assert far.left_behind() == []
    goes_well(far, bundle)
    assert far.left_behind() == []
    return str(caught.value)


@contextmanager
def shortly(action, after_s: float) -> Iterator[None]:
    """Does something a little later, while the block runs."""
    timer = threading.Timer(after_s, action)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_a_run_gives_what_a_local_run_gives(far, bundle: Bundle) -> None:
    found = goes_well(far, bundle)
    assert found.device.uri == far.uri
    assert found.run.hello.runtime == "onnxruntime"
    assert far.left_behind() == []


def test_a_second_run_sends_no_bundle(far, bundle: Bundle) -> None:
    big = np.random.default_rng(0).bytes(2 << 20)
    (bundle.path / "weights.bin").write_bytes(big)
    goes_well(far, bundle)
    far.link.cut_after(1 << 20)
    goes_well(far, bundle)
    far.link.cut_after(1 << 40)


def test_a_link_that_is_cut_in_the_middle_of_a_run_costs_a_repetition(far, bundle: Bundle) -> None:
    said: list[str] = []
    with far.open() as device:
        measure(bundle, device, timing=QUICK)
        with shortly(far.link.cut, 1.5):
            found = measure(bundle, device, timing=QUICK, sustain_s=4.0, progress=said.append)
    assert found.numerics.cosine > 0.9999
    assert f"the link to {far.uri} dropped; running again" in said
    assert far.left_behind() == []


def test_a_device_that_goes_offline_and_comes_back_costs_a_repetition(far, bundle: Bundle) -> None:
    with far.open(patience_s=30.0) as device:
        measure(bundle, device, timing=QUICK)
        with shortly(far.link.refuse, 1.5), shortly(far.link.accept, 4.0):
            found = measure(bundle, device, timing=QUICK, sustain_s=4.0)
    assert found.numerics.cosine > 0.9999
    assert far.left_behind() == []


def test_what_was_measured_is_kept_when_the_link_does_not_come_back(far, bundle: Bundle) -> None:
    with far.open(patience_s=1.0) as device:
        measure(bundle, device, timing=QUICK)
        with shortly(far.link.refuse, 4.0), pytest.raises(LinkLostError) as caught:
            measure(bundle, device, timing=QUICK, sustain_s=60.0)
    assert "it did not come back within 1 s" in str(caught.value)
    assert caught.value.samples and len(caught.value.samples["latency"]) >= 20
    assert caught.value.samples["complete"] is False
    far.link.accept()
    goes_well(far, bundle)
    assert far.left_behind() == []


def test_a_full_disk(far, bundle: Bundle) -> None:
    far.stand_in.fault("disk_full", on=r"tee -a objects/", bytes=10)
    assert "at step 'push': no space is left there" in fails(far, bundle)


def test_a_request_that_cannot_be_written(far, bundle: Bundle) -> None:
    far.stand_in.fault("disk_full", on=RUNNER, bytes=10)
    assert "failed at step 'start'" in fails(far, bundle)


def test_garbage_instead_of_an_answer(far, bundle: Bundle) -> None:
    far.stand_in.fault("garbage", on=RUNNER, bytes=1 << 16, times=3)
    assert "\x1b" not in fails(far, bundle)


@pytest.mark.parametrize("line", [80, 0])
def test_an_answer_without_end(far, bundle: Bundle, line: int) -> None:
    far.stand_in.fault("endless", on=RUNNER, line=line)
    begin = monotonic()
    fails(far, bundle, limits=Limits(line_bytes=1 << 16, total_bytes=1 << 20, silence_s=10))
    assert monotonic() - begin < 30


def test_a_runner_that_hangs(far, bundle: Bundle) -> None:
    far.stand_in.fault("hang", on=RUNNER)
    assert "it said nothing for 2 s, and was stopped" in fails(far, bundle, limits=Limits(silence_s=2.0))


def test_a_runner_that_is_killed(far, bundle: Bundle) -> None:
    far.stand_in.fault("kill", on=RUNNER, after_s=1.0, times=3)
    said = fails(far, bundle, sustain_s=20.0)
    assert "killed" in said or "exit code" in said or "the link dropped at step 'run'" in said or "crashed" in said


def test_a_command_that_fails_without_a_word(far, bundle: Bundle) -> None:
    far.stand_in.fault("exit", on=RUNNER, code=7, times=3)
    fails(far, bundle)


def test_an_interrupt_leaves_nothing(far, bundle: Bundle) -> None:
    class Interrupt(Exception):
        pass

    def interrupt(line: str) -> None:
        if line.startswith("measuring"):
            raise Interrupt

    with pytest.raises(Interrupt), far.open() as device:
        measure(bundle, device, timing=QUICK, sustain_s=20.0, progress=interrupt)
    assert far.left_behind() == []
    goes_well(far, bundle)


def test_a_runtime_that_is_not_there_names_the_cure(board, bundle: Bundle) -> None:
    (board.base / "envs/onnxruntime.python").write_text("/usr/bin/python3")
    with pytest.raises(MissingDependencyError, match=f"Prepare the device: edge-sdk device setup {board.uri}"):
        goes_well(board, bundle)
    assert board.left_behind() == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", [BOARD, PHONE])
def test_random_faults_in_a_row_lose_nothing_and_hang_never(kind: str, tmp_path, monkeypatch) -> None:
    """Several in a row on each of five devices of a kind; the next run is whole and nothing is left."""
    bundle = tiny.bundle(tmp_path, "onnxruntime", tiny.onnx_program())
    with remotes(kind, tmp_path, monkeypatch, 5) as fars, ThreadPoolExecutor(5) as pool:
        found = [outcome for row in pool.map(row_of_faults, fars, [bundle] * 5, range(5)) for outcome in row]
    assert len(found) == 5 * FAULTS
    assert {"well", "told"} == set(found)


def row_of_faults(far: Remote, bundle: Bundle, seed: int) -> list[str]:
    """Faults in a row on one device; whether each run went well or told what went wrong."""
    dice = random.Random(seed)
    quick = QUICK.model_copy(update={"warmup_max_s": 0.05, "min_runs": 5, "min_time_s": 0.02, "max_time_s": 0.05})
    limits = Limits(line_bytes=1 << 16, total_bytes=1 << 20, silence_s=3.0, overall_s=30.0)
    places = [r"cat >> objects/", RUNNER, r"sha256sum", r"mkdir locks/", r"exit 44", r"."]
    outcomes = []
    for number in range(FAULTS):
        if number % 5 == 0:  # now and then there is something to push
            shutil.rmtree(far.base / "objects", ignore_errors=True)
            shutil.rmtree(far.base / "trees", ignore_errors=True)
        shape = dice.choice(["fault", "fault", "cut", "cut_after"])
        if shape == "fault":
            what = dice.choice(sorted(KINDS))
            far.stand_in.fault(what, on=dice.choice(places), **({"after_s": dice.random()} if what == "kill" else {}))
        elif shape == "cut_after":
            far.link.cut_after(dice.randrange(1, 60_000))
        timer = threading.Timer(dice.random() * 1.5, far.link.cut if shape == "cut" else lambda: None)
        timer.start()
        begin = monotonic()
        try:
            with far.open(limits=limits, patience_s=4.0, silence_s=3.0) as device:
                found = measure(bundle, device, timing=quick)
            assert found.numerics.cosine > 0.9999
            outcomes.append("well")
        except (DeviceError, MissingDependencyError) as error:
            assert error.exit_code in (1, 3) and far.uri in str(error)
            outcomes.append("told")
        finally:
            timer.join()
            far.stand_in.clear_faults()
            far.link.cut_after(1 << 40)
        assert monotonic() - begin < HANGS_S, (number, shape)
    sleep(0.1)
    goes_well(far, bundle)
    assert far.left_behind() == []
    return outcomes
