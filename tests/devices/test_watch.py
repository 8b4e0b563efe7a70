"""Watching devices: this machine, one behind the genuine sshd, one behind the genuine adb, and lines that do harm."""

from __future__ import annotations

import itertools
from contextlib import closing

import pytest

from edge_sdk.devices import open_device
from edge_sdk.devices._process import Limits
from edge_sdk.devices.local import LocalDevice
from edge_sdk.errors import DeviceError


def test_a_device_behind_a_link_tells_readings(far) -> None:
    with open_device(far.uri) as device:
        readings = list(device.watch(0.1, 3))
    assert len(readings) == 3
    assert [one.t_s for one in readings] == sorted(one.t_s for one in readings)
    for one in readings:
        assert one.memory is not None and 0 < one.memory.available_mib <= one.memory.total_mib
        assert one.cpu_percent and all(0 <= share <= 100 for share in one.cpu_percent)
        assert one.power_w is not None or one.unavailable["power"]


def test_a_phone_tells_its_battery_and_its_sensors(phone) -> None:
    with open_device(phone.uri) as device:
        (reading,) = device.watch(0.1, 1)
    assert reading.battery is not None and reading.battery.percent is not None
    assert reading.temperatures_c and reading.throttled is False


def test_no_lock_is_needed_and_leaving_ends_it(far) -> None:
    with open_device(far.uri) as device, device.lock("another measurement"):
        with closing(device.watch(0.05)) as readings:
            assert len(list(itertools.islice(readings, 2))) == 2
    assert far.left_behind() == []


def test_a_link_that_drops_leaves_a_gap_and_no_error(far) -> None:
    with open_device(far.uri) as device, closing(device.watch(0.1, 4)) as readings:
        next(readings)
        far.link.cut()
        assert len(list(readings)) == 3


def test_a_link_that_drops_after_the_last_reading_asks_for_no_more(far) -> None:
    with open_device(far.uri) as device, closing(device.watch(0.1, 2)) as readings:
        assert len(list(itertools.islice(readings, 2))) == 2
        far.link.cut()
        assert list(readings) == []


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ('print(\'{"type":"reading","t_s":-1}\')', "a line that is no reading: .*t_s"),
        ("print('\\x1b[2J nonsense')", "a line that is no reading: ' nonsense'"),
        ("print('[' * 300000)", "a line longer than"),
        ("raise SystemExit('no sensors today')", "no sensors today"),
    ],
)
def test_a_monitor_that_misbehaves_is_told(tmp_path, program: str, said: str) -> None:
    (tmp_path / "monitor.py").write_text(program)
    with LocalDevice(runtimes_dir=tmp_path, limits=Limits()) as device:
        with pytest.raises(DeviceError, match=f"(?s)device 'local': its monitor failed: .*{said}"):
            list(device.watch(0.1, 1))


def test_a_board_without_python_is_told(board, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_sdk.devices import _watch

    monkeypatch.setattr(_watch, "PROGRAM", "no-such-program.py")
    with (
        open_device(board.uri) as device,
        pytest.raises(DeviceError, match="its monitor failed: it ended with exit code"),
    ):
        list(device.watch(0.1, 1))
