"""The modules of ``runtimes/``, which stand alone and lie in no package."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

from edge_sdk._paths import data_dir


def device_module(name: str) -> ModuleType:
    """A module that the runners share, such as ``_timing``, as they import it."""
    sys.path.insert(0, str(data_dir("runtimes")))
    try:
        return importlib.import_module(name)
    finally:
        del sys.path[0]


def runner_module(runtime: str) -> ModuleType:
    """The program that runs a runtime, as a module. It is not started."""
    path = data_dir("runtimes") / runtime / "runner.py"
    spec = importlib.util.spec_from_file_location(f"{runtime}_runner", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
