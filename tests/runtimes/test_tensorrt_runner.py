"""The TensorRT runner: engines built and kept on the device, by trtexec and by the Python package.

Both are stand-ins that compute by ONNX Runtime; of the driver's there is a small library in C.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

HERE = Path(__file__).parent
OPTIONS = {"delegate": "gpu", "tf32": False, "cuda_graphs": True, "workspace_mib": 0}
NODES = ["MatMul", "Relu"]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt") is not None, reason="the genuine TensorRT is installed, and would be used"
)


class Board:
    """A device's files: where programs are looked for, and where engines are kept."""

    def __init__(self, root: Path) -> None:
        self.root, self.calls = root, root / "calls"
        (root / "bin").mkdir(parents=True)
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(root / "cache"), "PATH": f"{root}/bin:/usr/bin:/bin"}

    def has_trtexec(self, version=(10, 3, 0), trouble: str = "", **changes) -> None:
        program = self.root / "bin" / "trtexec"
        program.write_text(f"#!{sys.executable}\n" + (HERE / "trtexec.py").read_text())
        program.chmod(0o755)
        settings = {"version": version, "trouble": trouble, "calls": str(self.calls), **changes}
        program.with_suffix(".json").write_text(json.dumps(settings))

    def commands(self) -> list[list[str]]:
        return [json.loads(line) for line in self.calls.read_text().splitlines()]

    @property
    def engines(self) -> list[Path]:
        return sorted((self.root / "cache" / "edge-sdk" / "engines").glob("*/engine"))


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    board = Board(tmp_path / "board")
    for name, value in board.environment.items():
        monkeypatch.setenv(name, value)
    return board


@pytest.fixture
def ask_runner(ask, folder, make_request):
    """Runs the runner with a model of one layer."""

    def run(words=(), stdin=b"", program: bytes | None = None, name: str = "forward.onnx", **changes):
        options = {**OPTIONS, **changes.pop("options", {})}
        (folder / name).write_bytes(tiny.onnx_program() if program is None else program)
        return ask("tensorrt", make_request(folder, name, options=options, **changes), words, stdin)

    return run


@pytest.mark.parametrize("version", [(10, 3, 0), (11, 1, 0)])
def test_a_whole_run_by_trtexec(version, board, ask_runner, tmp_path):
    board.has_trtexec(version)
    outputs = tmp_path / "out.npz"
    answer = ask_runner(outputs=str(outputs))
    text = ".".join(map(str, version))
    assert answer.messages[0]["version"] == text
    stages = [message["stage"] for message in answer.of("progress")]
    assert stages[:2] == ["build", "build"] and stages.index("timed") > stages.index("warmup")
    result = answer.result
    # Transfers of 0.1 and 0.05 ms, and a compute time around 1.82 ms.
    assert result["latency"]["p50"] == pytest.approx(1.97, abs=0.001)
    assert result["latency"]["load"] == pytest.approx(12.0) and result["latency"]["samples"] >= 20
    assert result["gpu"]["name"] == "Orin" and result["gpu"]["compute_capability"] == "8.7"
    steps = {"unit": "ms", "host_to_device": 0.1, "compute": 1.82, "device_to_host": 0.05, "enqueue": 0.2}
    assert result["gpu"]["steps"] == pytest.approx(steps, abs=1e-6)
    assert "unavailable" in result["gpu"]["memory"] and result["memory"]["method"].startswith("getrusage ru_maxrss of")
    engine = result["engine"]
    assert engine["builder"] == f"trtexec of TensorRT {text}" and engine["build_s"] > 0 and engine["fallback"] == []
    assert [(layer["part"], layer["kind"], layer["inputs"]) for layer in engine["layers"]] == [
        ("forward", "MatMul", ["fp16"]),
        ("forward", "Relu", ["fp16"]),
    ]
    assert all(layer["ms"] == pytest.approx(0.9) for layer in engine["layers"])
    assert result["facts"]["device"] == "the GPU, with CUDA graphs, by TensorRT's trtexec"
    with np.load(outputs) as found:
        np.testing.assert_allclose(found["reference/forward/outputs/y"], tiny.layer(tiny.inputs(3)), rtol=1e-5)


def test_an_engine_is_kept_until_model_options_or_version_differ_or_it_is_damaged(board, ask_runner):
    def built(**changes) -> bool:
        return ask_runner(**changes).result["engine"]["build_s"] is not None

    board.has_trtexec()
    assert built() and not built()
    (engine,) = board.engines
    (engine.parent / "about.json").write_text("{")
    assert built() and len(board.engines) == 1
    assert built(program=tiny.onnx_program(2.0), options={"tf32": True}) and len(board.engines) == 2
    (cache,) = (board.root / "cache" / "edge-sdk" / "engines").glob("timing-*.cache")
    assert cache.read_bytes() == b"timed\n" * 3 and "10.3.0" in cache.name
    builds = [words for words in board.commands() if any(word.startswith("--onnx=") for word in words)]
    assert len(builds) == 3
    assert all(
        {"--stronglyTyped", "--skipInference", "--profilingVerbosity=detailed"} <= set(words) for words in builds
    )
    assert ["--noTF32" in words for words in builds] == [True, True, False]
    board.has_trtexec((11, 1, 0))
    assert built() and len(board.engines) == 3


def test_what_trtexec_warns_of_is_carried_over(board, ask_runner):
    board.has_trtexec((11, 1, 0), "unstable")
    warnings = ask_runner().result["conditions"]["warnings"]
    assert "trtexec: GPU compute time is unstable, with coefficient of variance = 12.5%." in warnings
    assert any(one.startswith("trtexec: Throughput may be bound by Enqueue Time") for one in warnings)


def test_a_dla_and_what_it_leaves_to_the_gpu(board, ask_runner):
    board.has_trtexec()
    result = ask_runner(options={"delegate": "dla", "dla_core": 1}).result
    assert result["engine"]["fallback"] == [
        {"op": "REDUCE", "count": 1, "reason": "the DLA does not take it, and the GPU computes it: node_mean"}
    ]
    assert result["facts"]["device"] == "DLA core 1, without CUDA graphs, by TensorRT's trtexec"
    assert all("--useDLACore=1" in words for words in board.commands() if words != ["--help"])
    assert not any("--useCudaGraph" in words or "--stronglyTyped" in words for words in board.commands())


def test_sizes_that_vary_are_given_to_the_builder_and_to_each_run(board, ask_runner):
    board.has_trtexec()
    ask_runner(options={"profile.forward.x": "1x16,1x16,4x16"}).result  # noqa: B018
    build, *runs = [words for words in board.commands() if words != ["--help"]]
    assert {"--minShapes='x':1x16", "--maxShapes='x':4x16"} <= set(build)
    assert all("--shapes='x':1x16" in words for words in runs)


@pytest.mark.parametrize(
    ("trouble", "stage", "kind", "message"),
    [
        ("refused", "build", "unsupported", "TensorRT 10.3.0 refuses the model: operator Det, node 'head/determinant'"),
        ("killed", "build", "runtime", "trtexec of TensorRT 10.3.0 was killed by signal 9, perhaps because memory ran"),
        ("build memory", "build", "memory", "(out of memory); Engine set up failed"),
        ("no gpu", "build", "unsupported", "cannot use the GPU: Cannot find any available devices (GPUs)!"),
        ("memory", "first", "memory", "(out of memory); Inference set up failed"),
        ("cut short", "first", "runtime", "what trtexec wrote is not understood: --exportTimes wrote what is not JSON"),
        ("killed while running", "first", "runtime", "was killed by signal 9"),
    ],
)
def test_what_goes_wrong_with_trtexec(trouble, stage, kind, message, board, ask_runner):
    board.has_trtexec(trouble=trouble)
    error = ask_runner().error
    assert (error["stage"], error["kind"]) == (stage, kind) and message in error["message"]
    assert stage != "build" or board.engines == []


def test_an_engine_of_another_version_says_which_versions_met(board, ask_runner):
    board.has_trtexec((10, 3, 0))
    other = json.dumps({"version": [10, 7, 0], "nodes": []}).encode() + b"\n" + tiny.onnx_program()
    error = ask_runner(program=other, name="forward.engine").error
    assert error["kind"] == "unsupported"
    assert "expecting library version 10.3.0 got 10.7.0" in error["message"]


def test_what_trtexec_cannot_do(board, ask, folder, make_request, ask_runner):
    board.has_trtexec()
    (folder / "forward.onnx").write_bytes(tiny.onnx_program())
    tiny.write_npz(folder / "reference.npz", tiny.reference(("a", "b")))
    error = ask("tensorrt", make_request(folder, "forward.onnx", parts=("a", "b"), options=OPTIONS)).error
    assert "trtexec times one part at a time, and the bundle has 2" in error["message"]
    error = ask_runner(sustain={"time_s": 1, "window_s": 1}).error
    assert "cannot run sustained: install TensorRT's Python package" in error["message"]
    error = ask_runner(("--session",), timing=None).error
    assert "tensorrt 10.3.0 here takes a whole run at a time and answers no single calls" in error["message"]


def test_a_trtexec_that_is_too_old(board, ask_runner):
    board.has_trtexec((8, 6, 2))
    program = board.root / "bin" / "trtexec"
    program.write_text(f"#!{sys.executable}\nprint('&&&& RUNNING TensorRT.trtexec [TensorRT v8602] # trtexec --help')")
    error = ask_runner().error
    assert error["kind"] == "unsupported" and "is of TensorRT 8.6.2; 10.0.0 or newer is needed" in error["message"]


def test_a_device_without_tensorrt(board, ask_runner):
    error = ask_runner().error
    assert (error["stage"], error["kind"]) == ("import", "unsupported")
    assert "TensorRT is not on this device: its Python package cannot be imported" in error["message"]
    assert "sudo apt install nvidia-jetpack" in error["message"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": 1}, "the tensorrt runner has no option 'speed'; known: compute_capabilities"),
        ({"delegate": "npu"}, "option 'delegate' cannot be 'npu'"),
        ({"tf32": 1}, "option 'tf32' cannot be 1"),
        ({"profile.forward.x": "1x2"}, "option 'profile.forward.x' cannot be '1x2'"),
        ({"delegate": "rtx"}, "the options lack version, compute_capabilities"),
    ],
)
def test_options_that_are_none(options, message, board, ask_runner):
    assert message in ask_runner(options=options).error["message"]


# The Python package.


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the driver's stand-in."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("driver")
    words = [compiler, "-shared", "-fPIC", "-O1", "-o", str(folder / "libcuda.so.1"), str(HERE / "libcuda.c")]
    subprocess.run(words, check=True)
    return folder


@pytest.fixture
def package(board, driver, monkeypatch: pytest.MonkeyPatch) -> Board:
    """A board with a GPU and TensorRT's Python package."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    monkeypatch.setenv("PYTHONPATH", str(HERE / "stand_in"))
    return board


@pytest.mark.parametrize(("version", "graphs"), [("10.3.0", True), ("11.1.0", False)])
def test_a_whole_run_by_the_python_package(version, graphs, package, ask_runner, monkeypatch, tmp_path):
    monkeypatch.setenv("STAND_IN_TENSORRT", version)
    outputs = tmp_path / "out.npz"
    answer = ask_runner(outputs=str(outputs), options={"cuda_graphs": graphs, "workspace_mib": 64})
    assert answer.messages[0]["version"] == version
    result = answer.result
    gpu = result["gpu"]
    assert (gpu["name"], gpu["compute_capability"]) == ("Test GPU", "8.6")
    assert gpu["steps"]["compute"] == gpu["latency"]["p50"] > 0 and gpu["steps"]["enqueue"] > 0
    assert gpu["memory"]["method"].startswith("growth of the GPU's used memory")
    engine = result["engine"]
    assert engine["builder"] == f"TensorRT {version}" and engine["build_s"] > 0
    assert [(layer["nodes"], layer["ms"]) for layer in engine["layers"]] == [([name], 0.25) for name in NODES]
    assert len(package.engines) == 1 and engine["size_bytes"] == package.engines[0].stat().st_size
    with np.load(outputs) as found:
        np.testing.assert_allclose(found["reference/forward/outputs/y"], tiny.layer(tiny.inputs(3)), rtol=1e-5)
    again = ask_runner(options={"cuda_graphs": graphs, "workspace_mib": 64})
    assert again.result["engine"]["build_s"] is None


def test_a_session_by_the_python_package(package, ask_runner):
    calls = b""
    for x in tiny.inputs(2):
        one = {"name": "x", "dtype": "float32", "shape": x.shape}
        call = {"part": "forward", "inputs": [one], "kept": {}, "outputs": ["y"], "memory": False}
        calls += json.dumps(call).encode() + b"\n" + x.tobytes()
    answer = ask_runner(("--session",), calls, timing=None)
    assert len(answer.of("answer")) == 2 and "engine" not in answer.result


def test_the_hosts_schema_takes_what_both_say(package, ask_runner, monkeypatch):
    from edge_sdk.devices._protocol import conversation

    by_package = ask_runner().messages
    for name in ("PYTHONPATH", "LD_LIBRARY_PATH"):
        monkeypatch.delenv(name)
    package.has_trtexec()
    for messages in (by_package, ask_runner().messages):
        lines = [json.dumps(message).encode() for message in messages]
        *_, result = conversation(lines, "local", "tensorrt", lambda: "")
        assert len(result.engine.layers) == 2 and result.gpu.steps.compute > 0


def test_a_dla_by_the_python_package(package, ask_runner):
    result = ask_runner(options={"delegate": "dla", "dla_core": 0}).result
    assert result["engine"]["fallback"][0]["op"] == "REDUCE"
    error = ask_runner(options={"delegate": "dla", "dla_core": 7}).error
    assert "finds 2 DLA cores on this device, and core 7 was asked for" in error["message"]


@pytest.mark.parametrize(
    ("variable", "trouble", "stage", "kind", "message"),
    [
        ("STAND_IN_TROUBLE", "refused", "build", "unsupported", "operator MatMul, node 'MatMul': Assertion failed"),
        ("STAND_IN_TROUBLE", "abort", "build", "runtime", "the builder was killed by signal 6, and there is no engine"),
        ("STAND_IN_TROUBLE", "build memory", "build", "memory", "cannot build the engine: Error Code 1: Cuda Runtime"),
        ("STAND_IN_TROUBLE", "run", "load", "runtime", "TensorRT cannot run the engine"),
        ("STAND_IN_TENSORRT", "9.2.0", "import", "unsupported", "TensorRT 9.2.0 is too old: 10.0 or newer"),
        ("STAND_IN_CUDA", "no gpu", "import", "unsupported", "the engine is for an NVIDIA GPU, and cuInit failed"),
        ("STAND_IN_CUDA", "memory", "load", "memory", "the memory of Test GPU is full (64 of 8192 MiB are free now)"),
    ],
)
def test_what_goes_wrong_with_the_python_package(
    variable, trouble, stage, kind, message, package, ask_runner, monkeypatch
):
    monkeypatch.setenv(variable, trouble)
    error = ask_runner().error
    assert (error["stage"], error["kind"]) == (stage, kind) and message in error["message"]


def test_an_rtx_engine_of_another_version_or_gpu(package, ask_runner, monkeypatch, tmp_path):
    folder = tmp_path / "packages"
    folder.mkdir()
    shutil.copy(HERE / "stand_in" / "tensorrt.py", folder / "tensorrt_rtx_bindings.py")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("STAND_IN_TENSORRT", "1.7.1")
    options = {"delegate": "rtx", "version": "1.6.0", "compute_capabilities": "8.6,8.9", "cuda_graphs": True}
    ready = b"ENGINE 1.7.1\n" + tiny.onnx_program()
    ask = {"program": ready, "name": "forward.engine"}
    error = ask_runner(options=options, **ask).error
    assert "the engine was built by TensorRT for RTX 1.6.0, and this is 1.7.1; compile it again" in error["message"]
    error = ask_runner(options={**options, "version": "1.7.1", "compute_capabilities": "8.9,12.0"}, **ask).error
    assert "built for compute capability 8.9, 12.0, and Test GPU here has 8.6; name it" in error["message"]
    result = ask_runner(options={**options, "version": "1.7.1"}, **ask).result
    assert result["engine"]["builder"] == "TensorRT for RTX 1.7.1" and result["engine"]["build_s"] is None
    assert [layer["ms"] for layer in result["engine"]["layers"]] == [0.25, 0.25]
    assert package.engines == []


def test_a_jetsons_bundle_runs_is_verified_and_reported(board, monkeypatch):
    """The whole way from a network to a report, the device being this machine with a trtexec that stands in."""
    pytest.importorskip("torch")
    from _models import conv_model

    import edge_sdk
    from edge_sdk.devices import open_device
    from edge_sdk.profiling.measure import measure
    from edge_sdk.profiling.report import build_report
    from edge_sdk.reporting.engine import engine_rows
    from edge_sdk.schema.request import Timing

    monkeypatch.setenv("HOME", str(board.root))  # where engines are kept: a local runner gets little else of it
    board.has_trtexec((10, 3, 0), "unstable")
    bundle = edge_sdk.compile(conv_model(), "jetson-orin-nano", quantize="int8-static", runtime="tensorrt")
    timing = Timing(min_runs=20, min_time_s=0.05, max_time_s=0.3, warmup_max_s=0.2)
    said: list[str] = []
    with open_device("local") as device:
        found = measure(bundle, device, timing=timing, energy=False, progress=said.append)
    assert "building the engine on local" in said
    report = build_report(bundle, found)
    assert report.runtime.version == "10.3.0" and report.numerics.cosine > 0.99
    assert not [warning for warning in report.conditions.warnings if warning.startswith("compiled with")]
    assert report.engine is not None and len(report.engine.layers) > 10
    assert {"node_conv2d", "node_linear"} <= {node for layer in report.engine.layers for node in layer.nodes}
    rows = dict(engine_rows(report))
    assert rows["Steps"] == "0.100 ms to the GPU, 1.82 computing, 0.0500 back; 0.200 to enqueue"
    assert rows["Engine"].startswith("trtexec of TensorRT 10.3.0, ") and "built in" in rows["Engine"]
    assert rows["Layers"].startswith(f"{len(report.engine.layers)} layers: ")
