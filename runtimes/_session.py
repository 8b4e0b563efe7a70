"""A session: the parts stay loaded, and calls come on standard input until it ends. See docs/runner-protocol.md."""

from __future__ import annotations

import base64
import json
from time import perf_counter_ns

import _arrays
import _system
from _request import Refused

MAX_LINE = 64 << 10
MAX_BYTES = 1 << 30
KINDS = ("float32", "float16", "int64", "int32", "int8", "uint8", "bool")
FIELDS = {"part": str, "inputs": list, "kept": dict, "outputs": list, "memory": bool}


def serve(calls, parts, specs, channel, gpu_mib):
    """Answers calls until there are no more.

    Args:
        calls: A stream of bytes; each call is a line of JSON and then the bytes of its inputs.
        parts: What was loaded, by name.
        specs: ``parts`` of the request.
        channel: Takes an ``answer`` for each call.
        gpu_mib: Gives the GPU memory of this process in MiB, None where there is none.

    Raises:
        Refused: A call is not understood.
        SamplesError: Its inputs do not fit.
    """
    specs = {spec["name"]: spec for spec in specs}
    kept = {}
    while True:
        line = calls.readline(MAX_LINE)
        if not line:
            return
        call = _parse(line)
        feed = _feed(call, calls, specs, kept)
        spec = specs[call["part"]]
        loaded = parts[call["part"]]
        bound = loaded.feed(feed)
        begin = perf_counter_ns()
        result = bound()
        ns = perf_counter_ns() - begin
        outputs = loaded.arrays(result)
        if len(outputs) != len(spec["outputs"]):
            raise _arrays.SamplesError("part '%s' gives %d outputs" % (spec["name"], len(outputs)))
        named = {name: outputs[place] for place, name in enumerate(spec["outputs"])}
        kept.update(("%s/%s" % (spec["name"], name), array) for name, array in named.items())
        memory = {"resident_mib": _resident_mib(), "gpu_mib": gpu_mib()} if call["memory"] else None
        channel.send("answer", ns=ns, outputs=[_told(name, named) for name in call["outputs"]], memory=memory)


def _parse(line):
    try:
        call = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refused("a call is not a line of JSON of at most %d bytes: %s" % (MAX_LINE, error)) from error
    if not isinstance(call, dict) or set(call) != set(FIELDS):
        raise Refused("a call has the keys %s; found %.200r" % (", ".join(FIELDS), call))
    wrong = [key for key, kind in FIELDS.items() if not isinstance(call[key], kind)]
    if wrong:
        raise Refused("a call has other types than expected in %s" % ", ".join(wrong))
    return call


def _feed(call, calls, specs, kept):
    """The inputs of a call: those that came with it, and those that earlier calls left here."""
    spec = specs.get(call["part"])
    if spec is None:
        raise Refused("a call is for part %.60r; the request has %s" % (call["part"], ", ".join(specs)))
    sent = dict(_read(one, calls) for one in call["inputs"])
    for name, key in call["kept"].items():
        if key not in kept:
            raise Refused("a call wants %.100r, which no earlier call gave" % (key,))
        sent[name] = kept[key]
    if set(sent) != set(spec["inputs"]) or not set(call["outputs"]) <= set(spec["outputs"]):
        raise Refused(
            "part '%s' takes %s and gives %s; a call has %s and wants %s"
            % (spec["name"], spec["inputs"], spec["outputs"], sorted(sent), call["outputs"])
        )
    return {name: sent[name] for name in spec["inputs"]}


def _read(one, calls):
    """Name and array of an input whose bytes come next."""
    import numpy

    if not isinstance(one, dict) or set(one) != {"name", "dtype", "shape"} or one["dtype"] not in KINDS:
        raise Refused("an input of a call has name, dtype and shape; found %.200r" % (one,))
    shape = one["shape"]
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size <= MAX_BYTES for size in shape):
        raise Refused("the shape of an input is %.100r" % (shape,))
    kind = numpy.dtype(one["dtype"])
    size = kind.itemsize
    for side in shape:
        size *= side
    if size > MAX_BYTES:
        raise Refused("an input has %d bytes; at most %d are read" % (size, MAX_BYTES))
    array = numpy.empty(shape, kind)
    view = memoryview(array.reshape(-1).view(numpy.uint8))
    done = 0
    while done < size:
        count = calls.readinto(view[done:])
        if not count:
            raise Refused("the calls broke off within an input")
        done += count
    return one["name"], array


def _told(name, named):
    """An output as the answer holds it."""
    import numpy

    array = named[name]
    if array.dtype.name not in KINDS:
        raise _arrays.SamplesError("output '%s' is of type %s" % (name, array.dtype.name))
    data = base64.b64encode(numpy.ascontiguousarray(array).tobytes()).decode("ascii")
    return {"name": name, "dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def _resident_mib():
    kib = _system.status("VmRSS")
    return None if kib is None else kib / 1024
