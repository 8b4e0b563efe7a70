"""Pushing: by content, once, resumed, checked, and never further than the device's own folder."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge_sdk.errors import DeviceError, LinkLostError

MIB = 1 << 20


def a_file(folder: Path, size: int, name: str = "weights.bin") -> Path:
    path = folder / name
    path.write_bytes(os.urandom(size))
    return path


def test_a_file_arrives_whole_and_comes_back_whole(far, tmp_path: Path) -> None:
    file = a_file(tmp_path, 3 * MIB + 17)
    with far.open() as device:
        place = device.push(file)
        device.pull(place, tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == file.read_bytes()
    assert far.left_behind() == []


def test_a_folder_keeps_its_paths_and_its_odd_names(far, tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    (folder / "a b").mkdir(parents=True)
    (folder / "a b" / "it's $HOME;`x`").write_bytes(b"one")
    (folder / "two.bin").write_bytes(b"two")
    with far.open() as device:
        place = Path(device.push(folder))
    found = {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert found == {"a b/it's $HOME;`x`": b"one", "two.bin": b"two"}


def test_what_lies_there_is_not_sent_again(far, tmp_path: Path) -> None:
    file = a_file(tmp_path, 2 * MIB)
    with far.open() as device:
        device.push(file)
        far.link.cut_after(MIB)  # a second push that sent the file would cut the link
        assert device.push(file) == device.push(file)
        far.link.cut_after(1 << 40)


def test_of_two_folders_with_a_file_in_common_it_is_sent_once(far, tmp_path: Path) -> None:
    shared = os.urandom(2 * MIB)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(shared)
        (tmp_path / name / "label").write_text(name)
    with far.open() as device:
        device.push(tmp_path / "one")
        far.link.cut_after(MIB)
        place = device.push(tmp_path / "two")
        far.link.cut_after(1 << 40)
    assert Path(place, "weights").read_bytes() == shared


def test_two_threads_that_push_the_same_folder_do_not_tear_each_others_pieces(far, tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    for number in range(8):
        a_file(folder, 200_000, f"{number}.bin")
    with far.open() as device, ThreadPoolExecutor(2) as pool:
        first, second = pool.map(device.push, [folder, folder])
    assert first == second
    assert all((Path(first) / file.name).read_bytes() == file.read_bytes() for file in folder.iterdir())
    assert far.left_behind() == []


def test_a_push_goes_on_after_a_cut_link(far, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = a_file(tmp_path, 8 * MIB)
    with far.open() as device, caplog.at_level(logging.WARNING):
        far.link.cut_after(5 * MIB)
        place = device.push(file)
        device.pull(place, tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == file.read_bytes()
    assert "the link dropped at step 'push'" in caplog.text
    assert far.left_behind() == []


def test_a_later_session_goes_on_from_what_an_earlier_one_left(far, tmp_path: Path) -> None:
    file = a_file(tmp_path, 8 * MIB)
    with far.open() as device:
        place = Path(device.push(file))
    whole = next(path for path in far.base.glob("objects/*") if path.stat().st_size == 8 * MIB)
    part = whole.with_name(f"{whole.name}.part")
    part.write_bytes(file.read_bytes()[: 7 * MIB])
    whole.unlink()
    place.unlink()
    with far.open() as device:
        far.link.cut_after(3 * MIB)  # one MiB is missing; all eight would cut the link
        assert Path(device.push(file)).read_bytes() == file.read_bytes()
        far.link.cut_after(1 << 40)
    assert far.left_behind() == []


def test_a_piece_of_another_content_is_thrown_away(far, tmp_path: Path) -> None:
    file = a_file(tmp_path, MIB)
    with far.open() as device:
        place = Path(device.push(file))
    whole = next(path for path in far.base.glob("objects/*") if path.stat().st_size == MIB)
    whole.with_name(f"{whole.name}.part").write_bytes(b"x" * 1000)
    whole.unlink()
    place.unlink()
    with far.open() as device:
        assert Path(device.push(file)).read_bytes() == file.read_bytes()
    assert far.left_behind() == []


def test_a_file_that_was_changed_there_is_replaced(far, tmp_path: Path) -> None:
    file = a_file(tmp_path, MIB)
    with far.open() as device:
        place = Path(device.push(file))
        for path in (place, *far.base.glob("objects/*")):
            path.write_bytes(path.read_bytes()[:-1] + b"?") if path.stat().st_size == MIB else None
        assert Path(device.push(file)).read_bytes() == file.read_bytes()


def test_a_full_disk_is_told_and_leaves_nothing(far, tmp_path: Path) -> None:
    file = a_file(tmp_path, 2 * MIB)
    with far.open() as device:
        far.stand_in.fault("disk_full", on=r"tee -a objects/")
        with pytest.raises(DeviceError) as caught:
            device.push(file)
        assert str(caught.value) == (
            f"device '{far.uri}': weights.bin cannot be written at step 'push': no space is left there. Free some."
        )
        assert caught.value.exit_code == 3
        assert far.left_behind() == []
        assert Path(device.push(file)).read_bytes() == file.read_bytes()


def test_a_link_that_does_not_come_back_is_told(far, tmp_path: Path) -> None:
    file = a_file(tmp_path, 8 * MIB)
    with far.open(patience_s=1.0) as device:
        far.link.refuse()
        far.link.cut_after(3 * MIB)
        with pytest.raises(LinkLostError, match=r"^device '.*': .*at step 'push'.*; it did not come back within 1 s$"):
            device.push(file)
        far.link.accept()
    with far.open() as device:
        assert Path(device.push(file)).read_bytes() == file.read_bytes()
    assert far.left_behind() == []


def test_a_slow_link_is_sent_what_packs_well_in_packed_form(far, tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(os.urandom(1000) * (8 * MIB // 1000))
    far.link.delay_ms = 100
    with far.open() as device:
        far.link.cut_after(4 * MIB)  # a link that carried all eight would be cut
        place = device.push(file)
        far.link.cut_after(1 << 40)
    assert Path(place).read_bytes() == file.read_bytes()
