"""The AOTInductor runner: what it refuses, and a run on a GPU that a module in PyTorch's place makes up."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import tiny

RUNNER = Path(__file__).parents[2] / "runtimes" / "aotinductor" / "runner.py"

# What the runner uses of PyTorch with a GPU. The package doubles its input; `trouble` says what goes wrong in it.
TORCH = """
import runpy, sys, time
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace as Some

TROUBLE = {trouble!r}
launches = []

class Tensor:
    def __init__(self, array): self.array, self.shape = array, array.shape
    def to(self, device): return Tensor(self.array.copy())
    def copy_(self, other): self.array[:] = other.array
    def cpu(self): return self
    def numpy(self): return self.array

class Doubled(Tensor):
    # Of whatever its input holds when it is read, as what a captured graph gives.
    def numpy(self): return self.array * 2

class Loader:
    def __init__(self, path, name, single, runners, device):
        if TROUBLE == "load": raise RuntimeError("CUDA error: out of memory")
        self.runs = 0
        assert single is True and name == "model"
    def run(self, inputs):
        launches.append("run")
        self.runs += 1
        if TROUBLE == "captured twice" and self.runs > 4: raise RuntimeError("it was captured again")
        if TROUBLE == "run": raise RuntimeError("run_func_(...) API call failed at container_runner.cpp, line 146")
        return [Doubled(inputs[0].array)]

class Event:
    def __init__(self, enable_timing): assert enable_timing
    def record(self): self.at = time.perf_counter()
    def synchronize(self): pass
    def elapsed_time(self, later): return (later.at - self.at) * 1e3

class CUDAGraph:
    def replay(self): launches.append("replay")

@contextmanager
def nothing(*_): yield

cuda = Some(
    is_available=lambda: TROUBLE != "no gpu", get_device_capability=lambda: (9, 0), get_device_name=lambda: "Test GPU",
    get_device_properties=lambda index: Some(), mem_get_info=lambda: (64 << 20, 80 << 30),
    memory_stats=lambda: dict(num_ooms=int(TROUBLE == "run")), max_memory_allocated=lambda: 5 << 20,
    current_stream=lambda: Some(synchronize=lambda: None), synchronize=lambda: None, Stream=object, stream=nothing,
    graph=nothing, CUDAGraph=CUDAGraph, Event=Event,
)
torch = ModuleType("torch")
torch.__version__, torch.version, torch.cuda = "2.13.0+cu130", Some(cuda="13.0"), cuda
torch.backends = Some(cuda=Some(matmul=Some()), cudnn=Some())
torch.from_numpy, torch.get_num_threads, torch.set_num_threads = Tensor, (lambda: 1), (lambda count: None)
torch._C = Some(_aoti=Some(AOTIModelPackageLoader=Loader))
sys.modules["torch"] = torch
sys.argv[0] = {runner!r}
runpy.run_path({runner!r}, run_name="__main__")
"""

GPU = {
    "device": "cuda",
    "torch": "2.13.0+cu130",
    "compute_capability": "9.0",
    "cuda": "13.0",
    "driver": "580.65.06",
    "cuda_graphs": True,
    "tf32": False,
}


@pytest.fixture
def ask_gpu(ask, folder, make_request, tmp_path):
    """Runs the runner on the made-up GPU."""

    def run(trouble: str = "", words=(), stdin=b"", **changes):
        options = {**GPU, **changes.pop("options", {})}
        (folder / "forward.pt2").write_bytes(b"")
        script = tmp_path / "runner.py"
        script.write_text(TORCH.format(trouble=trouble, runner=str(RUNNER)))
        request = make_request(folder, "forward.pt2", options=options, **changes)
        for part in request["parts"]:
            part["entry"] = "model"
        return ask(script, request, words, stdin)

    return run


@pytest.mark.parametrize("graphs", [True, False])
def test_a_whole_run_on_a_gpu(graphs, ask_gpu, tmp_path):
    outputs = tmp_path / "out.npz"
    answer = ask_gpu(outputs=str(outputs), options={"cuda_graphs": graphs})
    assert answer.messages[0]["version"] == "2.13.0+cu130"
    gpu = answer.result["gpu"]
    assert (gpu["name"], gpu["compute_capability"]) == ("Test GPU", "9.0")
    assert 0 < gpu["latency"]["min"] <= gpu["latency"]["p50"] <= gpu["latency"]["max"] and gpu["latency"]["samples"] > 1
    assert gpu["memory"]["activations_peak"] == 5.0 and gpu["memory"]["method"].startswith("growth of the GPU's used")
    # No driver is here to tell of clocks and throttling: nothing is made up.
    assert gpu["sm_mhz"] is None and gpu["throttle_reasons"] is None and gpu["driver"] is None
    assert answer.result["facts"]["device"] == f"Test GPU, {'with' if graphs else 'without'} CUDA graphs"
    with np.load(outputs) as found:
        np.testing.assert_array_equal(found["reference/forward/outputs/y"], tiny.inputs(3) * 2)


@pytest.mark.parametrize("graphs", [True, False])
def test_a_session_feeds_other_inputs_to_the_same_graph(graphs, ask_gpu):
    calls = b""
    for x in tiny.inputs(3):
        one = {"name": "x", "dtype": "float32", "shape": x.shape}
        call = {"part": "forward", "inputs": [one], "kept": {}, "outputs": ["y"], "memory": True}
        calls += json.dumps(call).encode() + b"\n" + x.tobytes()
    trouble = "captured twice" if graphs else ""
    changes = {"timing": None, "options": {"cuda_graphs": graphs}}
    answer = ask_gpu(trouble, words=("--session",), stdin=calls, **changes)
    assert answer.result["latency"] is None
    told = answer.of("answer")
    assert [one["memory"]["gpu_mib"] for one in told] == [0.0, 0.0, 0.0]
    for x, one in zip(tiny.inputs(3), told, strict=True):
        found = np.frombuffer(base64.b64decode(one["outputs"][0]["data"]), np.float32)
        np.testing.assert_array_equal(found.reshape(x.shape), x * 2)


def test_the_hosts_schema_takes_what_the_runner_says(ask_gpu):
    from edge_sdk.devices._protocol import conversation

    lines = [json.dumps(message).encode() for message in ask_gpu().messages]
    *_, result = conversation(lines, "local", "aotinductor", lambda: "")
    assert result.gpu.name == "Test GPU"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"torch": "2.12.1"}, "compiled with PyTorch 2.12.1, and this is PyTorch 2.13.0+cu130; compile it again"),
        ({"cuda": "12.8"}, "compiled with CUDA 12.8, and PyTorch 2.13.0+cu130 here is built with CUDA 13.0"),
        ({"compute_capability": "8.6"}, "compiled for compute capability 8.6, and Test GPU here has 9.0"),
        ({"speed": "high"}, "the aotinductor runner has no option 'speed'; known: device, torch"),
        ({"device": "tpu"}, "option 'device' cannot be 'tpu'"),
        ({"cuda_graphs": 1}, "option 'cuda_graphs' cannot be 1"),
    ],
)
def test_a_package_of_another_machine_or_version_is_refused(options, message, ask_gpu):
    error = ask_gpu(options=options).error
    assert (error["kind"], error["stage"]) == ("unsupported", "import")
    assert message in error["message"]


def test_a_machine_without_a_gpu_is_refused(ask_gpu):
    error = ask_gpu("no gpu").error
    assert error["kind"] == "unsupported"
    assert "the package is for an NVIDIA GPU, and PyTorch 2.13.0+cu130 sees none here" in error["message"]


def test_options_that_are_missing_are_named(ask, folder, make_request):
    (folder / "forward.pt2").write_bytes(b"")
    error = ask("aotinductor", make_request(folder, "forward.pt2", options={"device": "cuda"})).error
    assert error["message"] == "the options lack torch, compute_capability, cuda"


@pytest.mark.parametrize(("trouble", "stage"), [("load", "load"), ("run", "first")])
def test_a_gpu_whose_memory_is_full(trouble, stage, ask_gpu):
    error = ask_gpu(trouble).error
    assert (error["kind"], error["stage"]) == ("memory", stage)
    assert error["message"] == (
        "the memory of Test GPU is full (64 of 81920 MiB are free now): end other programs on it, or compile for a "
        "smaller batch or input"
    )


def test_a_package_for_other_vector_instructions_is_refused(ask, folder, make_request):
    torch = pytest.importorskip("torch")
    (folder / "forward.pt2").write_bytes(b"")
    options = {"device": "cpu", "torch": torch.__version__, "cpu_capability": "AVX1024"}
    error = ask("aotinductor", make_request(folder, "forward.pt2", options=options)).error
    assert "the package uses the processor's AVX1024 instructions, and PyTorch finds " in error["message"]


def test_a_package_that_is_none(ask, folder, make_request):
    torch = pytest.importorskip("torch")
    (folder / "forward.pt2").write_bytes(b"nonsense")
    capability = torch.backends.cpu.get_cpu_capability()
    options = {"device": "cpu", "torch": torch.__version__, "cpu_capability": capability}
    answer = ask("aotinductor", make_request(folder, "forward.pt2", options=options))
    assert (answer.error["stage"], answer.error["kind"]) == ("load", "runtime")
