"""``edge-sdk monitor`` as people and scripts use it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest
import tiny

MONITOR = [sys.executable, "-m", "edge_sdk", "monitor"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MONITOR, *words], capture_output=True, text=True, timeout=60)


def test_json_is_a_line_for_each_reading():
    done = run("--count", "3", "--every", "0.1", "--json")
    assert done.returncode == 0, done.stderr
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(documents) == 3
    for document in documents:
        assert document["device"]["uri"] == "local" and document["bundle"] is None
        assert document["latency"] == {"last": None, "all": None}
        assert document["reading"]["memory"]["total_mib"] > 0


def test_without_a_terminal_it_tells_a_line_of_words():
    done = run("--count", "1", "--every", "0.1")
    assert done.returncode == 0 and done.stdout.count("\n") == 1
    assert " s, processors " in done.stdout and " MiB" in done.stdout


def test_a_terminal_shows_the_bundles_latency(tmp_path):
    bundle = tiny.bundle(tmp_path, "onnxruntime", tiny.onnx_program())
    main, side = pty.openpty()
    words = [*MONITOR, str(bundle.path), "--count", "8", "--every", "0.5"]
    with subprocess.Popen(words, stdin=side, stdout=side, stderr=side, env={**os.environ, "COLUMNS": "120"}) as shown:
        os.close(side)
        text = b""
        try:
            while chunk := os.read(main, 4096):
                text += chunk
        except OSError:  # the other side has closed
            pass
        assert shown.wait(30) == 0
    os.close(main)
    words = text.decode()
    for name in ("Processors", "Memory", "Temperatures", "Latency of tiny", "last 30", "p99", "FPS"):
        assert name in words


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_ctrl_c_is_how_one_leaves(number: signal.Signals, code: int):
    with subprocess.Popen(MONITOR, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout and running.stdout.readline()
        time.sleep(0.1)
        running.send_signal(number)
        assert running.wait(30) == code


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--every", "0"), 2, "expected seconds from 0.05"),
        (("--count", "none"), 2, "expected a whole number from 1"),
        (("--device", "moon://base"), 3, "moon"),
        (("nothing.edge",), 1, "no bundle at"),
    ],
)
def test_bad_input_is_told(words: tuple[str, ...], code: int, said: str):
    done = run(*words)
    assert said in done.stderr and "Traceback" not in done.stderr
    assert done.returncode == code
