"""Reads checkpoints, which are untrusted: tensors and plain containers only, never code."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

_NESTED = ("state_dict", "model_state_dict")
_PREFIXES = ("module.", "model.")
_SHOWN = 3


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The weights in a file that ``torch.save`` wrote.

    Takes a state dict, or a dict that holds one as ``state_dict`` or ``model_state_dict``. The
    prefixes ``module.`` and ``model.`` that trainers put before every name are taken off.

    Raises:
        ModelError: The file is missing, is no checkpoint, or holds something else than weights.
    """
    content = load_plain(path)
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    return _without_prefixes(_tensors(path, content))


def fill(module: nn.Module, state: Mapping[str, Tensor], what: str, hint: str = "") -> None:
    """Gives a module its weights, every one of them and no other.

    Args:
        module: The module to fill.
        state: Its weights by name.
        what: Where they come from, for the message.
        hint: What to do next, for the message.

    Raises:
        ModelError: Names or shapes differ; the message lists the first few of each.
    """
    wanted = module.state_dict()
    # A batch counter serves training alone; old checkpoints lack it.
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in wanted]
    shapes = [
        f"{name} is {list(state[name].shape)} instead of {list(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    faults = [
        f"{len(names)} {kind} ({some(names)})"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]
    if faults:
        raise ModelError(f"{what} does not fit the model: of {len(wanted)} weights {'; '.join(faults)}. {hint}".strip())
    module.load_state_dict({**wanted, **state})


def load_plain(path: Path) -> Any:
    """What ``torch.save`` wrote of tensors and plain containers.

    Raises:
        ModelError: The file is missing, is no checkpoint, or holds anything else.
    """
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"there is no checkpoint at {path}.") from error
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"checkpoint {path} was refused: {_refusal(error)}. Only files of plain weights are read, for "
            "anything else could run code. Save it again with torch.save(model.state_dict(), path)."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{path} is not a checkpoint that torch.load can read: {reason}. "
            "Give a file that torch.save(model.state_dict(), path) wrote."
        ) from error


def _refusal(error: pickle.UnpicklingError) -> str:
    """The first line of PyTorch's reason that names the object, without its advice to trust the file."""
    for line in str(error).splitlines():
        if "WeightsUnpickler error" in line:
            return line.partition("WeightsUnpickler error:")[2].strip().rstrip(".")[:200] or "it holds Python objects"
    return "it holds something else than tensors"


def _tensors(path: Path, content: Any) -> dict[str, Tensor]:
    import torch

    if not isinstance(content, Mapping) or not content:
        raise ModelError(
            f"checkpoint {path} holds a {type(content).__name__}, not weights by name. "
            "Save it with torch.save(model.state_dict(), path)."
        )
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ModelError(
                f"checkpoint {path} holds more than weights: '{name}' is a {type(value).__name__}. Expected weights "
                f"by name, at the top or under one of the keys {', '.join(_NESTED)}."
            )
    return dict(content)


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    while prefix := next((prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = f", ... {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
