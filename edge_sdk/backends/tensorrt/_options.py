"""The options of a target's rule for TensorRT, and what of them the runner gets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import UnsupportedError

if TYPE_CHECKING:
    from edge_sdk.pipeline.values import Graph
    from edge_sdk.schema.target import RuntimeRule

Profile = tuple[list[int], list[int], list[int]]
"""The smallest, usual and largest shape of an input."""

_CAPABILITY = re.compile(r"\d{1,2}\.\d")
_DEFAULTS: dict[str, dict[str, Any]] = {
    "rtx": {"tf32": False, "cuda_graphs": True, "compute_capabilities": "8.6,8.9,12.0"},
    "gpu": {"tf32": False, "cuda_graphs": True, "workspace_mib": 0},
    "dla": {"tf32": False, "dla_core": 0, "workspace_mib": 0},
}
"""Each delegate's options; a workspace of 0 MiB leaves its limit to TensorRT."""


def of_rule(rule: RuntimeRule) -> dict[str, Any]:
    """All options of a rule, those that it leaves out with their defaults.

    Raises:
        UnsupportedError: One is unknown or of another type.
    """
    known = _DEFAULTS[rule.delegate]
    for name, value in rule.options.items():
        where = f"tensorrt ({rule.delegate}), option '{name}'"
        if name not in known:
            raise UnsupportedError(f"{where}: there is none of that name; it has: {', '.join(sorted(known))}.")
        if type(value) is not type(known[name]):
            kind = {bool: "true or false", int: "a whole number", str: "text"}[type(known[name])]
            raise UnsupportedError(f"{where}: found {value!r:.60}, expected {kind}.")
        if isinstance(value, int) and value < 0:
            raise UnsupportedError(f"{where}: found {value}, expected 0 or more.")
    settings = {**known, **rule.options}
    if "compute_capabilities" in settings:
        capabilities(settings)
    return settings


def capabilities(settings: Mapping[str, Any]) -> list[str]:
    """The compute capabilities that an engine is built for, such as ``8.6``.

    Raises:
        UnsupportedError: They are not written as such.
    """
    named = [word.strip() for word in settings["compute_capabilities"].split(",")]
    if not all(map(_CAPABILITY.fullmatch, named)) or len(set(named)) != len(named):
        raise UnsupportedError(
            f"tensorrt (rtx), option 'compute_capabilities': found '{settings['compute_capabilities']}', expected such "
            "as '8.6,8.9'."
        )
    return named


def of_runner(
    settings: Mapping[str, Any], delegate: str, version: str | None, profiles: Mapping[str, Mapping[str, Profile]]
) -> dict[str, str | int | float | bool]:
    """The options that the runner gets: what it builds with, or what an engine that was built is tied to.

    Args:
        settings: Of `of_rule`.
        delegate: The delegate.
        version: TensorRT's version that built an engine here, None where the device builds it.
        profiles: The profiles of each part's inputs.
    """
    options: dict[str, str | int | float | bool] = {"delegate": delegate, **settings}
    if version is not None:
        return options | {"version": version}
    for part, inputs in profiles.items():
        for name, shapes in inputs.items():
            options[f"profile.{part}.{name}"] = ",".join("x".join(map(str, shape)) for shape in shapes)
    return options


def profiles(graph: Graph) -> dict[str, Profile]:
    """The profile of each input whose sizes vary: its range, and the sizes of the example between.

    Raises:
        UnsupportedError: An ONNX file's sizes vary, which tells no range.
    """
    found: dict[str, Profile] = {}
    for index, spec in enumerate(graph.inputs):
        if None not in spec.shape:
            continue
        if graph.dynamic_shapes is None:
            fixed = ",".join(str(size or 1) for size in spec.shape)
            raise UnsupportedError(
                f"input '{spec.name}' of part '{graph.name}' has sizes that vary, and an ONNX file tells no range of "
                f"them, which TensorRT needs. Fix it: --set shape.{spec.name}={fixed}."
            )
        usual = list(graph.example_inputs[index].shape)
        ranges = graph.dynamic_shapes[index]
        found[spec.name] = (_edge(usual, ranges, "min"), usual, _edge(usual, ranges, "max"))
    return found


def _edge(usual: Sequence[int], ranges: Mapping[int, Any], which: str) -> list[int]:
    return [int(getattr(ranges[place], which)) if place in ranges else size for place, size in enumerate(usual)]
