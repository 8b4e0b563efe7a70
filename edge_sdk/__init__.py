"""Edge SDK: compile a model for a piece of hardware, run it there, and believe the figures.

Everything is imported when it is first used, so that ``import edge_sdk`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "compile": "edge_sdk.api",
    "profile": "edge_sdk.api",
    "monitor": "edge_sdk.api",
    "deploy": "edge_sdk.api",
    "evaluate": "edge_sdk.evaluation.evaluate",
    "Bundle": "edge_sdk.bundle",
    "Report": "edge_sdk.schema.report",
    "Target": "edge_sdk.schema.target",
    "load_target": "edge_sdk.schema",
    "target_names": "edge_sdk.schema",
    "Model": "edge_sdk.models.base",
    "Part": "edge_sdk.models.base",
    "EdgeSdkError": "edge_sdk.errors",
}

__all__ = [
    "Bundle",
    "EdgeSdkError",
    "Model",
    "Part",
    "Report",
    "Target",
    "__version__",
    "compile",
    "deploy",
    "evaluate",
    "load_target",
    "monitor",
    "profile",
    "target_names",
]

if TYPE_CHECKING:
    from edge_sdk.api import compile, deploy, monitor, profile
    from edge_sdk.bundle import Bundle
    from edge_sdk.errors import EdgeSdkError
    from edge_sdk.evaluation.evaluate import evaluate
    from edge_sdk.models.base import Model, Part
    from edge_sdk.schema import load_target, target_names
    from edge_sdk.schema.report import Report
    from edge_sdk.schema.target import Target


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'edge_sdk' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
