"""Standard output is ours alone, noise is dropped, errors of libraries come through, and stopping is clean."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from edge_sdk.cli._chatter import NOISE

LIBRARY = """
import ctypes, os, sys
from edge_sdk.cli._chatter import apart
with apart(verbose={verbose}) as (stdout, stderr):
    print("python chatter")
    os.write(1, b"C chatter\\n")
    ctypes.CDLL(None).printf(b"buffered C chatter\\n")
    os.write(2, b"[cpuinfo_utils.cpp:71] Reading file /sys/devices/soc0/image_version\\n")
    os.write(2, b"W1123 06:47:53.098000 5636 torch/utils/_pytree.py:630] a warning\\n")
    os.write(2, b"E1123 06:47:53.098000 5636 torch/utils/_pytree.py:630] an error\\n")
    os.write(2, b"something that nobody knows\\n")
    import logging, warnings
    warnings.warn("a warning of Python")
    logging.getLogger("torchao").warning("a warning of a library")
    logging.getLogger("torchao").error("an error of a library")
    logging.getLogger("edge_sdk.x").warning("a warning of ours")
    stdout.write("the result\\n")
    stderr.write("progress\\n")
    {end}
print("after", flush=True)
print("after", file=sys.stderr)
"""


def _run(verbose: bool, end: str = "") -> subprocess.CompletedProcess[str]:
    code = LIBRARY.format(verbose=verbose, end=end)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_standard_output_is_ours_alone():
    done = _run(verbose=False)
    assert done.stdout == "the result\nafter\n"
    for line in (
        "python chatter",
        "C chatter",
        "buffered C chatter",
        "something that nobody knows",
        "progress",
        "after",
    ):
        assert line in done.stderr.splitlines()


def test_errors_pass_and_known_noise_does_not():
    done = _run(verbose=False)
    assert "] an error" in done.stderr
    assert "an error of a library" in done.stderr
    assert "edge-sdk: WARNING: edge_sdk.x: a warning of ours" in done.stderr
    for noise in ("cpuinfo_utils", "] a warning", "a warning of Python", "a warning of a library"):
        assert noise not in done.stderr


def test_verbose_lets_everything_through():
    done = _run(verbose=True)
    assert done.stdout == "the result\nafter\n"
    for line in ("cpuinfo_utils", "] a warning", "a warning of Python", "a warning of a library", "] an error"):
        assert line in done.stderr


def test_the_last_words_of_a_crash_come_through():
    done = _run(verbose=False, end='os.write(2, b"last words\\n"); os.abort()')
    assert done.returncode == -signal.SIGABRT
    assert "last words" in done.stderr


def test_a_process_left_behind_does_not_hold_the_command():
    begun = time.monotonic()
    command = [
        sys.executable,
        "-c",
        LIBRARY.format(verbose=False, end='import subprocess; subprocess.Popen(["sleep", "20"])'),
    ]
    done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert done.wait(timeout=15) == 0
    assert time.monotonic() - begun < 15
    done.communicate(timeout=1)


@pytest.mark.parametrize(
    "line",
    [
        b"[cpuinfo_utils.cpp:87] Failed to open midr file /sys/devices/soc0/image_version\n",
        b"I1123 06:47:53.098000 5636 torch/x.py:1] words\n",
        b"I 00:00:00.000384 executorch:program.cpp:134] InternalConsistency verification requested but not available\n",
        b"\x1b[0;93m2026-11-23 06:47:53.098 [W:onnxruntime:Default, device_discovery.cc:164] no GPU\x1b[m\n",
    ],
)
def test_known_noise(line):
    assert NOISE.match(line)


@pytest.mark.parametrize(
    "line",
    [
        b"E 00:00:00.000384 executorch:program.cpp:134] Program is damaged\n",
        b"2026-11-23 06:47:53.098 [E:onnxruntime:, sequential_executor.cc:494] Non-zero status code\n",
        b"terminate called after throwing an instance of 'std::bad_alloc'\n",
        b"RuntimeError: [cpuinfo_utils.cpp:87] in the middle\n",
    ],
)
def test_errors_are_not_noise(line):
    assert not NOISE.match(line)


SLOW_MODEL = """
import pathlib, time
def build():
    pathlib.Path("started").touch()
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("number", "code", "words"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_stopping_leaves_nothing_half_written(number, code, words, tmp_path, cache):
    (tmp_path / "slow.py").write_text(SLOW_MODEL)
    before = sorted(cache.rglob("*"))
    command = [sys.executable, "-m", "edge_sdk", "compile", "slow.py:build", "--target", "xnnpack-cpu", "--out", "out"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not (tmp_path / "started").exists():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert out == ""
    assert err.splitlines()[-1] == f"edge-sdk: {words}; nothing was left half written"
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
    assert sorted(cache.rglob("*")) == before


def test_a_terminal_sees_each_stage_with_its_duration():
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    code = """
from edge_sdk.cli._output import Output
import sys
with Output(sys.stdout, sys.stderr, as_json=False).progress() as started:
    started("capturing net")
    started("lowering \\x1b[2J")
    if len(sys.argv) > 1:
        raise SystemExit("failed")
"""
    for arguments, last in (([], "lowering \\x1b[2J, 0.0 s"), (["fail"], "failed")):
        primary, secondary = pty.openpty()
        done = subprocess.run([sys.executable, "-c", code, *arguments], stderr=secondary, timeout=60)
        os.close(secondary)
        shown = os.read(primary, 65536).decode()
        os.close(primary)
        assert done.returncode == len(arguments)
        assert "  capturing net ...\r\x1b[K  capturing net, 0.0 s\r\n" in shown
        assert shown.rstrip().endswith(last) and "\x1b[2J" not in shown


def test_elsewhere_each_stage_is_a_line():
    code = """
from edge_sdk.cli._output import Output
import sys
with Output(sys.stdout, sys.stderr, as_json=False).progress() as started:
    started("capturing net")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr == "[   0.0 s] capturing net\n[   0.0 s] done\n"
