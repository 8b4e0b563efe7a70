"""Inputs to a device and outputs from it, as ``.npz`` files."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_sdk._files import storage_error
from edge_sdk.errors import DeviceError, UnsupportedError

if TYPE_CHECKING:
    from edge_sdk.models.base import Sample
    from edge_sdk.schema.manifest import PartSpec

_MAX_BYTES = 8 << 30


def write_inputs(path: Path, parts: Sequence[PartSpec], inputs: Sequence[Sample]) -> None:
    """Stacks samples to ``PART/inputs/NAME``; parts that the samples leave out are left out.

    Raises:
        UnsupportedError: The samples lack an input, or differ in their shapes.
    """
    arrays = {}
    for part in parts:
        if part.name not in inputs[0]:
            continue
        for spec in part.inputs:
            column = [_array(sample, part.name, spec.name) for sample in inputs]
            shapes = {array.shape for array in column}
            if len(shapes) != 1:
                raise UnsupportedError(
                    f"input '{spec.name}' of part '{part.name}' has {len(shapes)} different shapes in {len(inputs)} "
                    f"inputs, such as {sorted(shapes)[:2]}; run them in groups of one shape."
                )
            arrays[f"{part.name}/inputs/{spec.name}"] = np.stack(column)
    try:
        np.savez(path, **arrays)
    except OSError as error:
        raise storage_error(path, error) from error


def read_outputs(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that a device wrote, with nothing in it trusted.

    Raises:
        DeviceError: It is no ``.npz`` of numbers, or unpacks to more than 8 GiB.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > _MAX_BYTES:
            raise ValueError(f"it unpacks to {size} bytes; at most {_MAX_BYTES} are read")
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise DeviceError(f"the outputs that the runner wrote cannot be read: {error}") from error


def of_reference(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of the bundle's reference samples, under the keys of its reference."""
    prefix = "reference/"
    return {key[len(prefix) :]: array for key, array in arrays.items() if key.startswith(prefix)}


def of_inputs(arrays: Mapping[str, np.ndarray], parts: Sequence[PartSpec], count: int) -> tuple[Sample, ...]:
    """The outputs of ``count`` further inputs, one `Sample` for each.

    Raises:
        DeviceError: They are not all there.
    """
    stacked: dict[str, dict[str, np.ndarray]] = {}
    for part in parts:
        for spec in part.outputs:
            array = arrays.get(f"inputs/{part.name}/outputs/{spec.name}")
            if array is None:
                continue
            if array.ndim == 0 or len(array) != count:
                raise DeviceError(f"output '{spec.name}' of part '{part.name}' does not hold {count} samples.")
            stacked.setdefault(part.name, {})[spec.name] = array
    if count and not stacked:
        raise DeviceError("the runner wrote no outputs for the inputs that it was given.")
    return tuple(
        {part: {name: array[index, ...] for name, array in outputs.items()} for part, outputs in stacked.items()}
        for index in range(count)
    )


def _array(sample: Sample, part: str, name: str) -> np.ndarray:
    try:
        return np.asarray(sample[part][name])
    except KeyError as error:
        raise UnsupportedError(
            f"an input lacks '{name}' of part '{part}'; every input needs the same parts and names."
        ) from error
