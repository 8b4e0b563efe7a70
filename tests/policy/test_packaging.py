"""What a wheel holds, and that a plain installation works without torch."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import edge_sdk

ROOT = Path(__file__).parents[2]
DATA = ("targets", "runtimes", "jetson")


def _fresh_copy(folder: Path) -> Path:
    """The files that git knows or would take in, without build leftovers."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout, so there is no telling which files belong to it")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def _expected(copy: Path) -> set[str]:
    """Every Python file of the package and every file of the data folders, as the wheel names them."""
    names = {str(file.relative_to(copy)) for file in (copy / "edge_sdk").rglob("*.py")}
    for name in DATA:
        for file in (copy / name).rglob("*"):
            if file.is_file():
                names.add(f"edge_sdk/_data/{file.relative_to(copy)}")
    return names


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    return _fresh_copy(tmp_path_factory.mktemp("copy"))


@pytest.fixture(scope="module")
def wheel(copy, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*pip, "-w", out, copy], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_what_it_should_and_nothing_else(copy, wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = _expected(copy)
    data = {"edge_sdk/py.typed", *(name for name in names if re.match(r"edge_sdk/models/.*\.(txt|json|yaml)$", name))}
    assert names == expected | data
    assert "edge_sdk/_data/targets/xnnpack-cpu.yaml" in names
    assert "edge_sdk/_data/runtimes/harness.py" in names


def test_the_wheel_holds_the_data_files_of_the_models(copy, wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    files = [file for file in (copy / "edge_sdk").rglob("*") if file.suffix in (".txt", ".json", ".yaml")]
    wanted = {str(file.relative_to(copy)) for file in files}
    assert wanted <= names


def test_the_wheel_says_what_it_is(wheel):
    with zipfile.ZipFile(wheel) as archive:
        about = [name for name in archive.namelist() if ".dist-info/" in name]
        text = {name.rpartition("/")[2]: archive.read(name).decode() for name in about}
    assert f"Version: {edge_sdk.__version__}\n" in text["METADATA"]
    assert "edge-sdk = edge_sdk.cli:main" in text["entry_points.txt"]
    for extra in ("executorch", "onnxruntime", "tensorrt", "rtx", "demo", "train", "report", "dev"):
        assert f"Provides-Extra: {extra}\n" in text["METADATA"]
    assert "MIT License" in text["LICENSE"]


def test_nothing_that_travels_names_a_folder_of_this_machine(copy):
    texts = [file for file in copy.rglob("*") if file.suffix in (".md", ".py", ".toml", ".txt", ".yaml")]
    assert not [file for file in texts if f"{ROOT}/" in file.read_text("utf-8")]


@pytest.mark.slow
def test_a_plain_installation_lists_the_targets_without_torch(copy, tmp_path):
    """Installs with pip into an empty environment; that takes a package index."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    done = subprocess.run([python, "-m", "pip", "install", "-q", str(copy)], capture_output=True, text=True)
    if done.returncode and re.search(r"No matching distribution|Could not find a version|connection", done.stderr):
        pytest.skip("pip finds no package index, and the base packages come from there")
    assert done.returncode == 0, done.stderr
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [environment / "bin" / "edge-sdk", "targets", "--json"], cwd=tmp_path, env=clean, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    names = {target["name"] for target in json.loads(done.stdout)["targets"]}
    assert {"xnnpack-cpu", "desktop-cpu", "galaxy-s24-npu"} <= names
    absent = subprocess.run([python, "-c", "import torch"], capture_output=True)
    assert absent.returncode != 0
    command = [environment / "bin" / "edge-sdk", "compile", "photo_tagging", "--target", "xnnpack-cpu", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == "MissingDependencyError"
    assert "pip install 'edge-sdk[executorch]'" in error["message"]
    assert "Traceback" not in done.stderr
