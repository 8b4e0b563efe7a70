"""Runs ExecuTorch programs (.pte). ``python runner.py REQUEST.json``; see docs/runner-protocol.md."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness

# That folder holds folders named like the packages that are yet to be imported.
del sys.path[0]


class Method(harness.Loaded):
    """A method of a program. ``program`` is kept alive because the method lies in its memory."""

    def __init__(self, torch, program, method):
        self._torch = torch
        self._program = program
        self._call = method.call

    def bind(self, feed):
        """The method's call with tensors; outputs are the caller's own, as with every other runtime."""
        return partial(self._call, tuple(self._torch.from_numpy(array) for array in feed.values()))

    def arrays(self, result):
        """Outputs as arrays of their own memory."""
        return [self._torch.as_tensor(output).numpy().copy() for output in result]


class ExecuTorch(harness.Runtime):
    """ExecuTorch's Python binding; its delegates come with the program."""

    name = "executorch"

    def __init__(self):
        self._programs = {}

    def start(self, threads, options):
        """Imports torch, whose libraries the binding needs, and the binding itself.

        ``executorch.runtime`` would do too, but it imports the compiler as well: seconds, and tens of MiB.
        """
        if options:
            raise harness.Refused("the executorch runner has no options; found %s" % sorted(options), "unsupported")
        from importlib.metadata import version

        import torch
        from executorch.extension.pybindings import _portable_lib

        self._torch, self._lib = torch, _portable_lib
        if threads is not None:
            self._lib._unsafe_reset_threadpool(threads)
        return version("executorch")

    def load(self, part, path):
        """Loads a method; parts that lie in one program share it."""
        if path not in self._programs:
            check = self._lib.Verification.InternalConsistency
            self._programs[path] = self._lib._load_program(path, program_verification=check)
        program = self._programs[path]
        return Method(self._torch, program, program.load_method(part["entry"]))

    def threads(self):
        """Size of the thread pool that XNNPACK uses."""
        return self._lib._threadpool_get_thread_count()


if __name__ == "__main__":
    sys.exit(harness.main(ExecuTorch()))
