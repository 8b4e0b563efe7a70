"""A ``.pt2`` file: a graph that ``torch.export.save`` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk._files import sha256_file
from edge_sdk.errors import ModelError
from edge_sdk.models.base import Model, Part, Purpose, Sample, only_setting
from edge_sdk.models.user._names import model_name

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

_NO_LIMIT = 2**31 - 1
"""Largest size of a dimension that the file leaves open upwards."""


class Pt2Model(Model):
    """An exported program from a file, checked before it is loaded (see `_pt2_check`).

    Args:
        path: The file.
        settings: ``name``.
    """

    def __init__(self, path: Path, settings: Mapping[str, str]) -> None:
        only_setting(path.name, settings, ("name",))
        self.name = model_name(settings.get("name"), path.stem)
        self._path = path
        self._part: Part | None = None

    def fingerprint(self) -> Mapping[str, str]:
        """The file's hash."""
        return {"pt2": sha256_file(self._path)}

    def parts(self) -> list[Part]:
        """The program as the one part; loaded once.

        Raises:
            ModelError: The file is refused, cannot be read, or holds no example inputs.
        """
        if self._part is None:
            self._part = _part(_load(self._path), self._path)
        return [self._part]

    def samples(self, purpose: Purpose) -> list[Sample]:
        """The file's example inputs for reference; nothing to calibrate or to judge with."""
        if purpose != "reference":
            return []
        (part,) = self.parts()
        arrays = (tensor.detach().numpy() for tensor in part.example_inputs)
        return [{part.name: dict(zip(part.input_names, arrays, strict=True))}]


def _load(path: Path) -> ExportedProgram:
    import torch

    from edge_sdk.models.user._pt2_check import check

    check(path)
    try:
        return torch.export.load(path)
    except Exception as error:  # the reader raises whatever it stumbles over
        lines = str(error).strip().splitlines()
        raise ModelError(
            f"{path} cannot be loaded: {type(error).__name__}: {lines[0][:300] if lines else 'no message'}. "
            "Save it again with torch.export.save and the torch version that is installed here "
            f"({torch.__version__})."
        ) from error


def _part(program: ExportedProgram, path: Path) -> Part:
    import torch

    from edge_sdk.models.user._signature import output_names

    args, kwargs = program.example_inputs or ((), {})
    if kwargs:
        raise ModelError(f"{path} takes {', '.join(kwargs)} by keyword; export it with positional inputs only.")
    if not args or not all(isinstance(value, torch.Tensor) for value in args):
        raise ModelError(f"{path}: its inputs are {_kinds(args)}; expected tensors only. Export it with such inputs.")
    names = tuple(str(name) for name in program.graph_signature.user_inputs)
    # Without the guards that the file brings: they are Python source, which loading would run.
    module = program.module(check_guards=False)
    # A graph has no training mode; these two stand-ins raise instead of doing nothing.
    del module.train, module.eval
    with torch.no_grad():
        outputs = module(*args)
    return Part(
        "forward",
        module,
        tuple(tensor.detach() for tensor in args),
        input_names=names,
        output_names=output_names(outputs, str(path)),
        dynamic=_dynamic(program, names, path),
    )


def _dynamic(program: ExportedProgram, names: tuple[str, ...], path: Path) -> dict[str, dict[int, tuple[int, int]]]:
    """The sizes that vary, with their limits.

    Raises:
        ModelError: One size depends on another.
    """
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    found: dict[str, dict[int, tuple[int, int]]] = {}
    seen: dict[str, str] = {}
    for name in names:
        for dim, size in enumerate(nodes[name].meta["val"].shape):
            if isinstance(size, int):
                continue
            symbol, place = str(size), f"dimension {dim} of '{name}'"
            if symbol in seen or not size.node.expr.is_Symbol:
                raise ModelError(
                    f"{path}: {place} depends on {seen.get(symbol, f'another size ({symbol})')}; "
                    "only sizes that vary by themselves are supported. Export it with fixed sizes."
                )
            seen[symbol] = place
            found.setdefault(name, {})[dim] = _limits(program, size)
    return found


def _limits(program: ExportedProgram, size: torch.SymInt) -> tuple[int, int]:
    limits = program.range_constraints.get(size.node.expr)
    if limits is None:
        return 1, _NO_LIMIT
    return max(1, int(limits.lower)), int(min(limits.upper, _NO_LIMIT))


def _kinds(values: tuple) -> str:
    return ", ".join(type(value).__name__ for value in values) or "missing"
