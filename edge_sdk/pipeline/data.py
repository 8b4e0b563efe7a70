"""Inputs from files: calibration data of the user's own, and photos for the model."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.errors import ModelError

if TYPE_CHECKING:
    import numpy as np

    from edge_sdk.models.base import Model, Part, Sample
    from edge_sdk.pipeline.values import Captured

PHOTOS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


def input_files(path: Path) -> list[Path]:
    """The files that ``--input`` names: a file, or the images of a folder, sorted by name.

    Raises:
        ModelError: There is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ModelError(f"--input {path}: no such file or folder.")
    files = (file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    found = sorted(file for file in files if file.suffix.lower() in PHOTOS)
    if not found:
        raise ModelError(f"--input {path}: the folder holds no image ({', '.join(sorted(PHOTOS))}).")
    return found


def read_calibration(model: Model, path: Path | None) -> list[Sample]:
    """Calibration inputs: of a ``.npz`` file, of a folder of files, or the model's own.

    A ``.npz`` holds an array for each input, named ``INPUT`` or ``PART/INPUT``, whose first dimension
    counts the samples; the rest is the shape of the input, with or without its batch dimension of 1.

    Raises:
        ModelError: The file cannot be read or does not hold the inputs.
    """
    if path is None:
        return model.samples("calibration")
    if path.is_dir():
        return [model.preprocess(file) for file in input_files(path)]
    if not path.is_file():
        raise ModelError(f"--calibration {path}: no such file or folder.")
    return _read_npz(model, path)


def check_samples(captured: Captured, samples: Sequence[Sample], purpose: str) -> None:
    """Refuses a model's own samples where they are not what its graphs take.

    Raises:
        ModelError: A part or an input is missing, or is of another type or shape.
    """
    for index, sample in enumerate(samples):
        for graph in captured.graphs:
            if graph.name not in sample:
                if purpose == "calibration":
                    continue  # parts may be calibrated on inputs of their own
                raise ModelError(f"samples('{purpose}')[{index}] has no part '{graph.name}'; it has {sorted(sample)}.")
            arrays = sample[graph.name]
            where = f"samples('{purpose}')[{index}]['{graph.name}']"
            for spec in graph.inputs:
                array = arrays.get(spec.name)
                if array is None:
                    raise ModelError(f"{where} has no input '{spec.name}'; it has {sorted(arrays)}.")
                if str(array.dtype) != spec.dtype or not _fits(array.shape, spec.shape):
                    raise ModelError(
                        f"{where}['{spec.name}'] is {array.dtype} of the shape {list(array.shape)}; "
                        f"expected {spec.dtype} of {shown(spec.shape)}."
                    )


def shown(shape: Sequence[int | None]) -> str:
    """A shape as people write it: ``[1, 3, ?, ?]``."""
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _fits(found: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(found) == len(wanted) and all(w in (None, f) for f, w in zip(found, wanted, strict=True))


def _read_npz(model: Model, path: Path) -> list[Sample]:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, TypeError) as error:
        raise ModelError(f"--calibration {path} is no .npz file of arrays: {error}") from error
    columns = {}
    for part, name, shape, dtype in _expected(model):
        array = arrays.get(f"{part}/{name}", arrays.get(name))
        if array is None:
            raise ModelError(f"--calibration {path} has no array '{name}' or '{part}/{name}'; it has {sorted(arrays)}.")
        columns[part, name] = _samples_of(array, shape, dtype, f"--calibration {path}, array '{name}'")
    counts = {len(column) for column in columns.values()}
    if len(counts) != 1 or 0 in counts:
        raise ModelError(f"--calibration {path}: the arrays hold {sorted(counts)} samples; expected one same number.")
    samples: list[dict[str, dict[str, np.ndarray]]] = [{} for _ in range(counts.pop())]
    for (part, name), column in columns.items():
        for sample, array in zip(samples, column, strict=True):
            sample.setdefault(part, {})[name] = array
    return list(samples)


def _samples_of(array: np.ndarray, shape: Sequence[int | None], dtype: str, where: str) -> list[np.ndarray]:
    if str(array.dtype) != dtype:
        raise ModelError(f"{where} is of type {array.dtype}; expected {dtype}.")
    if _fits(array.shape[1:], shape):
        return list(array)
    if shape and shape[0] in (1, None) and _fits(array.shape[1:], shape[1:]):
        return [array[index : index + 1] for index in range(len(array))]
    raise ModelError(f"{where} has the shape {list(array.shape)}; expected [samples, {shown(shape)[1:]}.")


def _expected(model: Model) -> list[tuple[str, str, tuple[int | None, ...], str]]:
    """Part, input name, shape and type of every input."""
    if model.onnx:
        from edge_sdk.pipeline._onnx_source import capture_onnx

        return [
            (graph.name, spec.name, tuple(spec.shape), spec.dtype)
            for graph in capture_onnx(model).graphs
            for spec in graph.inputs
        ]
    return [
        (part.name, name, _shape(part, name, tuple(tensor.shape)), str(tensor.dtype).removeprefix("torch."))
        for part in model.parts()
        for name, tensor in zip(part.input_names, part.example_inputs, strict=True)
    ]


def _shape(part: Part, name: str, shape: tuple[int, ...]) -> tuple[int | None, ...]:
    return tuple(None if dim in part.dynamic.get(name, {}) else size for dim, size in enumerate(shape))
