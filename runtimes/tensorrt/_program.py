"""TensorRT by its program ``trtexec``, where there is no Python package: each step is a process of its own.

A request's inferences are timed in one run, so that they follow each other as they would; it starts with a warm-up,
whose length another run before it has found. trtexec enqueues an inference while the one before it still computes;
its latency is that of the transfers and of computing, by the GPU's own clock.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from time import perf_counter_ns

import _child
import _flags
import _layers
import _trtexec
from _request import Refused
from _stats import median_interval, percentile

PLACES = ("/usr/src/tensorrt/bin/trtexec", "/usr/local/tensorrt/bin/trtexec")
OLDEST = (10, 0, 0)
FEWEST_WARM_MS = 200
"""trtexec's own warm-up."""
LONGEST_WARM_S = 2.0
BLOCK_NS = 100_000_000
GROWTH = 4
MOST_RUNS = 3
TYPES = {
    "fp32": "float32",
    "fp16": "float16",
    "int8": "int8",
    "int32": "int32",
    "int64": "int64",
    "bool": "bool",
    "uint8": "uint8",
}
MS = 1_000_000


def find():
    """The program's path, None where there is none."""
    return shutil.which("trtexec") or next((path for path in PLACES if os.access(path, os.X_OK)), None)


class Program:
    """trtexec with a bundle's options.

    Args:
        path: The program.
        options: ``cuda_graphs`` and ``dla_core``.
    """

    def __init__(self, path, options):
        self.path, self.options = path, options
        self.warnings = []
        said = self._said(self._run([path, "--help"]))
        if said.version is None:
            raise Refused("%s does not say which TensorRT it is of" % path, "unsupported")
        if said.version < OLDEST:
            raise Refused(
                "%s is of TensorRT %s; %s or newer is needed, as of JetPack 6"
                % (path, _trtexec.text(said.version), _trtexec.text(OLDEST)),
                "unsupported",
            )
        self.version = said.version

    @property
    def major(self):
        """TensorRT's major version."""
        return self.version[0]

    def build(self, onnx, engine, layers, options, channel):
        """Builds an engine; returns what trtexec said.

        Raises:
            Refused: It cannot be built.
        """
        words = _flags.build(self.path, self.major, onnx, engine, layers, options)
        said = self.run(words, on_poll=lambda: channel.beat(None))
        if not os.path.isfile(engine) or not os.path.isfile(layers):
            raise Refused("trtexec passed, and wrote no engine or no layer information", "runtime")
        return said

    def run(self, words, **options):
        """Runs trtexec to its end, and returns what it said.

        Raises:
            Refused: It failed.
        """
        ended = self._run(words, **options)
        said = self._said(ended)
        wrong = _trtexec.why_not(said, ended.code)
        if wrong is not None:
            raise Refused(wrong[1], wrong[0])
        said.peak_kib = ended.peak_kib
        return said

    def command(self, engine, iterations, duration_s, warmup_ms, *more):
        """The command line of a run."""
        words = _flags.run(self.path, self.major, engine, self.options)
        return [*words, *_flags.length(iterations, duration_s, warmup_ms), *more]

    def _run(self, words, **options):
        try:
            return _child.run(words, **options)
        except OSError as error:
            raise Refused("%s cannot be started: %s" % (self.path, error), "unsupported") from error
        except _child.ChildError as error:
            raise Refused("trtexec was stopped: %s" % error, "runtime") from error

    @staticmethod
    def _said(ended):
        try:
            return _trtexec.read(ended.text)
        except _trtexec.OutputError as error:
            raise Refused("what trtexec printed is not understood: %s" % error, "runtime") from error


class Loaded:
    """An engine as trtexec runs it: each call is a process.

    Args:
        program: The `Program`.
        engine: Path of the engine.
        outputs: Names of the outputs, in order.
        varies: Whether sizes of its inputs vary.
    """

    def __init__(self, program, engine, outputs, varies):
        self.program, self.engine, self.outputs, self.varies = program, engine, outputs, varies
        self.folder = tempfile.mkdtemp(prefix="edge-sdk-trtexec-")
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.words = []

    def bind(self, feed):
        """A call that runs one inference of these inputs and gives what was written of its outputs."""
        files = {}
        for place, (name, array) in enumerate(feed.items()):
            files[name] = os.path.join(self.folder, "input%d" % place)
            array.tofile(files[name])
        self.words = [_flags.inputs(files)]
        if self.varies:
            self.words.append("--shapes=" + _flags.shapes({name: array.shape for name, array in feed.items()}))

        def call():
            command = self.program.command(self.engine, 1, 0, 0, "--dumpRawBindingsToFile", *self.words)
            return self.program.run(command, folder=self.folder)

        return call

    def arrays(self, said):
        """The outputs that a call wrote, in order."""
        return [self._array(said, name) for name in self.outputs]

    def _array(self, said, name):
        import numpy

        if name not in said.outputs:
            raise Refused(
                "trtexec wrote no output '%s'; it wrote %s" % (name, ", ".join(said.outputs) or "none"), "runtime"
            )
        kind, shape, path = said.outputs[name]
        # What a program printed is no path to follow: it writes into the folder that it runs in.
        full = os.path.join(self.folder, os.path.basename(path))
        if kind not in TYPES:
            raise Refused("trtexec wrote output '%s' as %s, which is not understood" % (name, kind), "unsupported")
        array = numpy.fromfile(full, dtype=TYPES[kind])
        count = 1
        for size in shape:
            count *= size
        if array.size != count:
            raise Refused(
                "trtexec wrote %d values of output '%s', and its shape is %s" % (array.size, name, shape), "runtime"
            )
        return array.reshape(shape)


class Recorder:
    """Times an engine by whole runs of trtexec, each a new process; the last run's samples are kept.

    It has what `_timing.Recorder` has, but for single blocks.

    Args:
        parts: Names of the parts; there is one.
        loaded: Gives the part's `Loaded` once it is loaded.
    """

    def __init__(self, parts, loaded):
        self.parts, self.calls = {}, []
        self.starts, self.spans, self.capacity = [0], [0], 1 << 62
        self.load_ns, self.steps, self.last = None, [], None
        self._loaded, self._warm_ms, self._baseline_kib = loaded, FEWEST_WARM_MS, None
        self._doubts = []

    def first(self):
        """The first inference of a process, which also tells how long loading took."""
        said, entries = self._run(1, 0, 0, lambda: None)
        seconds = [said.seconds[name] for name in ("loaded", "deserialized") if name in said.seconds]
        self.load_ns = int(sum(seconds) * 1e9) if seconds else None
        return int(entries[0]["latencyMs"] * MS)

    def warm_up(self, timing, first_ns, beat):
        """Finds how long it takes until the latency is steady; the timed run warms up for as long."""
        del first_ns
        limit_s = min(timing["warmup_max_s"], LONGEST_WARM_S)
        _, entries = self._run(max(3, timing["warmup_min_runs"]), limit_s, 0, lambda: beat(0))
        spans = [entry["latencyMs"] * MS for entry in entries]
        typical = max(1.0, percentile(sorted(spans), 0.5))
        size = max(3, int(BLOCK_NS / typical))
        medians = [percentile(sorted(spans[at : at + size]), 0.5) for at in range(0, len(spans) - size + 1, size)]
        for place, before in enumerate(medians[:-1]):
            after = medians[place + 1]
            if abs(after - before) <= timing["steady_within"] * before:
                self._warm_ms = max(FEWEST_WARM_MS, int(sum(spans[: (place + 2) * size]) / MS))
                return (place + 2) * size, True, int(after)
        self._warm_ms = max(FEWEST_WARM_MS, int(limit_s * 1000))
        return len(spans), False, int(typical)

    def measure(self, timing, typical_ns, beat):
        """One run for as long as is asked for; a longer one in its place where the interval is too wide."""
        del typical_ns
        seconds = max(timing["min_time_s"], 0.001)
        for turn in range(MOST_RUNS):
            said, entries = self._run(timing["min_runs"], seconds, self._warm_ms, lambda: beat(0))
            self._keep(said, entries)
            elapsed_s = (self.starts[-1] + self.spans[-1] - self.starts[0]) / 1e9
            ordered = sorted(self.spans)
            low, high = median_interval(self.spans, ordered)
            narrow = high - low < timing["ci_within"] * percentile(ordered, 0.5)
            longer = min(timing["max_time_s"], max(seconds, elapsed_s) * GROWTH)
            if narrow or longer <= seconds * 1.1 or turn + 1 == MOST_RUNS:
                break
            seconds = longer
        return len(self.spans), narrow, int(elapsed_s * 1e9)

    def memory(self, own):
        """The memory of trtexec's process."""
        del own
        if self._baseline_kib is None or self.last is None or self.last.peak_kib is None:
            return {"unavailable": "the system does not tell the resident set of trtexec's process"}
        peak = self.last.peak_kib
        return {
            "unit": "MiB",
            "peak": peak / 1024,
            "baseline": self._baseline_kib / 1024,
            "model": max(0, peak - self._baseline_kib) / 1024,
            "method": "getrusage ru_maxrss of trtexec's process; baseline: its VmRSS before it read the engine",
        }

    def doubts(self):
        """What trtexec itself warns of."""
        return ["trtexec: %s" % one for one in self._doubts]

    def median_steps(self):
        """The medians of the steps of an inference in milliseconds, as in ``gpu.steps`` of the result."""
        columns = {
            "host_to_device": [entry["h2dMs"] for entry in self.steps],
            "compute": [entry["computeMs"] for entry in self.steps],
            "device_to_host": [entry["d2hMs"] for entry in self.steps],
            "enqueue": [max(0.0, entry["endEnqMs"] - entry["startEnqMs"]) for entry in self.steps],
        }
        return dict({name: percentile(sorted(values), 0.5) for name, values in columns.items()}, unit="ms")

    def _keep(self, said, entries):
        self.last, self.steps, self._doubts = said, entries, said.warnings
        self.starts = [self._began_ns + int(entry["startH2dMs"] * MS) for entry in entries]
        self.spans = [max(1, int(entry["latencyMs"] * MS)) for entry in entries]

    def _run(self, iterations, duration_s, warmup_ms, on_poll):
        """One run; what trtexec said, and its iterations after the warm-up."""
        loaded = self._loaded()
        path = os.path.join(loaded.folder, "times.json")
        command = loaded.program.command(
            loaded.engine, iterations, duration_s, warmup_ms, "--exportTimes=" + path, *loaded.words
        )
        self._began_ns = perf_counter_ns()
        self._baseline_kib = None
        said = loaded.program.run(command, folder=loaded.folder, on_line=self._look, on_poll=on_poll)
        return said, _content(path, _trtexec.times)

    def _look(self, line, pid):
        """Notes when inference begins, from which trtexec counts, and the memory before the engine is read."""
        if line.endswith("] Starting inference"):
            self._began_ns = perf_counter_ns()
        elif self._baseline_kib is None and "] TensorRT version: " in line:
            self._baseline_kib = _resident_kib(pid)


def layer_times(loaded):
    """Median milliseconds of each layer by name, of a run of its own.

    Raises:
        Refused: trtexec failed.
    """
    path = os.path.join(loaded.folder, "profile.json")
    loaded.program.run(
        loaded.program.command(loaded.engine, 20, 1, FEWEST_WARM_MS, "--exportProfile=" + path, *loaded.words),
        folder=loaded.folder,
    )
    _, layers = _content(path, _trtexec.profile)
    return layers


def _content(path, parse):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return parse(file.read())
    except OSError as error:
        raise Refused("trtexec passed, and its file cannot be read: %s" % error, "runtime") from error
    except _trtexec.OutputError as error:
        raise Refused("what trtexec wrote is not understood: %s" % error, "runtime") from error


def layers_of(content):
    """The layers that TensorRT's layer information tells of.

    Raises:
        Refused: It is something else.
    """
    try:
        return _layers.of_json(content)
    except _layers.LayersError as error:
        raise Refused("the layers of the engine are not understood: %s" % error, "runtime") from error


def _resident_kib(pid):
    try:
        with open("/proc/%d/status" % pid, encoding="utf-8", errors="replace") as file:
            found = re.search(r"^VmRSS:\s+(\d+) kB", file.read(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None
