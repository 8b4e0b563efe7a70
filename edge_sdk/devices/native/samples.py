"""Samples for a native runner program that takes each input as a file of raw bytes and writes its outputs so."""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edge_sdk.devices._protocol import BrokenStreamError
from edge_sdk.devices.native.program import Execute
from edge_sdk.schema.request import PartRequest, RunRequest

if TYPE_CHECKING:
    import numpy as np


class Files(Protocol):
    """Where files come from and go to; a `Device` is one."""

    uri: str

    def push(self, path: Path) -> str:
        """Brings a file or folder to the device and returns its path there."""
        ...

    def pull(self, remote: str, local: Path) -> None:
        """Brings a file of the device to this machine."""
        ...


@dataclass(frozen=True)
class RawSamples:
    """The samples of a request, on the device as raw bytes.

    Attributes:
        paths: For ``reference`` and ``inputs`` the files of each sample, in the order of the part's inputs.
        outputs: For each output one of the reference's samples: its type and shape are those expected.
    """

    paths: Mapping[str, list[list[str]]]
    outputs: Mapping[str, np.ndarray]


@contextmanager
def pushed(files: Files, request: RunRequest, part: PartRequest) -> Iterator[RawSamples]:
    """Reads the samples of a request on the device and brings them back there as raw bytes.

    A device that copies nothing finds them here, for as long as the block lasts.

    Raises:
        BrokenStreamError: They are not what the protocol says.
    """
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder)
        reference = _pulled(files, posixpath.join(request.bundle, request.reference), local)
        sources = {"reference": _inputs(reference, part)}
        if request.inputs is not None:
            sources["inputs"] = _inputs(_pulled(files, request.inputs, local), part)
        raw = local / "raw"
        names = {origin: _write(raw / origin, columns) for origin, columns in sources.items()}
        base = files.push(raw)
        paths = {
            origin: [[f"{base}/{origin}/{name}" for name in sample] for sample in samples]
            for origin, samples in names.items()
        }
        outputs = {name: _array(reference, f"{part.name}/outputs/{name}")[0, ...] for name in part.outputs}
        yield RawSamples(paths, outputs)


def collect(
    files: Files,
    execute: Execute,
    request: RunRequest,
    part: PartRequest,
    samples: RawSamples,
    run: Callable[[list[str], str], object],
) -> Iterator[tuple[int, int]]:
    """Runs every sample and writes what came out to ``request.outputs`` on the device.

    Args:
        files: The device.
        execute: Runs a command line there.
        request: The request, with ``outputs``.
        part: The only part.
        samples: What `pushed` gave.
        run: Runs the program with the files of a sample and what the names of its output files begin with.

    Yields:
        How many samples are done, and how many there are.

    Raises:
        BrokenStreamError: An output has not the size of the reference's.
    """
    import numpy as np

    assert request.outputs is not None
    stem = posixpath.join(posixpath.dirname(request.outputs), "sample")
    columns: dict[str, list[np.ndarray]] = {}
    total, done = sum(map(len, samples.paths.values())), 0
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder)
        for origin, of_origin in samples.paths.items():
            for paths in of_origin:
                run(paths, stem)
                for place, (name, like) in enumerate(samples.outputs.items()):
                    files.pull(f"{stem}-{place}.bin", local / "output.bin")
                    data = (local / "output.bin").read_bytes()
                    if len(data) != like.nbytes:
                        raise BrokenStreamError(
                            f"output '{name}' has {len(data)} bytes; expected {like.nbytes} as in the reference."
                        )
                    array = np.frombuffer(data, like.dtype).reshape(like.shape)
                    columns.setdefault(f"{origin}/{part.name}/outputs/{name}", []).append(array)
                done += 1
                yield done, total
        stacked: dict[str, Any] = {key: np.stack(column) for key, column in columns.items()}
        np.savez(local / "outputs.npz", **stacked)
        execute(["cp", files.push(local / "outputs.npz"), request.outputs])


def _pulled(files: Files, remote: str, folder: Path) -> dict[str, np.ndarray]:
    from edge_sdk.profiling._samples import read_outputs

    files.pull(remote, folder / "pulled.npz")
    return read_outputs(folder / "pulled.npz")


def _array(arrays: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    array = arrays.get(key)
    if array is None or array.ndim == 0 or len(array) == 0:
        raise BrokenStreamError(f"the samples on the device hold no {key}.")
    return array


def _inputs(arrays: Mapping[str, np.ndarray], part: PartRequest) -> list[np.ndarray]:
    columns = [_array(arrays, f"{part.name}/inputs/{name}") for name in part.inputs]
    if len({len(column) for column in columns}) != 1:
        raise BrokenStreamError(f"the inputs of part '{part.name}' differ in how many samples they hold.")
    return columns


def _write(folder: Path, columns: list[np.ndarray]) -> list[list[str]]:
    """Writes each input of each sample to a file; gives the names by sample."""
    folder.mkdir(parents=True)
    names = []
    for index in range(len(columns[0])):
        sample = [f"{index}-{place}.bin" for place in range(len(columns))]
        for name, column in zip(sample, columns, strict=True):
            (folder / name).write_bytes(column[index, ...].tobytes())
        names.append(sample)
    return names
