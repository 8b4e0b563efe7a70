"""A stand-in for TensorRT's Python package: the calls that the runner and the builder make, computed by ONNX Runtime.

Its device memory is that of the driver's stand-in, which is main memory. ``$STAND_IN_TENSORRT`` is its version, and
``$STAND_IN_TROUBLE`` says what goes wrong.
"""

from __future__ import annotations

import ctypes
import enum
import json
import os

import numpy as np

__version__ = os.environ.get("STAND_IN_TENSORRT", "10.3.0")
_TROUBLE = os.environ.get("STAND_IN_TROUBLE", "")
_DRIVER = ctypes.CDLL("libcuda.so.1")
_MAGIC = b"ENGINE "
_TYPES = {"tensor(float)": ("FLOAT", np.float32), "tensor(int64)": ("INT64", np.int64)}


def _enum(name, *words):
    return enum.IntEnum(name, words, start=0)


class ILogger:
    Severity = _enum("Severity", "INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")

    def __init__(self):
        pass


class IProfiler:
    def __init__(self):
        pass


class IProgressMonitor:
    def __init__(self):
        pass


DataType = _enum("DataType", "FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8", "INT64", "BF16")
TensorIOMode = _enum("TensorIOMode", "NONE", "INPUT", "OUTPUT")
LayerInformationFormat = _enum("LayerInformationFormat", "ONELINE", "JSON")
ProfilingVerbosity = _enum("ProfilingVerbosity", "LAYER_NAMES_ONLY", "NONE", "DETAILED")
MemoryPoolType = _enum("MemoryPoolType", "WORKSPACE", "DLA_MANAGED_SRAM")
DeviceType = _enum("DeviceType", "GPU", "DLA")
OnnxParserFlag = _enum("OnnxParserFlag", "NATIVE_INSTANCENORM")
_TEN = int(__version__.partition(".")[0]) < 11
BuilderFlag = _enum("BuilderFlag", "TF32", "GPU_FALLBACK", *(["FP16"] if _TEN else []))
NetworkDefinitionCreationFlag = _enum("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH", "STRONGLY_TYPED")


def _nodes(content):
    import onnx

    return [(node.name or node.op_type, node.op_type) for node in onnx.load_from_string(content).graph.node]


def _session(content):
    import onnxruntime

    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


class Builder:
    num_DLA_cores = 2

    def __init__(self, log):
        self._log = log

    def create_network(self, flags):
        self.flags = flags
        return self

    def create_builder_config(self):
        return Config()

    def create_optimization_profile(self):
        return Profile()

    def build_serialized_network(self, network, config):
        del network
        if _TROUBLE == "abort":
            os.abort()
        if _TROUBLE == "build memory":
            self._log.log(ILogger.Severity.ERROR, "Error Code 1: Cuda Runtime (out of memory)")
            return None
        config.progress_monitor.phase_start("Building", None, 2)
        for step in range(2):
            assert config.progress_monitor.step_complete("Building", step)
        config.progress_monitor.phase_finish("Building")
        if config.flags.get("dla") is not None:
            words = "Layer 'node_mean' (REDUCE): Unsupported on DLA. Switching this layer's device type to GPU."
            self._log.log(ILogger.Severity.WARNING, words)
        return _MAGIC + __version__.encode() + b"\n" + self.onnx


class Profile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, name, *shapes):
        self.shapes[name] = shapes


class Cache:
    def __init__(self, content):
        self.content = content + b"timed\n"

    def serialize(self):
        return self.content


class Config:
    def __init__(self):
        self.flags = {}

    def set_flag(self, flag):
        self.flags[flag] = True

    def clear_flag(self, flag):
        self.flags[flag] = False

    def set_memory_pool_limit(self, pool, size):
        assert pool == MemoryPoolType.WORKSPACE and size % (1 << 20) == 0

    def add_optimization_profile(self, profile):
        assert profile.shapes

    def create_timing_cache(self, content):
        return Cache(content)

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        if cache.content.startswith(b"other"):
            return False
        self.cache = cache
        return True

    def get_timing_cache(self):
        return self.cache

    @property
    def DLA_core(self):
        return self.flags.get("dla")

    @DLA_core.setter
    def DLA_core(self, core):
        self.flags["dla"] = core


class _Error:
    def __init__(self, name, operator):
        self._name, self._operator = name, operator

    def node_name(self):
        return self._name

    def node_operator(self):
        return self._operator

    def desc(self):
        return "Assertion failed: it takes no such axis."


class OnnxParser:
    def __init__(self, network, log):
        del log
        self._network, self._errors = network, []

    def parse_from_file(self, path):
        with open(path, "rb") as file:
            self._network.onnx = file.read()
        if _TROUBLE == "refused":
            self._errors = [_Error(*_nodes(self._network.onnx)[0])]
        return not self._errors

    @property
    def num_errors(self):
        return len(self._errors)

    def get_error(self, index):
        return self._errors[index]


class Runtime:
    def __init__(self, log):
        self._log, self.DLA_core = log, None

    def deserialize_cuda_engine(self, content):
        head, _, onnx = bytes(content).partition(b"\n")
        version = head[len(_MAGIC) :].decode(errors="replace")
        if not head.startswith(_MAGIC) or version != __version__:
            words = "The engine plan file is not compatible with this version of TensorRT, expecting library version "
            self._log.log(ILogger.Severity.ERROR, words + f"{__version__} got {version[:20]}, please rebuild.")
            return None
        return Engine(onnx)


class Engine:
    def __init__(self, onnx):
        self.onnx, self.program = onnx, _session(onnx)
        self.inputs = {value.name: value for value in self.program.get_inputs()}
        self.outputs = {value.name: value for value in self.program.get_outputs()}

    @property
    def num_io_tensors(self):
        return len(self.inputs) + len(self.outputs)

    def get_tensor_name(self, index):
        return [*self.inputs, *self.outputs][index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        return DataType[_TYPES[{**self.inputs, **self.outputs}[name].type][0]]

    def create_execution_context(self):
        return Context(self)

    def create_engine_inspector(self):
        return self

    def get_engine_information(self, form):
        assert form == LayerInformationFormat.JSON
        tensors = [{"Name": "t", "Datatype": "Half"}]
        layers = [
            {"Name": name, "LayerType": op, "Inputs": tensors, "Outputs": tensors, "Metadata": f"[ONNX Layer: {name}]"}
            for name, op in _nodes(self.onnx)
        ]
        return json.dumps({"Layers": layers, "I/O Tensors": []})


class Context:
    profiler = None

    def __init__(self, engine):
        self._engine, self._shapes, self._addresses = engine, {}, {}
        self._callback = ctypes.CFUNCTYPE(None)(self._compute)
        _DRIVER.stand_in_launch(self._callback)

    def set_input_shape(self, name, shape):
        wanted = self._engine.inputs[name].shape
        fits = len(wanted) == len(shape) and all(
            not isinstance(a, int) or a == b for a, b in zip(wanted, shape, strict=True)
        )
        self._shapes[name] = shape
        return fits

    def get_tensor_shape(self, name):
        return self._shapes.get(name) or tuple(self._engine.outputs[name].shape)

    def set_tensor_address(self, name, address):
        self._addresses[name] = address

    def execute_async_v3(self, stream):
        assert stream
        if _TROUBLE == "run":
            return False
        self._compute()
        for name, _ in _nodes(self._engine.onnx) if self.profiler is not None else ():
            self.profiler.report_layer_time(name, 0.25)
        return True

    def _compute(self):
        feed = {name: self._view(name, value.type) for name, value in self._engine.inputs.items()}
        for (name, value), array in zip(
            self._engine.outputs.items(), self._engine.program.run(None, feed), strict=True
        ):
            self._view(name, value.type)[...] = array

    def _view(self, name, kind):
        shape, dtype = self.get_tensor_shape(name), np.dtype(_TYPES[kind][1])
        size = int(np.prod(shape)) * dtype.itemsize
        return np.frombuffer((ctypes.c_char * size).from_address(self._addresses[name]), dtype).reshape(shape)
