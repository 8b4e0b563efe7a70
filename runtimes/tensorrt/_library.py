"""TensorRT by its Python package: engines that stay loaded, with their buffers and, where asked for, a CUDA graph.

An inference brings its inputs to the GPU, computes, and brings the outputs back, as ``trtexec`` counts it too.
"""

from __future__ import annotations

from time import perf_counter, perf_counter_ns

import _cuda
import _gpu
from _request import Refused
from _stats import percentile

STEP_RUNS, STEP_S = 500, 1.0
PROFILE_RUNS, PROFILE_S = 20, 2.0
MIB = 1 << 20
NUMPY = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}
STEPS = ("host_to_device", "compute", "device_to_host")


class Engine:
    """A loaded engine, as the harness's `Loaded`.

    Args:
        trt: TensorRT's module.
        driver: The `_cuda.Driver`.
        log: TensorRT's logger, with its ``errors``.
        path: Path of the engine.
        part: The part of the request.
        graphs: Whether what an inference computes is captured as a CUDA graph.
        dla_core: The DLA core it was built for, or None.
    """

    def __init__(self, trt, driver, log, path, part, graphs, dla_core):
        self._trt, self._driver, self._log, self._part = trt, driver, log, part
        self._graphs = graphs
        runtime = trt.Runtime(log)
        if dla_core is not None:
            runtime.DLA_core = dla_core
        with open(path, "rb") as file:
            content = file.read()
        engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise Refused(
                "TensorRT %s does not take the engine: %s"
                % (trt.__version__, "; ".join(log.errors[-3:]) or "it gave no reason"),
                "unsupported",
            )
        self._runtime, self._engine = runtime, engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = {name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT}
        if inputs != set(part["inputs"]) or set(names) - inputs != set(part["outputs"]):
            raise Refused(
                "the engine takes %s and gives %s; part '%s' is to take %s and give %s"
                % (sorted(inputs), sorted(set(names) - inputs), part["name"], part["inputs"], part["outputs"]),
                "unsupported",
            )
        self._context = engine.create_execution_context()
        if self._context is None:
            raise Refused(
                "TensorRT %s cannot make room for the engine: %s" % (trt.__version__, "; ".join(log.errors[-3:])),
                "memory",
            )
        self._stream = _cuda.Stream(driver)
        self._buffers, self._shapes, self.launch = {}, {}, None

    def bind(self, feed):
        """The call with inputs of these shapes, from main memory to main memory."""
        self._write(feed)
        uploads = [self._buffers[name].upload for name in self._part["inputs"]]
        downloads = [self._buffers[name].download for name in self._part["outputs"]]
        stream, wait = self._stream.raw, self._stream.wait
        enqueue = self.launch = self._launch()

        def call():
            for upload in uploads:
                upload(stream)
            enqueue()
            for download in downloads:
                download(stream)
            wait()

        self._call = call
        return call

    def feed(self, feed):
        """The same call with other values, where the shapes are those of before: a graph is not captured anew."""
        if self._shapes != {name: feed[name].shape for name in self._part["inputs"]}:
            return self.bind(feed)
        for name in self._part["inputs"]:
            self._buffers[name].write(self._contiguous(feed, name))
        return self._call

    def arrays(self, result):
        """The outputs of the last call."""
        import numpy

        del result
        found = []
        for name in self._part["outputs"]:
            array = numpy.empty(tuple(self._context.get_tensor_shape(name)), self._type(name))
            self._buffers[name].read(array)
            found.append(array)
        return found

    def layers(self):
        """TensorRT's layer information of the engine."""
        inspector = self._engine.create_engine_inspector()
        return inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)

    def steps(self):
        """Milliseconds of the steps of many inferences, one after the other: STEPS and ``enqueue``."""
        driver, stream = self._driver, self._stream
        marks = [_cuda.Event(driver) for _ in range(4)]
        spans = {name: [] for name in (*STEPS, "enqueue")}
        end = perf_counter() + STEP_S
        while not spans["compute"] or (len(spans["compute"]) < STEP_RUNS and perf_counter() < end):
            marks[0].record(stream)
            for name in self._part["inputs"]:
                self._buffers[name].upload(stream.raw)
            marks[1].record(stream)
            begin = perf_counter_ns()
            self.launch()
            spans["enqueue"].append((perf_counter_ns() - begin) / 1e6)
            marks[2].record(stream)
            for name in self._part["outputs"]:
                self._buffers[name].download(stream.raw)
            marks[3].record(stream)
            stream.wait()
            for place, name in enumerate(STEPS):
                spans[name].append(marks[place + 1].since(marks[place]))
        return spans

    def layer_times(self):
        """Name and median milliseconds of each layer, by TensorRT's profiler, without a CUDA graph."""
        trt = self._trt

        class Profiler(trt.IProfiler):
            def __init__(self):
                trt.IProfiler.__init__(self)
                self.spans = {}

            def report_layer_time(self, layer_name, ms):
                self.spans.setdefault(layer_name, []).append(ms)

        profiler = Profiler()
        self._context.profiler = profiler
        end = perf_counter() + PROFILE_S
        for _ in range(PROFILE_RUNS):
            self._enqueue()
            self._stream.wait()
            if perf_counter() > end:
                break
        return [(name, percentile(sorted(spans), 0.5)) for name, spans in profiler.spans.items()]

    def _write(self, feed):
        context, driver = self._context, self._driver
        for name in self._part["inputs"]:
            if not context.set_input_shape(name, tuple(feed[name].shape)):
                raise Refused(
                    "the engine takes no input '%s' of shape %s: %s"
                    % (name, list(feed[name].shape), "; ".join(self._log.errors[-2:])),
                    "data",
                )
        self._shapes = {name: feed[name].shape for name in self._part["inputs"]}
        for name in (*self._part["inputs"], *self._part["outputs"]):
            size = _product(context.get_tensor_shape(name)) * _itemsize(self._type(name))
            if name not in self._buffers or self._buffers[name].size != size:
                if name in self._buffers:
                    self._buffers.pop(name).free()
                self._buffers[name] = _cuda.Buffer(driver, size)
            context.set_tensor_address(name, self._buffers[name].device)
        for name in self._part["inputs"]:
            self._buffers[name].write(self._contiguous(feed, name))

    def _contiguous(self, feed, name):
        import numpy

        return numpy.ascontiguousarray(feed[name], self._type(name))

    def _type(self, name):
        kind = self._engine.get_tensor_dtype(name).name
        if kind not in NUMPY:
            raise Refused("tensor '%s' of the engine is of type %s, which numpy has not" % (name, kind), "unsupported")
        return NUMPY[kind]

    def _enqueue(self):
        if not self._context.execute_async_v3(self._stream.handle):
            raise RuntimeError("TensorRT cannot run the engine: %s" % "; ".join(self._log.errors[-3:]))

    def _launch(self):
        """What enqueues the computing of one inference."""
        self._enqueue()  # what is set up at the first time cannot be captured
        self._stream.wait()
        return self._stream.capture(self._enqueue) if self._graphs else self._enqueue


def figures(driver, watch, engines, free_before):
    """``gpu`` of the result: the GPU's own latency, the steps, its memory, and what it was doing."""
    all_steps = [engine.steps() for engine in engines]
    runs = min(len(steps["compute"]) for steps in all_steps)
    # An inference is every part once.
    sums = {name: [sum(steps[name][at] for steps in all_steps) for at in range(runs)] for name in all_steps[0]}
    told = {
        "name": driver.name,
        "compute_capability": driver.capability,
        "latency": _gpu.latency(sums["compute"]),
        "memory": memory(driver, watch, free_before),
        "steps": dict({name: percentile(sorted(spans), 0.5) for name, spans in sums.items()}, unit="ms"),
    }
    return dict(told, **watch.figures())


def memory(driver, watch, free_before):
    """``gpu.memory`` of the result."""
    held, method = watch.process_mib(), "NVML's memory of the runner's process"
    if held is None:
        held = max(0, free_before - driver.memory()[0]) / MIB
        method = "growth of the GPU's used memory since before loading, by cuMemGetInfo; others' counts too"
    return {"unit": "MiB", "process": held, "method": method, "activations_peak": None}


def _product(sizes):
    count = 1
    for size in sizes:
        count *= size
    return count


def _itemsize(name):
    import numpy

    return numpy.dtype(name).itemsize
