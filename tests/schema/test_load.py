"""Finding profiles by name, by path and in ``$EDGE_SDK_TARGETS``, and what they extend."""

from __future__ import annotations

import os

import pytest

from edge_sdk.errors import TargetError
from edge_sdk.schema import load_target, target_names

CHILD = "name: my-board\nextends: raspberry-pi-5\n"


def message(name) -> str:
    with pytest.raises(TargetError) as caught:
        load_target(name)
    assert caught.value.exit_code == 1
    return str(caught.value)


def test_unknown_name_gets_the_nearest_one_and_all_that_are_known():
    text = message("raspbery-pi5")
    assert "unknown target 'raspbery-pi5'. Did you mean 'raspberry-pi-5'?" in text
    assert "Known: desktop-cpu, desktop-cuda," in text


def test_a_file_by_path(write, pi):
    assert load_target(write(pi)).name == "my-board"
    assert load_target(str(write(pi, "other.yml"))).name == "my-board"


def test_a_missing_file(tmp_path):
    assert f"there is no file {tmp_path}/none.yaml" in message(tmp_path / "none.yaml")


def test_a_folder_and_another_kind_of_file(tmp_path, write):
    (tmp_path / "folder.yaml").mkdir()
    assert "folder.yaml is a folder: expected the path of one .yaml file in it" in message(tmp_path / "folder.yaml")
    assert "expected a file that ends in .yaml or .yml" in message(str(write("name: x\n", "mine.json")))
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "pipe.yaml is not a regular file" in message(tmp_path / "pipe.yaml")


def test_a_path_that_no_file_system_takes():
    assert "cannot read" in message("a\0b.yaml")
    assert "cannot read" in message("x" * 5000 + ".yaml")


def test_folders_of_the_environment_variable(write, pi, tmp_path, monkeypatch):
    write(pi, "one/my-board.yaml")
    write(pi.replace("my-board", "my-other"), "two/my-other.yml")
    write("not even read", "two/.hidden.yaml")
    folders = [str(tmp_path / "one"), str(tmp_path / "two"), str(tmp_path / "one"), ""]
    monkeypatch.setenv("EDGE_SDK_TARGETS", os.pathsep.join(folders))
    assert {"my-board", "my-other", "desktop-cpu"} <= set(target_names())
    assert load_target("my-other").name == "my-other"
    assert "Did you mean 'my-board'?" in message("my-bord")


def test_a_broken_file_of_the_environment_variable_is_listed_all_the_same(write, tmp_path, monkeypatch):
    write("name: [", "broken.yaml")
    monkeypatch.setenv("EDGE_SDK_TARGETS", str(tmp_path))
    assert "broken" in target_names()
    assert "not valid YAML" in message("broken")


def test_a_name_that_is_there_twice_is_refused_with_both_paths(write, pi, tmp_path, monkeypatch):
    path = write(pi, "desktop-cpu.yaml")
    monkeypatch.setenv("EDGE_SDK_TARGETS", str(tmp_path))
    text = message("desktop-cpu")
    assert "two profiles are named 'desktop-cpu'" in text
    assert str(path) in text
    assert "targets/desktop-cpu.yaml" in text


def test_a_folder_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_SDK_TARGETS", str(tmp_path / "none"))
    assert "which is not a folder" in message("desktop-cpu")


def test_a_profile_that_is_asked_for_by_name_has_that_name(write, pi, tmp_path, monkeypatch):
    write(pi, "his-board.yaml")
    monkeypatch.setenv("EDGE_SDK_TARGETS", str(tmp_path))
    assert "name: expected 'his-board', as the file is named (found 'my-board')" in message("his-board")


def test_a_profile_by_path_does_not_take_the_name_of_another(write, pi):
    text = message(write(pi.replace("my-board", "desktop-cpu")))
    assert "name: 'desktop-cpu' is the name of" in text


def test_extends_merges_mappings_and_replaces_lists(write):
    path = write(
        CHILD
        + "memory:\n  total_mib: {value: 16384, source: the label on the board}\n"
        + "transports: [local]\ntransport: local\n"
    )
    target, parent = load_target(path), load_target("raspberry-pi-5")
    assert target.memory.total_mib.value == 16384
    assert target.memory.bandwidth_gb_s == parent.memory.bandwidth_gb_s
    assert target.transports == ["local"]
    assert target.units == parent.units


def test_a_figure_is_replaced_whole_so_that_it_never_keeps_the_source_of_another(write):
    text = message(write(CHILD + "memory:\n  total_mib:\n    value: 16384\n"))
    assert "mine.yaml:4: memory.total_mib.source: this key is required" in text


def test_a_child_has_a_name_of_its_own(write):
    assert "name: this key is required" in message(write("extends: raspberry-pi-5\n"))


def test_extends_a_path_relative_to_the_file_itself(write, pi, tmp_path, monkeypatch):
    write(pi.replace("my-board", "base"), "shared/base.yaml")
    path = write("name: my-board\nextends: ../shared/base.yaml\n", "boards/mine.yaml")
    monkeypatch.chdir(tmp_path)
    assert load_target(path).soc == "Broadcom BCM2712"


def test_extends_itself_through_another(write):
    one = write("name: one\nextends: two.yaml\n", "one.yaml")
    two = write("name: two\nextends: ./one.yaml\n", "two.yaml")
    text = message(one)
    assert "the profile extends itself" in text
    assert f"{one} extends {two}" in text


def test_extends_too_deep(write):
    for number in range(9):
        path = write(f"name: level{number}\nextends: level{number - 1}.yaml\n", f"level{number}.yaml")
    assert "profiles extend each other more than 8 deep" in message(path)


@pytest.mark.parametrize(
    ("extends", "expected"),
    [
        ("xnnpack-cpo", "mine.yaml:2: extends: unknown target 'xnnpack-cpo'. Did you mean 'xnnpack-cpu'?"),
        ("none.yaml", "mine.yaml:2: extends: there is no file"),
        ("[a, b]", "extends: expected the name or the path of a profile, found ['a', 'b']"),
        ("''", "extends: expected the name or the path of a profile"),
    ],
)
def test_extends_something_that_is_not_there(write, extends, expected):
    assert expected in message(write(f"name: my-board\nextends: {extends}\n"))


def test_a_fault_in_the_parent_is_told_with_the_parents_file(write, pi):
    write(pi.replace("os: linux", "os: beos").replace("my-board", "base"), "base.yaml")
    text = message(write("name: my-board\nextends: base.yaml\n"))
    assert "base.yaml:" in text
    assert "os: input should be 'linux', 'android' or 'any' (found 'beos')" in text
