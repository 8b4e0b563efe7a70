"""Runs AOTInductor packages (.pt2). ``python runner.py REQUEST.json``; see docs/runner-protocol.md."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import _gpu
import harness

# That folder holds folders named like the packages that are yet to be imported.
del sys.path[0]

OPTIONS = {
    "device": str,
    "torch": str,
    "cuda_graphs": bool,
    "tf32": bool,
    "compute_capability": str,
    "cuda": str,
    "driver": str,
    "cpu_capability": str,
}
NEEDED = {"cuda": ("device", "torch", "compute_capability", "cuda"), "cpu": ("device", "torch", "cpu_capability")}
VECTORS = ("DEFAULT", "AVX2", "AVX512")
WARM_RUNS = 3
EVENT_RUNS, EVENT_S = 500, 1.0
MIB = 1 << 20


class Package(harness.Loaded):
    """A loaded package on the processor."""

    def __init__(self, torch, loader):
        self._torch, self._run = torch, loader.run

    def bind(self, feed):
        """The package's call with tensors; it makes new outputs at each call."""
        return partial(self._run, [self._torch.from_numpy(array) for array in feed.values()])

    def arrays(self, result):
        """Outputs as arrays of their own memory."""
        return [output.numpy().copy() for output in result]


class GpuPackage(harness.Loaded):
    """A loaded package on a GPU.

    Args:
        torch: The module.
        loader: The package.
        graphs: Whether an inference is captured as a CUDA graph, at its first call.
    """

    def __init__(self, torch, loader, graphs):
        self.first = None
        self._torch, self._run, self._graphs = torch, loader.run, graphs
        self._inputs = self._call = None

    def bind(self, feed):
        """The call with inputs that lie on the GPU, until its results are there."""
        inputs = [self._torch.from_numpy(array).to("cuda") for array in feed.values()]
        launch = _Captured(self._torch, self._run, inputs) if self._graphs else partial(self._run, inputs)
        self.first = self.first or launch
        wait = self._torch.cuda.current_stream().synchronize

        def call():
            result = launch()
            wait()
            return result

        self._inputs, self._call = inputs, call
        return call

    def feed(self, feed):
        """The same call again with other values in its inputs: a CUDA graph is not captured anew."""
        arrays = [self._torch.from_numpy(array) for array in feed.values()]
        if self._inputs is None or [one.shape for one in arrays] != [one.shape for one in self._inputs]:
            return self.bind(feed)
        for place, array in enumerate(arrays):
            self._inputs[place].copy_(array)
        return self._call

    def arrays(self, result):
        """Outputs as arrays in main memory."""
        return [output.cpu().numpy().copy() for output in result]


class _Captured:
    """An inference as a CUDA graph. Its inputs and outputs stay where they are."""

    def __init__(self, torch, run, inputs):
        self._torch, self._run, self._inputs = torch, run, inputs
        self._graph = self._outputs = None

    def __call__(self):
        if self._graph is None:
            self._capture()
        self._graph.replay()
        return self._outputs

    def _capture(self):
        torch = self._torch
        torch.cuda.synchronize()
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            # What libraries set up at their first calls cannot be captured.
            for _ in range(WARM_RUNS):
                self._run(self._inputs)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._outputs = self._run(self._inputs)
        self._graph = graph


class AotInductor(harness.Runtime):
    """PyTorch's loader of AOTInductor packages; neither its compiler nor ``torch.export`` is imported."""

    name = "aotinductor"

    def __init__(self):
        self._parts = []
        self._watch = None

    def start(self, threads, options):
        """Imports torch and compares this machine with the one that the package was compiled on.

        Options: ``device`` (cuda, cpu), ``torch`` (the version it was compiled with), for ``cuda``
        ``compute_capability``, ``cuda``, ``driver``, ``cuda_graphs`` (bool), ``tf32`` (bool), for ``cpu``
        ``cpu_capability``.
        """
        self._options = _checked(options)
        import torch

        self._torch = torch
        _same_version(options["torch"], str(torch.__version__))
        if options["device"] == "cuda":
            self._start_gpu()
        else:
            _same_vectors(options["cpu_capability"], torch.backends.cpu.get_cpu_capability())
        if threads is not None:
            torch.set_num_threads(threads)
        return str(torch.__version__)

    def _start_gpu(self):
        torch, options = self._torch, self._options
        if not torch.cuda.is_available():
            raise harness.Refused(
                "the package is for an NVIDIA GPU, and PyTorch %s sees none here; see 'edge-sdk doctor'"
                % torch.__version__,
                "unsupported",
            )
        if options["cuda"] != torch.version.cuda:
            raise harness.Refused(
                "the package was compiled with CUDA %s, and PyTorch %s here is built with CUDA %s; compile it here"
                % (options["cuda"], torch.__version__, torch.version.cuda),
                "unsupported",
            )
        found = "%d.%d" % torch.cuda.get_device_capability()
        if options["compute_capability"] != found:
            raise harness.Refused(
                "the package was compiled for compute capability %s, and %s here has %s; compile it again here"
                % (options["compute_capability"], torch.cuda.get_device_name(), found),
                "unsupported",
            )
        tf32 = options.get("tf32", False)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        self._watch = _gpu.Watch(_bus(torch.cuda.get_device_properties(0)))
        self._free_before = torch.cuda.mem_get_info()[0]

    def load(self, part, path):
        """Loads a package."""
        cuda = self._options["device"] == "cuda"
        # One caller at a time: the locks for several would stand in the way of capturing a graph.
        loader = self._torch._C._aoti.AOTIModelPackageLoader(path, part["entry"], cuda, 1, -1)
        if not cuda:
            return Package(self._torch, loader)
        loaded = GpuPackage(self._torch, loader, self._options.get("cuda_graphs", False))
        self._parts.append(loaded)
        return loaded

    def threads(self):
        """Size of PyTorch's thread pool."""
        return self._torch.get_num_threads()

    def look(self):
        """Notes the GPU's clock and throttling."""
        return self._watch.look() if self._watch else None

    def memory_full(self, error):
        """Whether the GPU's memory was full, with how full it is."""
        if self._watch is None:
            return None
        torch = self._torch
        # The package itself says no more than that a call failed; the allocator knows whether it was that.
        full = "out of memory" in str(error).lower() or torch.cuda.memory_stats().get("num_ooms", 0) > 0
        if not full:
            return None
        free, total = torch.cuda.mem_get_info()
        return (
            "the memory of %s is full (%d of %d MiB are free now): end other programs on it, or compile for a "
            "smaller batch or input" % (torch.cuda.get_device_name(), free // MIB, total // MIB)
        )

    def gpu(self):
        """The GPU's own latency, by events around inferences that run after the timed part, and its state then."""
        if self._watch is None:
            return None
        torch = self._torch
        launches = [part.first for part in self._parts if part.first is not None]
        figures = {
            "name": torch.cuda.get_device_name(),
            "compute_capability": "%d.%d" % torch.cuda.get_device_capability(),
            "latency": _gpu.latency(self._events(launches)),
            "memory": self._memory(),
        }
        return dict(figures, **self._watch.figures())

    def _events(self, launches):
        cuda = self._torch.cuda
        spans, end = [], perf_counter() + EVENT_S
        while not spans or (len(spans) < EVENT_RUNS and perf_counter() < end):
            before, after = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
            before.record()
            for launch in launches:
                launch()
            after.record()
            after.synchronize()
            spans.append(before.elapsed_time(after))
        return spans

    def _memory(self):
        torch = self._torch
        held = self._watch.process_mib()
        method = "NVML's memory of the runner's process"
        if held is None:
            held = max(0, self._free_before - torch.cuda.mem_get_info()[0]) / MIB
            method = "growth of the GPU's used memory since before loading, by cudaMemGetInfo; others' counts too"
        peak = torch.cuda.max_memory_allocated() / MIB
        return {"unit": "MiB", "process": held, "method": method, "activations_peak": peak}

    def gpu_mib(self):
        """By NVML, or how much the GPU's used memory has grown since before loading."""
        return None if self._watch is None else self._memory()["process"]

    def facts(self):
        """The device in use."""
        if self._options["device"] == "cpu":
            return {"device": "cpu, %s" % self._options["cpu_capability"]}
        graphs = "with" if self._options.get("cuda_graphs") else "without"
        return {"device": "%s, %s CUDA graphs" % (self._torch.cuda.get_device_name(), graphs)}


def _checked(options):
    for name, value in options.items():
        if name not in OPTIONS:
            raise harness.Refused(
                "the aotinductor runner has no option '%s'; known: %s" % (name, ", ".join(OPTIONS)), "unsupported"
            )
        if type(value) is not OPTIONS[name] or (name == "device" and value not in NEEDED):
            raise harness.Refused("option '%s' cannot be %.60r" % (name, value), "unsupported")
    missing = [name for name in NEEDED.get(options.get("device"), ("device",)) if name not in options]
    if missing:
        raise harness.Refused("the options lack %s" % ", ".join(missing), "unsupported")
    return options


def _same_version(compiled, here):
    # What follows a plus is the build's name; builds differ by their CUDA, which is compared by itself.
    if compiled.partition("+")[0] != here.partition("+")[0]:
        raise harness.Refused(
            "the package was compiled with PyTorch %s, and this is PyTorch %s; compile it again with this one"
            % (compiled, here),
            "unsupported",
        )


def _same_vectors(compiled, here):
    both = compiled in VECTORS and here in VECTORS
    if compiled != here and not (both and VECTORS.index(compiled) < VECTORS.index(here)):
        raise harness.Refused(
            "the package uses the processor's %s instructions, and PyTorch finds %s here; compile it again here"
            % (compiled, here),
            "unsupported",
        )


def _bus(properties):
    """The GPU's PCI address, None where PyTorch does not tell it whole."""
    words = [getattr(properties, "pci_%s_id" % name, None) for name in ("domain", "bus", "device")]
    if not all(isinstance(word, int) for word in words):
        return None
    return "%08x:%02x:%02x.0" % tuple(words)


if __name__ == "__main__":
    sys.exit(harness.main(AotInductor()))
