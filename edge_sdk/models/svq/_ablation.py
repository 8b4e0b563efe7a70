"""What each component is worth: the same run with one of them changed, and a table of all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_sdk._files import write_atomic
from edge_sdk.errors import ModelError, unknown_name
from edge_sdk.models.svq._config import Config
from edge_sdk.training.config import checked

_Values = dict[str, Any]

COLUMNS = ("psnr", "fg_ari", "miou", "perplexity", "bits_per_image", "parameters", "seconds")
"""The figures of a run in the table; one that a run does not have stays empty."""


def _base(values: _Values) -> None:
    del values


def _iterations(values: _Values) -> None:
    values["model"]["num_iterations"] = 1


def _codebooks(values: _Values) -> None:
    values["model"]["num_codebooks"] = 1


def _prior(values: _Values) -> None:
    values["prior"]["enabled"] = not values["prior"]["enabled"]


def _decoder(values: _Values) -> None:
    values["model"]["decoder"] = "transformer" if values["model"]["decoder"] == "cnn" else "cnn"


def _unquantized(values: _Values) -> None:
    values["model"]["quantize"] = "none"
    values["prior"]["enabled"] = False  # there are no codes to learn


def _quantized_after(values: _Values) -> None:
    values["model"]["quantize"] = "after"


_CHANGES: Mapping[str, Callable[[_Values], None]] = {
    "base": _base,
    "iterations": _iterations,
    "codebooks": _codebooks,
    "prior": _prior,
    "decoder": _decoder,
    "unquantized": _unquantized,
    "quantized_after": _quantized_after,
}

VARIANTS = tuple(_CHANGES)


def check_names(names: Sequence[str]) -> None:
    """Refuses variants that there are not.

    Raises:
        ModelError: A name is unknown; the message lists those that there are.
    """
    for name in names:
        if name not in _CHANGES:
            raise ModelError("ablation.only: " + unknown_name("variant", name, VARIANTS))


def variants(config: Config) -> dict[str, Config]:
    """The settings of each variant; none where no ablation is asked for.

    Raises:
        ModelError: A variant does not fit the settings.
    """
    if not config.ablation.enabled:
        return {}
    found = {}
    for name in VARIANTS:
        if config.ablation.only and name not in config.ablation.only:
            continue
        values = config.model_dump(mode="json")
        values["epochs"] = config.ablation.epochs
        values["ablation"]["enabled"] = False
        _CHANGES[name](values)
        try:
            found[name] = checked(Config, values)
        except ModelError as error:
            others = ",".join(other for other in VARIANTS if other != name)
            raise ModelError(
                f"the ablation's variant '{name}' cannot be made of these settings: {error} Change them, or leave the "
                f"variant out with ablation.only=[{others}]."
            ) from error
    return found


def summarise(folder: Path, metrics: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Writes ``ablation.json`` and ``ablation.md``.

    Args:
        folder: The sweep's folder.
        metrics: Name of each variant to what its ``metrics.json`` holds.

    Returns:
        A row for each variant.

    Raises:
        StorageError: The disk is full or not ours.
    """
    rows = [_row(name, found) for name, found in metrics.items()]
    write_atomic(folder / "ablation.json", json.dumps(rows, indent=2) + "\n")
    heads = [name.replace("_", " ") for name in ("variant", *COLUMNS)]
    lines = [heads, ["---"] * len(heads), *([_cell(value) for value in row.values()] for row in rows)]
    write_atomic(folder / "ablation.md", "".join(f"| {' | '.join(line)} |\n" for line in lines))
    return rows


def _row(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    seconds = sum(epoch["seconds"] for epoch in found["epochs"])
    figures = {**found["best"], "parameters": found["parameters"], "seconds": round(seconds, 1)}
    return {"variant": name, **{column: figures.get(column) for column in COLUMNS}}


def _cell(value: str | int | float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
