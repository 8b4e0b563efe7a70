"""A full disk and Ctrl-C in the middle: one clear line, its exit code, and nothing half written or still running."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from _commands import DESKTOP, NET, ORT, Edge, edge_in, everything, write

from edge_sdk.cli import main


@pytest.fixture
def edge(capsys, tmp_path, monkeypatch) -> Edge:
    return edge_in(tmp_path, capsys, monkeypatch)


# A full disk


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    """A cache that holds nothing of other tests."""
    monkeypatch.setenv("EDGE_SDK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A real file system of a given size; only root may make one."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("runtime", ["executorch", "onnxruntime"])
@pytest.mark.parametrize("full", ["cache", "out"])
def test_a_full_disk(full, runtime, edge, tmp_path, own_cache):
    write(tmp_path / "net.py", NET)
    arguments = ("compile", "net.py:build", *DESKTOP, "--runtime", runtime, "--set", "width=8000", "--out", "disk/out")
    with small_disk(tmp_path / "disk", "256k") as disk:
        if full == "cache":
            own_cache.symlink_to(disk)
        before = everything(disk)
        code, said = edge(*arguments)
        assert code == 1
        assert said.startswith("edge-sdk: error: cannot write ")
        assert said.endswith(": the disk is full; free some space. Nothing was left half written.")
        assert everything(disk) == before
    if full == "out":
        assert main(list(arguments)) == 0, "with space again it works, from the cache"


def test_a_file_system_that_is_read_only(edge, tmp_path, own_cache):
    write(tmp_path / "net.py", NET)
    with small_disk(tmp_path / "disk", "256k") as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        code, said = edge("compile", "net.py:build", *DESKTOP, *ORT, "--out", "disk/out")
    assert code == 1
    assert said.endswith("the file system is read-only; choose another folder. Nothing was left half written.")


@pytest.mark.slow
def test_a_limit_on_the_size_of_files(cli, tmp_path, own_cache):
    """What a user without privileges meets: no file may grow over 64 KiB."""
    write(tmp_path / "net.py", NET)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))

    arguments = ("compile", "net.py:build", *DESKTOP, "--runtime", "executorch", "--set", "width=8000", "--out", "out")
    done = cli(*arguments, preexec_fn=limit)
    assert done.returncode == 1 and done.stdout == ""
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"edge-sdk: error: cannot write {own_cache}")
    assert said.endswith(
        "larger than the system allows (see 'ulimit -f'); raise the limit. Nothing was left half written."
    )
    assert {name for name in everything(tmp_path) if "__pycache__" not in name} == {"net.py"}


# Ctrl-C

LARGE = """
    import torch

    def build():
        torch.manual_seed(0)
        layers = [torch.nn.Conv2d(3, 32, 3, padding=1)]
        for _ in range(20):
            layers += [torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3, padding=1)]
        return torch.nn.Sequential(*layers), (torch.ones(1, 3, 32, 32),)
"""


def interrupt(
    command: list[str], folder: Path, when: str, number: int = signal.SIGINT
) -> tuple[int, list[str], set[int]]:
    """Runs a command line as a terminal does, stops it when it says a thing; exit code, words and its processes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_sdk", *command],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    said, children = [], set()
    for line in process.stderr:
        said.append(line.rstrip("\n"))
        if when in line:
            time.sleep(0.3)
            children = descendants(process.pid)
            os.killpg(process.pid, number)
    return process.wait(60), said, children


def descendants(pid: int) -> set[int]:
    """The processes that a process started, and those that they started."""
    found: set[int] = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (thread / "children").read_text().split()):
            found |= {child} | descendants(child)
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def settled(pids: set[int]) -> bool:
    """Whether all of some processes end within a few seconds."""
    until = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(alive, pids))


def check_stopped(code: int, said: list[str], expected: int = 130) -> None:
    assert code == expected, said
    word = "interrupted" if expected == 130 else "terminated"
    assert said[-1] == f"edge-sdk: {word}; nothing was left half written"
    assert [line for line in said if not line.startswith("[")] == said[-1:], "one line and no traceback"


@pytest.mark.parametrize(
    ("runtime", "when", "number"),
    [
        ("executorch", "capturing", signal.SIGINT),
        ("executorch", "lowering", signal.SIGINT),
        ("onnxruntime", "lowering", signal.SIGINT),
        ("onnxruntime", "lowering", signal.SIGTERM),
    ],
)
def test_stopping_a_compilation(runtime, when, number, tmp_path, own_cache, monkeypatch):
    write(tmp_path / "net.py", LARGE)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    command = ["compile", "net.py:build", *DESKTOP, "--runtime", runtime, "--out", "out"]
    code, said, children = interrupt(command, tmp_path, when, number)
    check_stopped(code, said, 128 + number)
    assert settled(children)
    assert not (tmp_path / "out").exists()
    assert [name for name in everything(own_cache) if "edge" in name or "." in name] == []
    assert [name for name in everything(tmp_path / "tmp") if "edge" in name] == []


@pytest.mark.parametrize("runtime", ["executorch", "onnxruntime"])
def test_stopping_a_measurement_ends_the_runner(runtime, tmp_path, own_cache, monkeypatch):
    program = tiny.pte_program() if runtime == "executorch" else tiny.onnx_program()
    bundle = tiny.bundle(tmp_path, runtime, program)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    before = everything(bundle.path)
    command = ["profile", str(bundle.path), "--out", "report"]
    code, said, children = interrupt(command, tmp_path, "warming up")
    check_stopped(code, said)
    assert children and settled(children)
    assert not (tmp_path / "report").exists()
    assert everything(bundle.path) == before
    assert everything(tmp_path / "tmp") <= {".ses"}, "ONNX Runtime leaves that one, stopped or not"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from edge_sdk.devices import open_device\nwith open_device('local').lock('next'): pass",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"the device stayed locked: {done.stderr}"


SWALLOWS = """
    import time

    def build():
        open("started", "w").close()
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            raise ImportError("initialization failed")
"""


def test_an_interrupt_that_a_library_turns_into_an_error_of_its_own(tmp_path):
    """As a compiled module does that is interrupted while it loads."""
    write(tmp_path / "net.py", SWALLOWS)
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_sdk", "compile", "net.py:build", "--target", "xnnpack-cpu"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    check_stopped(process.returncode, said.splitlines())
