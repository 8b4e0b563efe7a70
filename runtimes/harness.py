"""What every Python runner shares: the request, the channel, the measuring. See docs/runner-protocol.md.

A runner is one file beside this one's folder that ends in ``sys.exit(harness.main(MyRuntime()))``.
Standard library only, Python 3.8 and newer; the runtime itself and numpy are imported after the
protocol's channel is safe from them.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import traceback
from functools import partial
from time import perf_counter_ns

import _arrays
import _request
import _session
import _timing
from _channel import Channel
from _measure import Measuring
from _request import Refused

__all__ = ["Loaded", "Refused", "Runtime", "main"]

PROTOCOL_VERSION = _request.PROTOCOL_VERSION
SESSION = "--session"


class Loaded:
    """A part that was loaded. A runner's own class has these two methods."""

    def bind(self, feed):
        """Turns ``{input name: numpy array}`` into a callable of no arguments.

        The callable is what is timed: the runtime's own call, inputs already in its form.
        """
        raise NotImplementedError

    def feed(self, feed):
        """As ``bind``, for one call of many in a session, each with inputs of its own."""
        return self.bind(feed)

    def arrays(self, result):
        """What the callable returned as numpy arrays of their own memory, in the order of the outputs."""
        raise NotImplementedError


class Runtime:
    """A runtime as the harness drives it. A runner's own class has these attributes and methods."""

    name = ""
    answers_calls = True
    """Whether it can stay loaded and answer calls one by one."""

    def start(self, threads, options):
        """Imports the runtime and sets its threads.

        Args:
            threads: How many, or None for the runtime's own choice.
            options: ``options`` of the request. Unknown ones are refused.

        Returns:
            The runtime's version.

        Raises:
            ImportError: It is not installed.
            Refused: An option cannot be met.
        """
        raise NotImplementedError

    def prepare(self, request, path, channel):
        """Makes ready what loading needs, such as an engine for this very device; before anything is measured.

        Args:
            request: The request.
            path: Gives the full path of a program of the bundle.
            channel: Takes ``progress``; its ``stage`` is ``build`` meanwhile.

        Raises:
            Refused: It cannot be made.
        """

    def recorder(self, parts):
        """What times the parts of given names."""
        return _timing.Recorder(parts)

    def load(self, part, path):
        """Loads a part of the request from the program at ``path`` and returns a `Loaded`."""
        raise NotImplementedError

    def threads(self):
        """How many threads the runtime uses, or None where it does not tell. Asked after loading."""
        raise NotImplementedError

    def facts(self):
        """What the runtime tells of itself after loading, ``{name: text}``."""
        return {}

    def look(self):
        """Notes the state of a processor of the runtime's own, such as a GPU's clock.

        Called before, about once a second during, and after the timed part, never in the middle of a block.

        Returns:
            Whether it throttles now, None where nothing tells.
        """
        return None

    def gpu(self):
        """What the GPU tells after the timed part, as ``gpu`` of the result; None where there is none."""
        return None

    def engine(self):
        """What is told of the engine that was built for this device, as ``engine`` of the result, or None."""
        return None

    def gpu_mib(self):
        """MiB of the GPU's memory that this process holds; None where there is none."""
        return None

    def memory_full(self, error):
        """What to say where an error of the runtime means that the memory of its device is full, else None."""
        return None


def main(runtime, argv=None, root=""):
    """Runs a request and answers on the protocol's channel.

    Args:
        runtime: The runner's `Runtime`.
        argv: The command line: the path of the request, with ``--session`` before it for a session.
        root: Goes before paths of ``/sys``, for tests.

    Returns:
        The exit code: 0 after ``result``, 1 after ``error``.
    """
    channel = Channel.claim()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, channel.interrupt)
    try:
        _Run(runtime, channel, root).run(sys.argv[1:] if argv is None else argv)
        return 0
    except BrokenPipeError:
        return 1
    except Exception as error:
        if not isinstance(error, Refused):
            traceback.print_exc()
        full = _memory_full(runtime, error)
        channel.error("memory" if full else _kind(channel.stage, error), full or _brief(error))
        return 1


def _memory_full(runtime, error):
    """What the runtime says of its device's memory; a failure to say it hides no error."""
    if isinstance(error, (Refused, ImportError)):
        return None
    try:
        return runtime.memory_full(error)
    except Exception:
        traceback.print_exc()
        return None


def _kind(stage, error):
    if isinstance(error, Refused):
        return error.kind
    if isinstance(error, MemoryError):
        return "memory"
    if stage == "import" and isinstance(error, ImportError):
        return "missing_runtime"
    if isinstance(error, _arrays.SamplesError) or (stage == "write" and isinstance(error, OSError)):
        return "data"
    return "runtime"


def _brief(error):
    text = str(error).strip()
    if isinstance(error, (Refused, ImportError, _arrays.SamplesError)) and text:
        return text
    return "%s: %s" % (type(error).__name__, text) if text else type(error).__name__


class _Run:
    """One request, stage by stage."""

    def __init__(self, runtime, channel, root):
        self.runtime = runtime
        self.channel = channel
        self.root = root

    def run(self, argv):
        """Answers the request with messages up to ``result``."""
        self.channel.stage = "request"
        session = argv[:1] == [SESSION]
        self.request = request = _request.read(argv[1:] if session else argv, session)
        measuring = Measuring(request, self.channel, _usable_processors(), self.root)
        self.threads = self._place(request)
        self.channel.stage = "import"
        version = self.runtime.start(self.threads, request["options"])
        self.channel.send("hello", **self._hello(version))
        if session and not self.runtime.answers_calls:
            raise Refused(
                "%s %s here takes a whole run at a time and answers no single calls" % (self.runtime.name, version),
                "unsupported",
            )
        self.runtime.prepare(request, partial(_request.inside, request["bundle"]), self.channel)
        timed = {"latency": None, "memory": None}
        if session:
            self._serve()
        elif request["timing"] is None:
            references = self._references()
            self._load()
        else:
            measuring.cool()
            references = self._references()
            timed = measuring.run(self._feeds(references), self._load, self.runtime.look, self.runtime.recorder)
        gpu = self.runtime.gpu() if request["timing"] is not None else None
        conditions = measuring.conditions(self.runtime.threads())
        if request["timing"] is not None:
            measuring.sustain()
        power = measuring.power()
        outputs = request["outputs"]
        if outputs is not None:
            self._run_samples(references)
        facts = self.runtime.facts()
        # Keys that older hosts do not know are sent only where there is something to say.
        more = {"gpu": gpu, "engine": self.runtime.engine()}
        timed.update((key, value) for key, value in more.items() if value is not None)
        self.channel.send("result", outputs=outputs, conditions=conditions, facts=facts, power=power, **timed)

    def _serve(self):
        parts, _ = self._load()
        self.channel.progress("session")
        _session.serve(sys.stdin.buffer, parts, self.request["parts"], self.channel, self.runtime.gpu_mib)

    def _hello(self, version):
        return {
            "protocol_version": PROTOCOL_VERSION,
            "runtime": self.runtime.name,
            "version": version,
            "python": platform.python_version(),
            "pid": os.getpid(),
            "device": {"os": platform.platform(), "abi": platform.machine(), "cpus": os.cpu_count()},
        }

    def _place(self, request):
        """Pins the process before any thread starts; returns how many threads the runtime is to use."""
        affinity, threads = request["affinity"], request["threads"]
        if affinity is None:
            return threads
        try:
            os.sched_setaffinity(0, affinity)
        except (AttributeError, OSError, ValueError) as error:
            raise Refused("cannot pin to the processors %s: %s" % (affinity, error), "unsupported") from error
        # Left to themselves some runtimes start a thread for every processor of the machine and
        # pin those threads, which undoes the affinity.
        return threads or len(affinity)

    def _references(self):
        self.channel.progress("reference")
        return _arrays.load(_request.inside(self.request["bundle"], self.request["reference"]))

    def _feeds(self, references):
        """The first sample of each part, by which it is timed."""
        feeds = {}
        for part in self.request["parts"]:
            inputs = _arrays.part_inputs(references, part)
            if not inputs:
                raise _arrays.SamplesError(
                    "%s holds no inputs for part '%s'" % (self.request["reference"], part["name"])
                )
            feeds[part["name"]] = _arrays.sample(inputs, 0)
        return feeds

    def _load(self):
        """Loads every part; returns them by name and the nanoseconds it took."""
        self.channel.progress("load")
        bundle = self.request["bundle"]
        begin = perf_counter_ns()
        self.parts = {
            part["name"]: self.runtime.load(part, _request.inside(bundle, part["program"]))
            for part in self.request["parts"]
        }
        return self.parts, perf_counter_ns() - begin

    def _run_samples(self, references):
        """Runs every sample of the reference and of the inputs, and writes what came out."""
        self.channel.progress("samples")
        results = self._outputs("reference", references)
        if self.request["inputs"] is not None:
            inputs = _arrays.load(self.request["inputs"])
            results.update(self._outputs("inputs", inputs))
        self.channel.progress("write")
        _arrays.save(self.request["outputs"], results)

    def _outputs(self, origin, arrays):
        results = {}
        for part in self.request["parts"]:
            inputs = _arrays.part_inputs(arrays, part)
            if not inputs:
                continue
            loaded, outputs = self.parts[part["name"]], []
            total = len(next(iter(inputs.values())))
            for index in range(total):
                outputs.append(loaded.arrays(loaded.bind(_arrays.sample(inputs, index))()))
                self.channel.beat(index + 1, total)
            results.update(("%s/%s" % (origin, key), value) for key, value in _arrays.stack(part, outputs).items())
        return results


def _usable_processors():
    try:
        return os.sched_getaffinity(0)
    except AttributeError:
        return None
