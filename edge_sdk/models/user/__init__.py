"""Models of the user's own: a function in a Python file, a ``.pt2`` file, an ``.onnx`` file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from edge_sdk.errors import ModelError
from edge_sdk.models.base import Model
from edge_sdk.models.user.function import load_function
from edge_sdk.models.user.onnx_file import OnnxModel
from edge_sdk.models.user.pt2 import Pt2Model

__all__ = ["OnnxModel", "Pt2Model", "load_user_model"]

_FORMS = "Expected a plugin's name, FILE.py:FUNCTION, FILE.onnx or FILE.pt2."


def load_user_model(spec: str, settings: Mapping[str, str]) -> Model:
    """The model in a user's file.

    Args:
        spec: ``path/to/file.py:function``, ``model.onnx`` or ``model.pt2``.
        settings: ``name``, and what the function or the kind of file takes besides.

    Raises:
        ModelError: There is no such file, it is of another kind, or it cannot be loaded.
    """
    file, colon, function = spec.rpartition(":")
    if colon and Path(file).suffix == ".py":
        return load_function(_existing(Path(file)), function, settings)
    path = Path(spec)
    kind = path.suffix.lower()
    if kind == ".py":
        return load_function(_existing(path), "", settings)
    if kind == ".onnx":
        return OnnxModel(_existing(path), settings)
    if kind == ".pt2":
        return Pt2Model(_existing(path), settings)
    raise ModelError(f"model '{spec}' {_why_not(path)}. {_FORMS}")


def _existing(path: Path) -> Path:
    path = path.expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise ModelError(f"model file {path} is a folder.")
    beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    nearest = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.6)
    hint = f" Did you mean {path.parent / nearest[0]}?" if nearest else ""
    where = "" if path.parent.is_dir() else f" (there is no folder {path.parent} either)"
    raise ModelError(f"there is no model file {path}{where}.{hint}")


def _why_not(path: Path) -> str:
    if not path.exists():
        return "is no plugin and no file"
    if path.is_dir():
        return "is a folder"
    if path.suffix.lower() in (".pt", ".pth", ".ckpt", ".safetensors", ".bin"):
        return "holds weights without a network: write a function that builds the network and loads them into it"
    return f"is a file of a kind that the SDK does not read ('{path.suffix or path.name}')"
