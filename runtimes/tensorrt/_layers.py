"""The layers of an engine, from what TensorRT tells of it: the inspector's JSON, or the builder's log.

A layer is ``{"name", "kind", "inputs", "outputs", "nodes"}``: ``inputs`` and ``outputs`` are the types of its tensors,
each once, ``nodes`` the ONNX nodes that it computes. Types that this version does not know go by TensorRT's own words.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache

MAX_NAME = 1000
LISTED = "Layers:"
"""How the builder's message that lists them begins, at the level VERBOSE and with detailed profiling verbosity."""

# What TensorRT calls a type: alone ("Half"), or within the name of a layout ("Row major linear FP16 format").
_TYPES = (
    ("bf16", r"BFloat16|BF16"),
    ("fp16", r"Half|FP16"),
    ("fp8", r"FP8\w*"),
    ("fp4", r"FP4\w*"),
    ("fp32", r"Float|FP32"),
    ("int4", r"Int4|INT4"),
    ("uint8", r"UInt8|UINT8"),
    ("int8", r"Int8|INT8"),
    ("int32", r"Int32|INT32"),
    ("int64", r"Int64|INT64"),
    ("bool", r"Bool|BOOL"),
)
_KNOWN = tuple((name, re.compile(r"\b(?:%s)\b" % words)) for name, words in _TYPES)
_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=\[|\x1e|\x1f|\s*$)")
_TENSOR_TYPE = re.compile(r", (?:Datatype|Format/Datatype): ([^,}]*)")
_SECTIONS = (", LayerType: ", ", Inputs: [", ", Outputs: [")


class LayersError(Exception):
    """What was read is no list of layers in a form that is known."""


def of_json(text):
    """The layers of what ``IEngineInspector`` or ``trtexec --exportLayerInfo`` gives, of TensorRT 8.4 to 11.

    Raises:
        LayersError: It is something else.
    """
    try:
        content = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise LayersError("the layer information is not JSON: %s" % error) from error
    layers = content.get("Layers") if isinstance(content, dict) else None
    if not isinstance(layers, list):
        raise LayersError("the layer information has no list 'Layers'")
    return [_of_entry(entry) for entry in layers]


def of_log(text):
    """The layers of the builder's message that begins with ``Layers:``, one a line.

    Raises:
        LayersError: It is something else.
    """
    if not text.startswith(LISTED):
        raise LayersError("the builder listed no layers; it said: %.100r" % text)
    lines = text[len(LISTED) :].strip("\n").split("\n\n")[0].split("\n")
    return [_of_line(line) for line in lines if line]


def _of_entry(entry):
    if isinstance(entry, str):  # all that there is without detailed profiling verbosity
        return _layer(entry, "", [], [], "")
    if not isinstance(entry, dict) or not isinstance(entry.get("Name"), str):
        raise LayersError("a layer has no name: %.100r" % (entry,))
    tensors = [_tensor_types(entry.get(side, [])) for side in ("Inputs", "Outputs")]
    return _layer(entry["Name"], entry.get("LayerType", ""), *tensors, metadata=entry.get("Metadata", ""))


def _tensor_types(tensors):
    if not isinstance(tensors, list) or not all(isinstance(tensor, dict) for tensor in tensors):
        raise LayersError("the tensors of a layer are %.100r" % (tensors,))
    found = [tensor.get("Datatype", tensor.get("DataType", tensor.get("Format/Datatype"))) for tensor in tensors]
    return [str(one) for one in found if one is not None]


def _of_line(line):
    if not line.startswith("Name: "):
        raise LayersError("a line that names no layer: %.100r" % line)
    name, rest = line[len("Name: ") :], None
    parts = []
    for mark in _SECTIONS:
        before, found, rest = (name if rest is None else rest).partition(mark)
        if not found:
            raise LayersError("a layer without%s: %.100r" % (mark.rstrip(" ["), line))
        parts.append(before)
    inputs, _, _ = parts[2].partition("], Constants: [")
    outputs, _, after = rest.partition("], ")
    # A tensor's own brackets are followed by a comma too; what follows the last of them are plain words.
    while after.startswith(("Strides:", "StrideOrder:", "Datatype:", "Format")):
        more, _, after = after.partition("], ")
        outputs += "], " + more
    metadata = line.rpartition(", Metadata: ")[2] if ", Metadata: " in line else ""
    return _layer(parts[0], parts[1], _TENSOR_TYPE.findall(inputs), _TENSOR_TYPE.findall(outputs), metadata)


def _layer(name, kind, inputs, outputs, metadata):
    if not isinstance(kind, str) or not isinstance(metadata, str):
        raise LayersError("the layer %.100r has a type or metadata that is no text" % name)
    return {
        "name": name[:MAX_NAME],
        "kind": kind[:MAX_NAME],
        "inputs": _once(map(_type, inputs)),
        "outputs": _once(map(_type, outputs)),
        "nodes": [node[:MAX_NAME] for node in _once(_NODE.findall(metadata))],
    }


@lru_cache(maxsize=4096)
def _type(words):
    for name, pattern in _KNOWN:
        if pattern.search(words):
            return name
    return words.strip()[:40] or "unknown"


def _once(values):
    return list(dict.fromkeys(values))


def _no_constant(name):
    raise ValueError("%s is no JSON number" % name)
