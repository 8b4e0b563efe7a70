"""Setting a board up: an environment from pushed wheels, once, without network or root; or one of the user's own."""

from __future__ import annotations

import ensurepip
import json
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from edge_sdk.devices import open_device
from edge_sdk.devices._setup import Interpreter, set_up
from edge_sdk.errors import DeviceError, MissingDependencyError


def wheel(folder: Path, name: str, number: str) -> None:
    """A wheel of the right name and version that holds an empty module: a stand-in for the genuine one."""
    with zipfile.ZipFile(folder / f"{name}-{number}-py3-none-any.whl", "w") as archive:
        info = f"{name}-{number}.dist-info"
        archive.writestr(f"{name}/__init__.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index in a folder, which is all that pip may use."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in ("onnxruntime", "numpy"):
        wheel(folder, name, version(name))
    (pip,) = (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl")
    (folder / pip.name).write_bytes(pip.read_bytes())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("EDGE_SDK_CACHE", str(tmp_path / "cache"))
    return folder


def test_an_environment_is_made_once(board, wheels) -> None:
    said: list[str] = []
    with open_device(board.uri) as device:
        first = set_up(device, "onnxruntime", None, said.append)
        again = set_up(device, "onnxruntime", None, said.append)
    assert first.python == f"{board.base}/envs/onnxruntime/bin/python"
    assert (first.version, first.changed, again.changed) == (version("onnxruntime"), True, False)
    assert sum(line.startswith("installing") for line in said) == 1
    assert Path(first.python).is_file() and not Path(f"{board.base}/envs/onnxruntime.new").exists()
    assert board.left_behind() == []


def test_an_environment_that_broke_is_made_again(board, wheels) -> None:
    with open_device(board.uri) as device:
        python = Path(set_up(device, "onnxruntime", None).python)
        next(python.parents[1].glob("lib/*/site-packages/onnxruntime/__init__.py")).write_text("1 / 0")
        assert set_up(device, "onnxruntime", None).changed


def test_wheels_that_are_not_to_be_had_are_told(board, wheels) -> None:
    for path in wheels.glob("onnxruntime-*"):
        path.unlink()
    with open_device(board.uri) as device:
        with pytest.raises(MissingDependencyError, match=r"pip cannot download onnxruntime==\S+ .* for \w+, Python 3"):
            set_up(device, "onnxruntime", None)


def test_ones_own_interpreter_is_noted(board, cli) -> None:
    (board.base / "envs/onnxruntime.python").unlink()
    done = cli("device", "setup", board.uri, "--python", sys.executable, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runtimes"] == [
        {"runtime": "onnxruntime", "python": sys.executable, "version": version("onnxruntime"), "changed": True}
    ]
    assert (board.base / "envs/onnxruntime.python").read_text().strip() == sys.executable


def test_an_interpreter_without_the_runtime_is_refused(board) -> None:
    with open_device(board.uri) as device:
        with pytest.raises(DeviceError, match="/no/python there cannot import onnxruntime, numpy"):
            set_up(device, "onnxruntime", "/no/python")


def test_an_unknown_runtime_is_refused(board) -> None:
    with open_device(board.uri) as device:
        with pytest.raises(DeviceError, match="unknown runtime 'onnx-runtime'. Did you mean 'onnxruntime'?"):
            set_up(device, "onnx-runtime", None)


def test_this_machine_needs_no_set_up(cli) -> None:
    done = cli("device", "setup", "local")
    assert done.returncode == 1
    assert "device 'local' needs no set-up of this kind" in done.stderr


def test_the_wheels_platforms_go_down_from_the_boards_c_library() -> None:
    board = Interpreter((3, 11), "aarch64", 19)
    assert board.platforms == [
        "manylinux_2_19_aarch64",
        "manylinux_2_18_aarch64",
        "manylinux_2_17_aarch64",
        "manylinux2014_aarch64",
    ]
