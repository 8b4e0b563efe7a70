"""Samples in and out: ``.npz`` files of numeric arrays. Needs numpy, which the runtimes bring along."""

from __future__ import annotations

import os
import zipfile
import zlib

MAX_BYTES = 8 << 30


class SamplesError(Exception):
    """A file of samples cannot be read, or what it holds does not fit."""


def load(path):
    """The arrays of a ``.npz`` by name. Pickled objects are refused.

    Raises:
        SamplesError: It is no such file, or unpacks to more than 8 GiB.
    """
    import numpy

    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_BYTES:
            raise SamplesError("%s unpacks to %d bytes; at most %d are read" % (path, size, MAX_BYTES))
        with numpy.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise SamplesError("%s is not an .npz file of numbers: %s" % (path, error)) from error


def save(path, arrays):
    """Writes arrays to a ``.npz``, whole or not at all; its folder is made where it is missing."""
    import numpy

    os.makedirs(os.path.dirname(path), exist_ok=True)
    scratch = path + ".part"
    try:
        with open(scratch, "wb") as file:
            numpy.savez(file, **arrays)
        os.replace(scratch, path)
    finally:
        if os.path.exists(scratch):
            os.remove(scratch)


def part_inputs(arrays, part):
    """The inputs of one part, ``{name: [samples, ...]}``; empty where the file holds none of them.

    Raises:
        SamplesError: Some of them are missing, or they differ in the number of samples.
    """
    keys = {name: "%s/inputs/%s" % (part["name"], name) for name in part["inputs"]}
    missing = [key for key in keys.values() if key not in arrays]
    if len(missing) == len(keys):
        return {}
    if missing:
        raise SamplesError("the samples lack %s" % ", ".join(missing))
    found = {name: arrays[key] for name, key in keys.items()}
    counts = {len(array) if array.ndim else 0 for array in found.values()}
    if len(counts) != 1 or 0 in counts:
        raise SamplesError(
            "the inputs of part '%s' have %s samples; expected one number above 0" % (part["name"], sorted(counts))
        )
    return found


def sample(inputs, index):
    """One sample of ``part_inputs``: ``{name: array}``."""
    return {name: array[index, ...] for name, array in inputs.items()}


def stack(part, outputs):
    """Outputs of many samples as ``{"PART/outputs/NAME": [samples, ...]}``.

    Raises:
        SamplesError: Their number or their shapes do not fit together.
    """
    import numpy

    if any(len(arrays) != len(part["outputs"]) for arrays in outputs):
        raise SamplesError(
            "part '%s' gives %d outputs; expected %s" % (part["name"], len(outputs[0]), ", ".join(part["outputs"]))
        )
    stacked = {}
    for place, name in enumerate(part["outputs"]):
        column = [arrays[place] for arrays in outputs]
        if len({array.shape for array in column}) != 1:
            raise SamplesError("output '%s' of part '%s' changes its shape between samples" % (name, part["name"]))
        stacked["%s/outputs/%s" % (part["name"], name)] = numpy.stack(column)
    return stacked
