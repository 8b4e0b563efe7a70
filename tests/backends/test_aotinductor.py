"""AOTInductor's packages: compiled for the processor and run there, and what is refused before any work."""

from __future__ import annotations

import json

import pytest
from _models import conv_model, example, mlp_model, nn, seeded, tiny, torch

import edge_sdk
from edge_sdk import _nvidia
from edge_sdk.backends.aotinductor import AotInductorBackend, _machine
from edge_sdk.devices import open_device
from edge_sdk.errors import DeviceError, ModelError, UnsupportedError
from edge_sdk.pipeline.plan import plans
from edge_sdk.profiling.measure import measure
from edge_sdk.quantization.base import make_quantizer
from edge_sdk.schema import load_target

TARGET = "desktop-cuda"
DRIVER = _nvidia.Driver("580.65.06", (13, 0), (_nvidia.Gpu("Test GPU", "9.0", 81559, 80000),))


def _planned(method: str, runtime: str = "auto"):
    return plans(load_target(TARGET), mlp_model(), make_quantizer(method), runtime)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose driver and PyTorch fit a GPU, as far as planning looks."""
    monkeypatch.setattr(_nvidia, "driver", lambda: DRIVER)
    monkeypatch.setattr(_nvidia, "torch_build", lambda: _nvidia.TorchBuild("2.13.0", "13.0"))


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> _nvidia.Driver:
        raise OSError("the NVIDIA driver sees no GPU")

    monkeypatch.setattr(_nvidia, "driver", nothing)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "method", "least_cosine"),
    [
        (conv_model, "bf16", 0.999),
        (conv_model, "int8-static", 0.999),
        (mlp_model, "int8-dynamic", 0.999),
    ],
)
def test_a_package_computes_what_the_model_computes(build, method, least_cosine, no_gpu):
    bundle = edge_sdk.compile(build(), TARGET, quantize=method)
    with open_device("local") as device:
        found = measure(bundle, device, timed=False)
    assert found.numerics.cosine >= least_cosine
    assert found.run.hello.version == bundle.manifest.runtime.version == torch.__version__
    partition = bundle.manifest.partition
    assert (partition.delegate, partition.pieces, partition.fallback) == ("cpu", 1, [])
    (warning,) = partition.warnings
    assert warning.startswith("compiled for cpu, not for cuda, which 'desktop-cuda' is about: cuda needs an NVIDIA GPU")
    options = bundle.manifest.runtime.options
    assert options == {"device": "cpu", "torch": torch.__version__, "cpu_capability": options["cpu_capability"]}


@pytest.mark.skipif(_nvidia.problem() is not None, reason="there is no NVIDIA GPU in this machine")
@pytest.mark.parametrize("method", ["fp32", "fp16", "bf16", "int8-static"])
def test_a_package_for_the_gpu_computes_what_the_model_computes(method):
    bundle = edge_sdk.compile(conv_model(), TARGET, quantize=method, runtime="aotinductor:cuda")
    with open_device("local") as device:
        found = measure(bundle, device, timed=False)
    assert bundle.manifest.partition.delegate == "cuda" and found.numerics.cosine >= 0.999


@pytest.mark.slow
def test_sizes_that_vary_stay_open_and_what_pytorchs_own_kernels_run_is_listed(no_gpu):
    class Histogram(nn.Module):
        """AOTInductor has no kernel for the histogram."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 4)

        def forward(self, x):
            return self.layer(x), torch.histc(x, 10)

    model = tiny(seeded(Histogram), example(2, 8), outputs=("y", "counts"), dynamic={"x": {0: (2, 16)}})
    bundle = edge_sdk.compile(model, TARGET)
    assert bundle.manifest.parts[0].inputs[0].shape == [None, 8]
    (left,) = bundle.manifest.partition.fallback
    assert (left.op, left.count) == ("histc", 1) and "PyTorch's own runs on the same device" in left.reason
    sample = {"forward": {"x": example(5, 8).numpy()}}
    with open_device("local") as device:
        found = measure(bundle, device, inputs=[sample], timed=False)
    assert found.outputs[0]["forward"]["y"].shape == (5, 4)


def test_without_a_gpu_the_processor_stands_in_and_says_why(no_gpu):
    found, refused = _planned("fp32")
    assert [plan.label for plan in found] == ["aotinductor (cpu)"]
    assert "needs an NVIDIA GPU with its driver, and the NVIDIA driver sees no GPU" in refused["aotinductor (cuda)"]


def test_with_a_gpu_the_processor_is_taken_only_where_it_is_named(gpu):
    found, refused = _planned("fp32")
    assert [plan.label for plan in found] == ["aotinductor (cuda)"]
    assert refused == {"aotinductor (cpu)": "taken only where it is named: --runtime aotinductor:cpu"}
    found, refused = _planned("fp32", "aotinductor:cpu")
    assert [plan.label for plan in found] == ["aotinductor (cpu)"] and refused == {}


def test_int4_weights_on_a_gpu_are_refused_and_the_processor_does_not_step_in_silently(gpu):
    with pytest.raises(
        UnsupportedError, match="INT4 weights on GPUs needs the package mslk.*--runtime aotinductor:cpu"
    ):
        _planned("int4-weight")


def test_an_unknown_delegate_names_those_that_there_are():
    with pytest.raises(
        UnsupportedError, match="does not allow runtime 'aotinductor:npu'.*: aotinductor, aotinductor:cpu"
    ):
        _planned("fp32", "aotinductor:npu")


def test_the_key_holds_gpu_capability_and_driver(gpu):
    assert AotInductorBackend.facts("cuda") == {
        "gpu": "Test GPU",
        "compute_capability": "9.0",
        "driver": "580.65.06",
        "driver_cuda": "13.0",
    }
    assert AotInductorBackend.facts("cpu")["cpu"]


@pytest.mark.parametrize(
    ("driver", "build", "message"),
    [
        ((12, 4), "13.0", "runs CUDA up to 12.4, and PyTorch 2.13.0 is built with CUDA 13.0: update the driver to 580"),
        ((13, 0), None, "PyTorch 2.13.0 here is for processors only; install the one for CUDA 13"),
    ],
)
def test_a_driver_or_a_build_that_does_not_fit(driver, build, message, monkeypatch):
    monkeypatch.setattr(_nvidia, "driver", lambda: _nvidia.Driver("550.54", driver, DRIVER.gpus))
    monkeypatch.setattr(_nvidia, "torch_build", lambda: _nvidia.TorchBuild("2.13.0", build))
    assert message in (_nvidia.problem() or "")


def test_a_gpu_that_is_too_old_for_pytorchs_cuda():
    old = _nvidia.Driver("580.65.06", (13, 0), (_nvidia.Gpu("Test GPU", "6.1", 8192, 8000),))
    message = _nvidia.misfit(old, _nvidia.TorchBuild("2.13.0", "13.0"))
    assert message == (
        "the GPU Test GPU has compute capability 6.1, and PyTorch 2.13.0 with CUDA 13.0 needs 7.5 or higher: install a "
        "PyTorch for an older CUDA"
    )
    assert _nvidia.misfit(old, _nvidia.TorchBuild("2.13.0", "12.8")) is None


def test_a_compiler_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "needs a C++ compiler, and there is no 'no-such-compiler' here" in (_machine.problem("cpu") or "")


def test_an_option_that_the_delegate_does_not_have():
    rule = load_target(TARGET).runtimes[1]
    with pytest.raises(UnsupportedError, match=r"aotinductor \(cpu\) has no option 'tf32'; it has: max_autotune"):
        _machine.check_options(rule.model_copy(update={"options": {"tf32": True}}))
    with pytest.raises(UnsupportedError, match="option 'max_autotune': found 'yes', expected true or false"):
        _machine.check_options(rule.model_copy(update={"options": {"max_autotune": "yes"}}))


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), DeviceError, "the GPU's memory was full while part 'forward'"),
        (RuntimeError("CUDA error: out of memory"), DeviceError, "end other programs on it, compile for a smaller"),
        (
            RuntimeError("no such operator"),
            ModelError,
            "AOTInductor cannot compile part 'forward': RuntimeError: no such",
        ),
    ],
)
def test_what_the_compiler_says_is_mapped(error, kind, message, no_gpu, monkeypatch):
    def fails(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fails)
    with pytest.raises(kind, match=message):
        edge_sdk.compile(mlp_model(), TARGET, use_cache=False)


def test_activations_become_unsigned_and_nothing_else_changes():
    from edge_sdk.backends.aotinductor._unsigned import with_unsigned_activations
    from edge_sdk.pipeline.capture import capture
    from edge_sdk.quantization.base import Data

    model = conv_model()
    done = make_quantizer("int8-static").apply_torch(capture(model), Data(model.samples("calibration")))
    (graph,) = done.graphs
    assert graph.torch is not None
    (x,) = graph.example_inputs
    shifted = with_unsigned_activations(graph.torch)
    assert torch.equal(graph.torch(x), shifted(x))
    assert "torch.uint8" in str(shifted.graph) and "torch.uint8" not in str(graph.torch.graph)


def test_a_report_has_room_for_what_the_gpu_tells(tmp_path):
    from edge_sdk.schema.report import Gpu

    told = {
        "name": "Test GPU",
        "latency": {"p50": 1.0, "p90": 1.1, "mean": 1.0, "min": 0.9, "max": 1.2, "samples": 9},
        "memory": {"process": 600.0, "method": "NVML", "activations_peak": 80.0},
        "throttle_reasons": ["software power cap"],
    }
    gpu = Gpu.model_validate_json(json.dumps(told))
    assert gpu.sm_mhz is None and gpu.throttle_reasons == ["software power cap"]
