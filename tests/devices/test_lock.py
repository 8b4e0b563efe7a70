"""The lock of a remote device: one measurement at a time, and none that outlives its holder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from time import monotonic, sleep

import pytest

from edge_sdk.devices._lease import LEASE_S
from edge_sdk.errors import DeviceError

HOLD = """
import sys, time
from edge_sdk.devices import open_device
with open_device(sys.argv[1]) as device, device.lock("the first"):
    print("held", flush=True)
    time.sleep(60)
"""


def holder_elsewhere(uri: str) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, uri], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def test_two_do_not_measure_at_once(far) -> None:
    with far.open() as one, far.open() as other, one.lock("the first"):
        assert other.held_by() == "the first"
        with pytest.raises(DeviceError) as caught, other.lock("the second"):
            pass
    assert str(caught.value) == (
        f"device '{far.uri}' is being measured by the first; two measurements at once would disturb each other. Wait "
        "until it ends; a lock whose holder went away is free 60 s later."
    )
    assert far.left_behind() == []


def test_it_is_free_again_afterwards(far) -> None:
    with far.open() as device:
        for owner in ("the first", "the second"):
            with device.lock(owner):
                assert device.held_by() == owner
            assert device.held_by() is None


def test_a_holder_that_was_killed_frees_it(far) -> None:
    process = holder_elsewhere(far.uri)
    with far.open(lock_wait_s=20.0) as device:
        assert device.held_by() == "the first"
        process.send_signal(signal.SIGKILL)
        process.wait()
        far.link.cut()  # what ssh's shared connection or adb's server would else keep for a minute
        with device.lock("the second"):
            assert device.held_by() == "the second"


def test_a_holder_that_fell_silent_loses_it_when_its_lease_ends(far) -> None:
    with far.open() as one, far.open() as other, one.lock("the first"):
        stamp = next(far.base.glob("locks/*/stamp"))
        stamp.write_text(str(int(stamp.read_text()) - LEASE_S - 1))
        assert other.held_by() is None
        with other.lock("the second"):
            assert other.held_by() == "the second"


def test_of_many_that_want_it_at_once_one_gets_it(board) -> None:
    held, most, lock = 0, 0, threading.Lock()
    got = []

    def want(number: int) -> None:
        nonlocal held, most
        with board.open(lock_wait_s=60.0) as device, device.lock(f"number {number}"):
            with lock:
                held += 1
                most = max(most, held)
            sleep(0.05)
            with lock:
                held -= 1
            got.append(number)

    threads = [threading.Thread(target=want, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, sorted(got)) == (1, list(range(6)))


def test_a_link_that_was_cut_takes_its_own_lock_again(far) -> None:
    with far.open() as device, device.lock("the first"):
        far.link.cut()
        deadline = monotonic() + 5
        while device.held_by() != "the first" or not any(far.base.glob("locks/2/stamp")):
            assert monotonic() < deadline
            sleep(0.05)
    assert far.left_behind() == []


def test_an_owner_with_shell_words_is_only_text(far) -> None:
    owner = "x'; touch /tmp/edge-sdk-was-here; echo '$(id)\x1b[31m"
    with far.open() as device, device.lock(owner):
        assert device.held_by() == "x'; touch /tmp/edge-sdk-was-here; echo '$(id)"
    assert not os.path.exists("/tmp/edge-sdk-was-here")


def test_it_takes_what_dead_sessions_left(far) -> None:
    dead = far.base / "runs/0123456789abcdef"
    with far.open():
        dead.mkdir(parents=True)
    (dead / "request.json").write_text("{}")
    sleeper = subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"], "EDGE_SDK_SESSION": dead.name})
    (dead / "pid").write_text(str(sleeper.pid))
    with far.open() as device, device.lock("the next"):
        assert not dead.exists()
    deadline = monotonic() + 5
    while sleeper.poll() is None and monotonic() < deadline:
        sleep(0.02)
    assert sleeper.poll() == -signal.SIGKILL
