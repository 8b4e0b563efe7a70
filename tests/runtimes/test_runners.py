"""The runners with their real runtimes: requests in, messages out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny

RUNTIMES = Path(__file__).parents[2] / "runtimes"
FIGURES = ("p50", "p90", "p99", "mean", "min", "max", "first", "load")

# A runtime that chatters on standard output, in Python and in C, while it is imported and while it runs.
CHATTERBOX = f"""
import ctypes, os, sys
sys.path.insert(0, {str(RUNTIMES)!r})
import harness

def chatter():
    print("chatter from Python")
    os.write(1, b"chatter from a descriptor\\n")
    libc = ctypes.CDLL(None)
    libc.puts(b"chatter from C")
    libc.fflush(None)
    os.system("echo chatter from a child")

class Part(harness.Loaded):
    def bind(self, feed):
        return lambda: feed["x"] * 2
    def arrays(self, result):
        chatter()
        return [result]

class Chatterbox(harness.Runtime):
    name = "chatterbox"
    def start(self, threads, options):
        chatter()
        return "1"
    def load(self, part, path):
        chatter()
        return Part()
    def threads(self):
        return 1

sys.exit(harness.main(Chatterbox()))
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Programs by runtime, each built once: file name and content."""
    return {
        "onnxruntime": ("tiny.onnx", tiny.onnx_program()),
        "executorch": ("tiny.pte", tiny.pte_program(("forward", "again"))),
    }


@pytest.fixture
def place(folder, programs):
    """Puts a runtime's program in the bundle's folder and returns its name there."""

    def put(runtime: str) -> str:
        name, content = programs[runtime]
        (folder / name).write_bytes(content)
        return name

    return put


@pytest.mark.parametrize("runtime", ["onnxruntime", "executorch"])
def test_a_whole_run(runtime, place, folder, ask, make_request, tmp_path):
    inputs = tiny.write_npz(tmp_path / "in.npz", {"forward/inputs/x": tiny.inputs(5, seed=9)})
    outputs = tmp_path / "out.npz"
    answer = ask(runtime, make_request(folder, place(runtime), inputs=str(inputs), outputs=str(outputs)))

    kinds = [message["type"] for message in answer.messages]
    assert kinds[0] == "hello" and kinds[-1] == "result" and kinds.count("hello") == 1
    hello = answer.messages[0]
    assert hello["runtime"] == runtime and hello["protocol_version"] == 1 and hello["device"]["cpus"] == os.cpu_count()
    stages = [message["stage"] for message in answer.of("progress")]
    assert list(dict.fromkeys(stages)) == ["reference", "load", "first", "warmup", "timed", "samples", "write"]

    latency = answer.result["latency"]
    assert latency["samples"] >= 20 and all(latency[figure] > 0 for figure in FIGURES)
    assert latency["min"] <= latency["ci95"][0] <= latency["p50"] <= latency["ci95"][1] <= latency["max"]
    assert latency["p50"] <= latency["p90"] <= latency["p99"]
    samples = [ns for batch in answer.of("sample") for ns in batch["ns"]]
    starts = [ns for batch in answer.of("sample") for ns in batch["start_ns"]]
    assert len(samples) == len(starts) == latency["samples"]
    assert starts[0] == 0 and starts == sorted(starts)
    assert np.median(samples) / 1e6 == pytest.approx(latency["p50"])

    memory = answer.result["memory"]
    assert memory["peak"] >= memory["baseline"] > 10 and memory["model"] == memory["peak"] - memory["baseline"]
    assert memory["method"].startswith("VmHWM")
    assert answer.result["conditions"]["threads"] == 1

    with np.load(outputs) as found:
        assert set(found.files) == {"reference/forward/outputs/y", "inputs/forward/outputs/y"}
        np.testing.assert_allclose(found["reference/forward/outputs/y"], tiny.layer(tiny.inputs(3)), atol=1e-4)
        np.testing.assert_allclose(found["inputs/forward/outputs/y"], tiny.layer(tiny.inputs(5, seed=9)), atol=1e-4)


@pytest.mark.parametrize("runtime", ["onnxruntime", "executorch"])
def test_every_part_is_timed(runtime, place, folder, ask, make_request, tmp_path):
    parts = ("forward", "again")
    tiny.write_npz(folder / "reference.npz", tiny.reference(parts))
    answer = ask(runtime, make_request(folder, place(runtime), parts, outputs=str(tmp_path / "out.npz")))
    latency = answer.result["latency"]
    assert set(latency["parts"]) == set(parts)
    assert 0 < max(latency["parts"].values()) < latency["p50"]
    for batch in answer.of("sample"):
        totals = [sum(times) for times in zip(*batch["parts"].values(), strict=True)]
        assert totals == batch["ns"]
    with np.load(tmp_path / "out.npz") as found:
        assert set(found.files) == {f"reference/{part}/outputs/y" for part in parts}


def test_only_outputs(place, folder, ask, make_request, tmp_path):
    request = make_request(folder, place("onnxruntime"), timing=None, outputs=str(tmp_path / "out.npz"))
    answer = ask("onnxruntime", request)
    assert answer.result["latency"] is None and answer.result["memory"] is None
    assert not answer.of("sample") and (tmp_path / "out.npz").exists()


def test_outputs_of_executorch_are_copies(place, folder, ask, make_request, tmp_path):
    """A program's output memory is used again at each call."""
    request = make_request(folder, place("executorch"), timing=None, outputs=str(tmp_path / "out.npz"))
    assert ask("executorch", request).code == 0
    with np.load(tmp_path / "out.npz") as found:
        outputs = found["reference/forward/outputs/y"]
    assert not np.array_equal(outputs[0], outputs[1])


@pytest.mark.parametrize("runtime", ["onnxruntime", "executorch"])
def test_threads_and_affinity_are_met_and_recorded(runtime, place, folder, ask, make_request):
    cpu = min(os.sched_getaffinity(0))
    request = make_request(folder, place(runtime), threads=None, affinity=[cpu])
    conditions = ask(runtime, request).result["conditions"]
    assert conditions["affinity"] == [cpu] and conditions["threads"] == 1
    request = make_request(folder, place(runtime), threads=2)
    assert ask(runtime, request).result["conditions"]["threads"] == 2


def test_the_runtimes_own_choice_of_threads_is_recorded(place, folder, ask, make_request):
    conditions = ask("onnxruntime", make_request(folder, place("onnxruntime"), threads=None)).result["conditions"]
    assert 1 <= conditions["threads"] <= (os.cpu_count() or 1)


def test_a_processor_that_is_not_there(place, folder, ask, make_request):
    error = ask("onnxruntime", make_request(folder, place("onnxruntime"), affinity=[4095])).error
    assert error["kind"] == "unsupported" and "cannot pin to the processors [4095]" in error["message"]


def test_chatter_does_not_reach_the_channel(folder, ask, make_request, tmp_path):
    (folder / "any").write_bytes(b"")
    runner = tmp_path / "chatterbox.py"
    runner.write_text(CHATTERBOX)
    answer = ask(runner, make_request(folder, "any", outputs=str(tmp_path / "out.npz")))
    assert answer.result["type"] == "result"
    for voice in ("Python", "a descriptor", "C", "a child"):
        assert f"chatter from {voice}" in answer.stderr


def test_a_provider_that_is_not_there_is_refused(place, folder, ask, make_request):
    request = make_request(folder, place("onnxruntime"), options={"provider": "CUDAExecutionProvider"})
    error = ask("onnxruntime", request).error
    assert error["kind"] == "unsupported"
    assert "CUDAExecutionProvider is not in this ONNX Runtime" in error["message"]
    assert "CPUExecutionProvider" in error["message"]


def test_providers_in_use_are_reported(place, folder, ask, make_request):
    options = {
        "provider": "CPUExecutionProvider",
        "graph_optimization": "disable",
        "allow_spinning": False,
        "execution_mode": "parallel",
    }
    result = ask("onnxruntime", make_request(folder, place("onnxruntime"), options=options)).result
    assert result["facts"] == {"providers": "CPUExecutionProvider"}


@pytest.mark.parametrize(
    ("runtime", "options", "message"),
    [
        ("onnxruntime", {"speed": "high"}, "the onnxruntime runner has no option 'speed'; known: provider"),
        ("onnxruntime", {"graph_optimization": "most"}, "option 'graph_optimization' cannot be 'most'"),
        ("onnxruntime", {"allow_spinning": 1}, "option 'allow_spinning' cannot be 1"),
        ("executorch", {"provider": "x"}, "the executorch runner has no options; found ['provider']"),
    ],
)
def test_unknown_options_are_refused(runtime, options, message, place, folder, ask, make_request):
    error = ask(runtime, make_request(folder, place("onnxruntime"), options=options)).error
    assert error["kind"] == "unsupported" and message in error["message"] and error["stage"] == "import"


def test_a_program_that_is_none(folder, ask, make_request):
    (folder / "tiny.onnx").write_bytes(b"nonsense")
    answer = ask("onnxruntime", make_request(folder, "tiny.onnx"))
    assert answer.error["stage"] == "load" and answer.error["kind"] == "runtime"
    assert "Traceback" in answer.stderr


def test_a_runtime_that_fails_on_a_later_sample(place, folder, ask, make_request, tmp_path):
    """Its words are the runtime's, not the harness's."""
    wrong = tiny.write_npz(tmp_path / "in.npz", {"forward/inputs/x": np.zeros((1, 1, tiny.SIZE + 1), "f")})
    outputs = tmp_path / "out.npz"
    answer = ask("onnxruntime", make_request(folder, place("onnxruntime"), inputs=str(wrong), outputs=str(outputs)))
    assert (answer.error["stage"], answer.error["kind"]) == ("samples", "runtime")
    assert "Got: 17 Expected: 16" in answer.error["message"] and not outputs.exists()


def test_outputs_that_cannot_be_written(place, folder, ask, make_request, tmp_path):
    (tmp_path / "file").write_text("no folder")
    outputs = str(tmp_path / "file" / "out.npz")
    error = ask("onnxruntime", make_request(folder, place("onnxruntime"), outputs=outputs)).error
    assert (error["stage"], error["kind"]) == ("write", "data")
    assert "NotADirectoryError" in error["message"] or "FileExistsError" in error["message"]


def test_the_folder_of_the_outputs_is_made(place, folder, ask, make_request, tmp_path):
    outputs = tmp_path / "new" / "deeper" / "out.npz"
    assert ask("onnxruntime", make_request(folder, place("onnxruntime"), outputs=str(outputs))).result
    assert outputs.is_file()


def test_an_interrupted_run_says_so_and_ends_at_once(place, folder, make_request, tmp_path):
    timing = {**make_request(folder, "x")["timing"], "min_time_s": 60.0, "max_time_s": 60.0, "ci_within": 1e-9}
    path = tmp_path / "request.json"
    path.write_text(json.dumps(make_request(folder, place("onnxruntime"), timing=timing)))
    command = [sys.executable, str(RUNTIMES / "onnxruntime" / "runner.py"), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        for line in process.stdout:
            if json.loads(line).get("stage") == "timed":
                break
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        last = [json.loads(line) for line in process.stdout][-1]
        assert time.monotonic() - begin < 5
        assert process.wait() == 128 + signal.SIGTERM
        assert last == {"type": "error", "stage": "timed", "kind": "interrupted", "message": "stopped by signal 15"}
        assert "Traceback" not in process.stderr.read()
