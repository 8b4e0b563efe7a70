"""A function in the user's own Python file. Loading it runs the file, by design."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import EdgeSdkError, ModelError, unknown_name
from edge_sdk.models.base import Model, Part, Purpose, Sample
from edge_sdk.models.user._faults import describe
from edge_sdk.models.user._names import model_name

if TYPE_CHECKING:
    import torch

_FORMS = (
    "Expected a torch.nn.Module with an attribute example_inputs, (module, example_inputs), "
    "or an edge_sdk.models.base.Model"
)


class FunctionModel(Model):
    """A module that a user's function built, with its example inputs.

    Args:
        name: The model's name.
        part: The module and its inputs.
    """

    def __init__(self, name: str, part: Part) -> None:
        self.name = name
        self._part = part

    def parts(self) -> list[Part]:
        """The module as the one part."""
        return [self._part]

    def samples(self, purpose: Purpose) -> list[Sample]:
        """The example inputs for reference; nothing to calibrate or to judge with."""
        if purpose != "reference":
            return []
        arrays = (tensor.detach().numpy() for tensor in self._part.example_inputs)
        return [{self._part.name: dict(zip(self._part.input_names, arrays, strict=True))}]


def load_function(file: Path, function: str, settings: Mapping[str, str]) -> Model:
    """Runs a Python file, then calls one of its functions.

    Args:
        file: The file. Its folder is on ``sys.path`` meanwhile.
        function: The function's name.
        settings: ``name`` of the model; all others go to the function as keyword arguments (text).

    Raises:
        ModelError: There is no such function, it fails, takes other settings or gives something else than a model.
    """
    if not function:
        raise ModelError(f"{file} is a Python file: say which of its functions builds the model. {_functions(file)}")
    arguments = {key: value for key, value in settings.items() if key != "name"}
    with _importable(file.resolve().parent):
        build = _find(_run(file), file, function)
        _check_arguments(build, file, function, arguments)
        try:
            built = build(**arguments)
        except EdgeSdkError:
            raise
        except (Exception, SystemExit) as error:
            raise ModelError(f"function '{function}' of {file} failed: {describe(error, file)}.") from error
    return _model(built, file, function, settings.get("name"))


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Lets the user's file import its neighbours."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):  # the file may have taken it off itself
            sys.path.remove(str(folder))


def _run(file: Path) -> ModuleType:
    # Registered under a name of its own: pickle and dataclasses look modules up, and nothing is shadowed.
    spec = importlib.util.spec_from_file_location(f"edge_sdk_user_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        if isinstance(error, EdgeSdkError):
            raise
        raise ModelError(f"{file} cannot be imported: {describe(error, file)}.") from error
    return module


def _find(module: ModuleType, file: Path, function: str) -> Callable[..., Any]:
    found = getattr(module, function, None)
    if not callable(found):
        known = _function_names(file)
        raise ModelError(f"{file}: " + unknown_name("function", function, known))
    return found


def _functions(file: Path) -> str:
    names = _function_names(file)
    return f"Try {file}:{names[0]}. It has: {', '.join(names)}." if names else "It has no function at its top level."


def _function_names(file: Path) -> list[str]:
    """The public functions, then the classes, at a file's top level, found without running it."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise ModelError(f"{file} cannot be imported: {describe(error, file)}.") from error
    kinds = (ast.FunctionDef, ast.ClassDef)
    found = [node.name for kind in kinds for node in tree.body if isinstance(node, kind)]
    return [name for name in found if not name.startswith("_")]


def _check_arguments(build: Callable[..., Any], file: Path, function: str, arguments: Mapping[str, str]) -> None:
    """Refuses settings that the function does not take, and missing ones that it needs."""
    try:
        parameters = inspect.signature(build).parameters.values()
    except (TypeError, ValueError):  # a builtin tells no signature; the call itself will
        return
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for key in arguments:
        if key not in named and not takes_any:
            raise ModelError(f"function '{function}' of {file}: " + unknown_name("setting", key, [*named, "name"]))
    needed = [name for name, p in named.items() if p.default is p.empty and name not in arguments]
    if needed:
        settings = " ".join(f"--set {name}=VALUE" for name in needed)
        raise ModelError(f"function '{function}' of {file} needs {', '.join(needed)}: give {settings}.")


def _model(built: Any, file: Path, function: str, name: str | None) -> Model:
    import torch

    where = f"function '{function}' of {file}"
    if isinstance(built, Model):
        if name is not None:
            raise ModelError(f"{where} gives a model that has a name of its own ('{built.name}'): leave out name.")
        return built
    if isinstance(built, torch.nn.Module):
        if not hasattr(built, "example_inputs"):
            raise ModelError(f"{where} gives a {type(built).__name__} without example inputs. {_FORMS}.")
        module, inputs = built, built.example_inputs
    elif isinstance(built, tuple) and len(built) == 2 and isinstance(built[0], torch.nn.Module):
        module, inputs = built
    else:
        raise ModelError(f"{where} gives {_kind(built)}. {_FORMS}.")
    return FunctionModel(model_name(name, function), _part(module, inputs, where, file))


def _part(module: torch.nn.Module, inputs: Any, where: str, file: Path) -> Part:
    import torch

    from edge_sdk.models.user._signature import input_tensors, output_names

    module = module.eval().cpu()
    names, tensors = input_tensors(module, inputs, where)
    try:
        with torch.no_grad():
            outputs = module(*tensors)
    except Exception as error:
        raise ModelError(f"{where}: the module fails on its example inputs: {describe(error, file)}.") from error
    return Part("forward", module, tensors, input_names=names, output_names=output_names(outputs, where))


def _kind(built: Any) -> str:
    """What a function gave, in words."""
    if built is None:
        return "nothing (None)"
    if isinstance(built, tuple | list):
        return f"a {type(built).__name__} of {', '.join(type(item).__name__ for item in built) or 'nothing'}"
    return f"a {type(built).__name__}"
