"""Runs TensorRT engines, and builds them for this device: ``python runner.py REQUEST.json``.

By TensorRT's Python package where it is installed, else by the program ``trtexec``. See docs/runner-protocol.md.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import _child
import _cuda
import _engines
import _gpu
import _library
import _program
import _trtexec
import build
import harness

# That folder holds folders named like the packages that are yet to be imported.
del sys.path[0]

KNOWN = {
    "delegate": str,
    "tf32": bool,
    "cuda_graphs": bool,
    "compute_capabilities": str,
    "version": str,
    "workspace_mib": int,
    "dla_core": int,
}
DELEGATES = ("rtx", "gpu", "dla")
PROFILE = "profile."
NAMES = {"rtx": "TensorRT for RTX", "gpu": "TensorRT", "dla": "TensorRT"}


class TensorRt(harness.Runtime):
    """TensorRT 10 and 11, and TensorRT for RTX."""

    name = "tensorrt"

    def __init__(self):
        self._loaded, self._paths, self._built = {}, {}, {}
        self._recorder = self._watch = None
        self._timed = False

    def start(self, threads, options):
        """Finds TensorRT: its Python package, else ``trtexec``.

        Options: ``delegate`` (rtx, gpu, dla), ``tf32``, ``cuda_graphs`` (bool); of an engine that came ready
        ``version`` and ``compute_capabilities`` that it was built for; else ``workspace_mib``, ``dla_core``, and
        ``profile.PART.INPUT`` (the smallest, usual and largest shape of an input whose sizes vary).
        """
        del threads  # the GPU computes
        if importlib.util.find_spec("numpy") is None:
            raise harness.Refused(
                "%s cannot import numpy, which the runner needs; Debian and Jetson: sudo apt install python3-numpy"
                % sys.executable,
                "unsupported",
            )
        self._options = _checked(options)
        self._profiles = _profiles(options)
        delegate = options["delegate"]
        self._dla_core = options["dla_core"] if delegate == "dla" else None
        self._graphs = options.get("cuda_graphs", False) and self._dla_core is None
        try:
            self._trt = build.module("tensorrt_rtx" if delegate == "rtx" else "tensorrt")
        except ImportError as error:
            self._start_program(error)
            return _trtexec.text(self._program.version)
        self._program = None
        self._start_library()
        return self._version

    def _start_program(self, error):
        """Takes trtexec, or says that nothing is there."""
        path = None if self._options["delegate"] == "rtx" else _program.find()
        if path is None:
            raise harness.Refused(
                "%s is not on this device: its Python package cannot be imported (%s)%s"
                % (NAMES[self._options["delegate"]], error, _where(self._options["delegate"])),
                "unsupported",
            )
        options = {"cuda_graphs": self._graphs, "dla_core": self._dla_core}
        self._program, self._trt = _program.Program(path, options), None
        self.answers_calls = False
        self._version = _trtexec.text(self._program.version)
        self._driver = None

    def _start_library(self):
        trt, options = self._trt, self._options
        self._version = str(trt.__version__)
        if int(self._version.partition(".")[0]) < build.OLDEST and options["delegate"] != "rtx":
            raise harness.Refused(
                "TensorRT %s is too old: %d.0 or newer is needed, as of JetPack 6" % (self._version, build.OLDEST),
                "unsupported",
            )
        if "version" in options and options["version"] != self._version:
            raise harness.Refused(
                "the engine was built by %s %s, and this is %s; compile it again with this one, or install that one"
                % (NAMES[options["delegate"]], options["version"], self._version),
                "unsupported",
            )
        try:
            self._driver = _cuda.Driver()
        except _cuda.CudaError as error:
            raise harness.Refused("the engine is for an NVIDIA GPU, and %s" % error, "unsupported") from error
        named = options.get("compute_capabilities")
        if named is not None and self._driver.capability not in named.split(","):
            raise harness.Refused(
                "the engine was built for compute capability %s, and %s here has %s; name it in the target's option "
                "compute_capabilities and compile again"
                % (named.replace(",", ", "), self._driver.name, self._driver.capability),
                "unsupported",
            )
        self._driver.use()
        self._watch = _gpu.Watch(self._driver.bus)
        self._free_before = self._driver.memory()[0]
        self._log = build.logger(trt)

    def prepare(self, request, path, channel):
        """Builds the engine of each part that came as ONNX, or takes the one that was built here before."""
        if self._program is not None:
            _check_program(request)
        parts = [part for part in request["parts"] if part["program"].endswith(".onnx")]
        if not parts:
            return
        channel.progress("build", 0, len(parts))
        for done, part in enumerate(parts):
            self._built[part["name"]] = self._engine(part["name"], path(part["program"]), channel)
            channel.progress("build", done + 1, len(parts))

    def _engine(self, part, onnx, channel):
        """The folder of a part's engine, and what is noted of it."""
        identity = self._identity()
        options = {
            "profiles": self._profiles.get(part, {}),
            "tf32": self._options["tf32"],
            "dla_core": self._dla_core,
            "workspace_mib": self._options.get("workspace_mib") or None,
        }
        name = _engines.key(onnx, options, identity)
        found = _engines.find(name)
        if found is not None:
            return found[0], dict(found[1], build_s=None)
        options["timing_cache"] = _engines.timing_cache(identity)
        begin = perf_counter()
        with _engines.Making(name) as making:
            engine, layers = (os.path.join(making.path, one) for one in (_engines.ENGINE, _engines.LAYERS))
            if self._program is not None:
                said = self._program.build(onnx, engine, layers, options, channel)
                about = {"fallback": said.fallback, "gpu": said.gpu, "compute_capability": said.compute_capability}
            else:
                fallback = self._build(onnx, engine, layers, options, making.path, channel)
                about = {
                    "fallback": fallback,
                    "gpu": self._driver.name,
                    "compute_capability": self._driver.capability,
                }
            about.update(version=self._version, build_s=perf_counter() - begin)
            return making.keep(about), about

    def _identity(self):
        """What an engine is tied to: TensorRT's version, and the GPU as far as this process can tell."""
        driver = self._driver
        if driver is None:
            try:
                driver = _cuda.Driver()
            except _cuda.CudaError:
                # trtexec has a GPU of its own to show; this machine's name stands for it.
                return {"version": self._version, "gpu": _machine(), "compute_capability": ""}
        return {"version": self._version, "gpu": driver.name, "compute_capability": driver.capability}

    def _build(self, onnx, engine, layers, options, folder, channel):
        """Builds by the Python package, in a process of its own; what the DLA leaves to the GPU."""
        builder = "tensorrt_rtx" if self._options["delegate"] == "rtx" else "tensorrt"
        spec = dict(options, builder=builder, onnx=onnx, engine=engine, layers=layers, compute_capabilities=None)
        path = os.path.join(folder, "spec.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(spec, file)
        progress = {}

        def look(line, pid):
            del pid
            try:
                progress.update(json.loads(line))
            except ValueError:
                pass  # the end of it is judged below

        program = str(Path(__file__).resolve().parent / "build.py")
        ended = _child.run(
            [sys.executable, program, path],
            on_line=look,
            on_poll=lambda: channel.beat(progress.get("done"), progress.get("total")),
            stdout_only=True,
        )
        os.remove(path)
        if progress.get("type") == "error":
            raise harness.Refused(progress["message"], progress["kind"])
        if ended.code != 0 or progress.get("type") != "built":
            how = "was killed by signal %d" % -ended.code if ended.code < 0 else "ended with code %d" % ended.code
            raise harness.Refused("the builder %s, and there is no engine" % how, "runtime")
        return progress["fallback"]

    def load(self, part, path):
        """Loads an engine: the one that was built here, or the one of the bundle."""
        name = part["name"]
        engine = os.path.join(self._built[name][0], _engines.ENGINE) if name in self._built else path
        if self._program is not None:
            loaded = _program.Loaded(self._program, engine, part["outputs"], name in self._profiles)
        else:
            loaded = _library.Engine(self._trt, self._driver, self._log, engine, part, self._graphs, self._dla_core)
        self._loaded[name], self._paths[name] = loaded, engine
        return loaded

    def recorder(self, parts):
        """The harness's own with the Python package; else whole runs of trtexec."""
        self._timed = True
        if self._program is None:
            return harness.Runtime.recorder(self, parts)
        self._recorder = _program.Recorder(parts, lambda: self._loaded[parts[0]])
        return self._recorder

    def threads(self):
        """The GPU computes; one thread of the processor starts it."""
        return None

    def look(self):
        """Notes the GPU's clock and throttling."""
        return self._watch.look() if self._watch else None

    def memory_full(self, error):
        """Whether the GPU's memory was full, with how full it is."""
        if (
            self._driver is None
            or not isinstance(error, _cuda.OutOfMemory)
            and "out of memory" not in str(error).lower()
        ):
            return None
        free, total = self._driver.memory()
        return (
            "the memory of %s is full (%d of %d MiB are free now): end other programs on it, or compile for a smaller "
            "batch or input" % (self._driver.name, free // _library.MIB, total // _library.MIB)
        )

    def gpu(self):
        """The GPU's own latency, its steps, memory and state."""
        if self._program is None:
            return _library.figures(self._driver, self._watch, list(self._loaded.values()), self._free_before)
        steps, said = self._recorder.median_steps(), self._recorder.last
        return {
            "name": said.gpu or "unknown",
            "compute_capability": said.compute_capability,
            "latency": _gpu.latency([entry["computeMs"] for entry in self._recorder.steps]),
            "memory": {"unavailable": "trtexec does not tell how much of the GPU's memory it holds"},
            "steps": steps,
        }

    def engine(self):
        """The layers of the engines with their times, where anything was timed."""
        if not self._timed:
            return None
        layers, fallback, size, build_s = [], [], 0, None
        for name, loaded in self._loaded.items():
            about = self._built.get(name, (None, {"fallback": [], "build_s": None}))[1]
            size += os.path.getsize(self._paths[name])
            fallback += about["fallback"]
            build_s = build_s if about["build_s"] is None else (build_s or 0.0) + about["build_s"]
            layers += _timed_layers(name, _program.layers_of(self._told(name, loaded)), self._times(loaded))
        builder = "%s %s" % (
            "trtexec of TensorRT" if self._program else NAMES[self._options["delegate"]],
            self._version,
        )
        return {
            "builder": builder,
            "build_s": build_s,
            "size_bytes": size,
            "layers": layers,
            "fallback": _grouped(fallback),
        }

    def _told(self, name, loaded):
        """TensorRT's layer information: of the loaded engine, or as trtexec wrote it when it built the engine."""
        if self._program is None:
            return loaded.layers()
        with open(os.path.join(self._built[name][0], _engines.LAYERS), encoding="utf-8", errors="replace") as file:
            return file.read()

    def _times(self, loaded):
        return _program.layer_times(loaded) if self._program is not None else loaded.layer_times()

    def gpu_mib(self):
        """By NVML, or how much the GPU's used memory has grown since before loading."""
        return _library.memory(self._driver, self._watch, self._free_before)["process"] if self._watch else None

    def facts(self):
        """Which builder and GPU are in use."""
        way = "trtexec" if self._program is not None else "Python package"
        graphs = "with" if self._graphs else "without"
        gpu = self._driver.name if self._driver else "the GPU"
        where = "DLA core %d" % self._dla_core if self._dla_core is not None else gpu
        return {"device": "%s, %s CUDA graphs, by TensorRT's %s" % (where, graphs, way)}


def _timed_layers(part, layers, times):
    """The layers of a part with their times; layers of one name follow each other in both."""
    left = {}
    for name, ms in times:
        left.setdefault(name, []).append(ms)
    return [
        dict(layer, part=part, ms=left[layer["name"]].pop(0) if left.get(layer["name"]) else None) for layer in layers
    ]


def _grouped(fallback):
    """What the DLA left to the GPU, by operator."""
    by_op = {}
    for one in fallback:
        by_op.setdefault(one["op"], []).append(one["name"])
    return [
        {
            "op": op,
            "count": len(names),
            "reason": "the DLA does not take it, and the GPU computes it: %s" % ", ".join(names[:5]),
        }
        for op, names in sorted(by_op.items(), key=lambda item: -len(item[1]))
    ]


def _check_program(request):
    if len(request["parts"]) != 1:
        raise harness.Refused(
            "trtexec times one part at a time, and the bundle has %d: install TensorRT's Python package on the device"
            % len(request["parts"]),
            "unsupported",
        )
    if request["sustain"] is not None:
        raise harness.Refused(
            "trtexec starts anew for each run and cannot run sustained: install TensorRT's Python package there",
            "unsupported",
        )


def _checked(options):
    for name, value in options.items():
        if name.startswith(PROFILE):
            continue
        if name not in KNOWN:
            raise harness.Refused(
                "the tensorrt runner has no option '%s'; known: %s" % (name, ", ".join(sorted(KNOWN))), "unsupported"
            )
        if type(value) is not KNOWN[name] or (name == "delegate" and value not in DELEGATES):
            raise harness.Refused("option '%s' cannot be %.60r" % (name, value), "unsupported")
    needed = {"rtx": ("version", "compute_capabilities"), "dla": ("dla_core",)}.get(options.get("delegate"), ())
    missing = [name for name in ("delegate", "tf32", *needed) if name not in options]
    if missing:
        raise harness.Refused("the options lack %s" % ", ".join(missing), "unsupported")
    return options


def _profiles(options):
    """Part to input to its three shapes."""
    found = {}
    for name, value in options.items():
        if not name.startswith(PROFILE):
            continue
        part, dot, tensor = name[len(PROFILE) :].partition(".")
        try:
            shapes = [[int(size) for size in shape.split("x")] for shape in value.split(",")]
        except (ValueError, AttributeError):
            shapes = []
        if not dot or len(shapes) != 3 or len({len(shape) for shape in shapes}) != 1:
            raise harness.Refused("option '%s' cannot be %.100r" % (name, value), "unsupported")
        found.setdefault(part, {})[tensor] = shapes
    return found


def _machine():
    try:
        with open("/proc/device-tree/model", encoding="utf-8", errors="replace") as file:
            return file.read(256).strip("\0\n ")
    except OSError:
        return "unknown"


def _where(delegate):
    if delegate == "rtx":
        return "; install it: pip install 'edge-sdk[rtx]'"
    return (
        ", and there is no trtexec in the path or at %s; on a Jetson: sudo apt install nvidia-jetpack"
        % _program.PLACES[0]
    )


if __name__ == "__main__":
    sys.exit(harness.main(TensorRt()))
