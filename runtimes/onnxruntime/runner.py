"""Runs ONNX models with ONNX Runtime. ``python runner.py REQUEST.json``; see docs/runner-protocol.md."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import _system
import harness

# That folder holds folders named like the packages that are yet to be imported.
del sys.path[0]

LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
MODES = {"sequential": "ORT_SEQUENTIAL", "parallel": "ORT_PARALLEL"}
DEFAULTS = {
    "provider": "CPUExecutionProvider",
    "graph_optimization": "all",
    "allow_spinning": True,
    "execution_mode": "sequential",
}


class Session(harness.Loaded):
    """One session; a part is one .onnx file."""

    def __init__(self, session, outputs):
        self._session = session
        self._outputs = outputs

    def bind(self, feed):
        """``session.run`` with arrays; it makes new output arrays at each call."""
        return partial(self._session.run, self._outputs, feed)

    def arrays(self, result):
        """Outputs, which are numpy arrays of their own already."""
        return list(result)


class OnnxRuntime(harness.Runtime):
    """ONNX Runtime with one execution provider and no silent fallback to another."""

    name = "onnxruntime"

    def __init__(self):
        self._providers = []
        self._threads = None

    def start(self, threads, options):
        """Imports onnxruntime and prepares the session options.

        Options: ``provider`` (an execution provider's name), ``graph_optimization`` (disable, basic,
        extended, all), ``allow_spinning`` (bool), ``execution_mode`` (sequential, parallel).
        """
        self._choose(options)
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # a measurement is no time to call home
        import onnxruntime

        self._ort, self._threads = onnxruntime, threads
        available = onnxruntime.get_available_providers()
        if self._chosen["provider"] not in available:
            raise harness.Refused(
                "the execution provider %s is not in this ONNX Runtime %s, which has %s"
                % (self._chosen["provider"], onnxruntime.__version__, ", ".join(available)),
                "unsupported",
            )
        settings = onnxruntime.SessionOptions()
        settings.graph_optimization_level = getattr(
            onnxruntime.GraphOptimizationLevel, LEVELS[self._chosen["graph_optimization"]]
        )
        settings.execution_mode = getattr(onnxruntime.ExecutionMode, MODES[self._chosen["execution_mode"]])
        spinning = "1" if self._chosen["allow_spinning"] else "0"
        settings.add_session_config_entry("session.intra_op.allow_spinning", spinning)
        if threads is not None:
            settings.intra_op_num_threads = threads
        self._settings = settings
        return onnxruntime.__version__

    def _choose(self, options):
        self._chosen = dict(DEFAULTS, **options)
        allowed = {"graph_optimization": LEVELS, "execution_mode": MODES, "allow_spinning": (True, False)}
        for name, value in options.items():
            if name not in DEFAULTS:
                raise harness.Refused(
                    "the onnxruntime runner has no option '%s'; known: %s" % (name, ", ".join(DEFAULTS)), "unsupported"
                )
            if type(value) is not type(DEFAULTS[name]) or value not in allowed.get(name, (value,)):
                raise harness.Refused("option '%s' cannot be %.60r" % (name, value), "unsupported")

    def load(self, part, path):
        """Opens a session and counts the threads that it starts."""
        before = _system.task_count()
        provider = self._chosen["provider"]
        session = self._ort.InferenceSession(path, self._settings, providers=[provider])
        session.disable_fallback()
        after = _system.task_count()
        if self._threads is None and before is not None and after is not None:
            self._threads = after - before + 1
        self._providers = session.get_providers()
        if provider not in self._providers:
            raise harness.Refused(
                "ONNX Runtime runs %s with %s instead of %s" % (path, self._providers, provider), "unsupported"
            )
        return Session(session, part["outputs"])

    def threads(self):
        """As asked for; else what the first session started and the calling thread."""
        return self._threads

    def facts(self):
        """The execution providers in use."""
        return {"providers": ", ".join(self._providers)}


if __name__ == "__main__":
    sys.exit(harness.main(OnnxRuntime()))
