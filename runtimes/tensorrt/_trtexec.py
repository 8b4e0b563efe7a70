"""What ``trtexec`` prints and writes, read strictly; TensorRT 10 and 11.

Source of the forms: NVIDIA/TensorRT, ``samples/common`` (sampleReporting.cpp, sampleDevice.cpp, sampleEngines.cpp,
logging.h) and ``samples/trtexec`` of v10.3.0 and 11.1.
"""

from __future__ import annotations

import json
import math
import re

STEPS = ("Latency", "Enqueue Time", "H2D Latency", "GPU Compute Time", "D2H Latency")
TIMES = (
    "startEnqMs",
    "endEnqMs",
    "startH2dMs",
    "endH2dMs",
    "startComputeMs",
    "endComputeMs",
    "startD2hMs",
    "endD2hMs",
    "h2dMs",
    "computeMs",
    "d2hMs",
    "latencyMs",
)
PROFILE = ("name", "timeMs", "averageMs", "medianMs", "percentage")
MAX_NAME = 1000

_MARK = re.compile(r"&&&& (RUNNING|PASSED|FAILED) TensorRT\.trtexec \[TensorRT v(\d{4,6})\](?: \[b\d+\])? # ")
_LINE = re.compile(r"\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\] \[([VIWEF])\] ?(.*)")
_FIGURES = re.compile(
    r"min = (\S+) ms, max = (\S+) ms, mean = (\S+) ms, median = (\S+) ms((?:, percentile\(\S+%\) = \S+ ms)*)"
)
_PERCENTILE = re.compile(r", percentile\((\S+)%\) = (\S+) ms")
_SECONDS = re.compile(r"(Engine built|Engine loaded|Engine deserialized) in (\S+) sec\.")
_RAW = re.compile(r"Writing file for output binding (.+) \(with datatype (\w+) and dimensions ([\d.]*)\) to (.+)")
_FALLBACK = re.compile(r"Layer '(?P<name>.*)' \((?P<op>\w+)\): Unsupported on DLA\. Switching this layer's device")
_REFUSED = re.compile(r'While parsing node number \d+ \[(\S+)(?: -> "(.*?)")?')
_REASON = re.compile(r"ERROR: \S+ In function \w+:?")
_MEMORY = re.compile(r"out of memory|OutOfMemory|insufficient memory|not enough memory", re.IGNORECASE)
_GPU = re.compile(
    r"Cannot find any available devices|CUDA initialization failure|CUDA driver version is insufficient|"
    r"no CUDA-capable device"
)
_OTHER = re.compile(
    r"(engine plan file is (?:not compatible with this version of TensorRT|generated on an incompatible device), "
    r"expecting (?:library version|compute) \S+ got (?:compute )?\S+?)[,.]? "
)


class OutputError(Exception):
    """What trtexec printed or wrote is not in a form that is known."""


class Said:
    """What a run of trtexec said.

    Attributes:
        version: Of TensorRT, such as ``(10, 3, 0)``; None where it never came so far.
        ended: ``PASSED``, ``FAILED``, or None where it was cut short.
        gpu: The GPU's name, or None.
        compute_capability: Such as ``8.7``, or None.
        seconds: ``built``, ``loaded`` and ``deserialized`` in seconds, as far as told.
        figures: Of the performance summary, name to ``min``, ``max``, ``mean``, ``median``, ``percentiles``.
        throughput: Queries a second, or None.
        warnings: Of the performance summary, each in one line.
        fallback: Layers that the DLA leaves to the GPU: ``name`` and ``op``.
        outputs: Tensor to the type, shape and file that it was written to.
        errors: What it reported as errors.
        end: The last lines.
    """

    def __init__(self):
        self.version = self.ended = self.gpu = self.compute_capability = self.throughput = None
        self.seconds, self.figures, self.outputs = {}, {}, {}
        self.warnings, self.fallback, self.errors, self.end = [], [], [], []


def read(text):
    """What trtexec said.

    Raises:
        OutputError: A line that should hold figures does not.
    """
    said = Said()
    level, in_summary = "", False
    for line in text.split("\n"):
        # Most lines say nothing that matters: what can matter is looked at closer.
        if line.startswith("&&&& "):
            _mark(said, line)
            continue
        found = _LINE.match(line)
        if found is None:
            if level in "EF" and level and line.strip():  # a message of several lines goes on without its head
                said.errors.append(line.strip())
            continue
        level, words = found.groups()
        if level in "EF":
            said.errors.append(words.strip())
        elif level == "W":
            _warning(said, words, in_summary)
        elif words.startswith("=== "):
            in_summary = words.startswith("=== Performance summary ===")
        elif words.startswith("Explanations of the performance metrics"):
            in_summary = False
        elif in_summary:
            _figure(said, words)
        else:
            _fact(said, words)
    said.end = [line.strip() for line in text[-2000:].split("\n") if line.strip()][-3:]
    return said


def _mark(said, line):
    found = _MARK.match(line)
    if found is None:
        raise OutputError("a line that is no mark of trtexec's: %.120r" % line)
    state, digits = found.groups()
    number = int(digits)
    # Up to 8.x the version has a digit for each of its places, from 10.0 on two for the last two.
    version = (number // 10000, number // 100 % 100, number % 100) if number >= 100000 else _old(digits)
    if said.version not in (None, version):
        raise OutputError("two versions in one run: %s and %s" % (said.version, version))
    said.version = version
    said.ended = None if state == "RUNNING" else state


def _old(digits):
    return int(digits[0]), int(digits[1]), int(digits[2:])


def _warning(said, words, in_summary):
    if in_summary and words.startswith("* "):
        said.warnings.append(words[2:].strip())
    elif in_summary and words.startswith("  ") and said.warnings:
        pass  # what to try, by flags that are not the user's here
    elif "Unsupported on DLA" in words:
        found = _FALLBACK.search(words)
        if found is not None:
            said.fallback.append({key: value[:MAX_NAME] for key, value in found.groupdict().items()})


def _figure(said, words):
    name, colon, rest = words.partition(": ")
    if not colon:
        return
    if name in STEPS:
        found = _FIGURES.fullmatch(rest.strip())
        if found is None:
            raise OutputError("the figures of '%s' are not understood: %.200r" % (name, rest))
        said.figures[name] = {
            key: _number(found[place + 1], name) for place, key in enumerate(("min", "max", "mean", "median"))
        }
        said.figures[name]["percentiles"] = {
            _number(share, name): _number(value, name) for share, value in _PERCENTILE.findall(found[5])
        }
    elif name == "Throughput":
        number, _, unit = rest.strip().partition(" ")
        if unit != "qps":
            raise OutputError("the throughput is not understood: %.100r" % rest)
        said.throughput = _number(number, name)


def _fact(said, words):
    if words.startswith("Selected Device: "):
        said.gpu = words[len("Selected Device: ") :].strip()[:MAX_NAME]
    elif words.startswith("Compute Capability: "):
        said.compute_capability = words[len("Compute Capability: ") :].strip()
        if not re.fullmatch(r"\d{1,2}\.\d", said.compute_capability):
            raise OutputError("the compute capability is not understood: %.100r" % words)
    elif words.startswith("Engine "):
        found = _SECONDS.match(words)
        if found is not None:
            said.seconds[found[1].split()[1]] = _number(found[2], found[1])
    elif words.startswith("Writing file for output"):
        found = _RAW.fullmatch(words.strip())
        if found is None:
            raise OutputError("a file of outputs that is not named: %.200r" % words)
        name, kind, dims, path = found.groups()
        said.outputs[name] = (kind, [int(size) for size in dims.split(".") if size], path)


def _number(text, what):
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise OutputError("'%s' has a figure that is none: %.40r" % (what, text))
    return number


def why_not(said, code):
    """Why a run failed, ``(kind, message)`` as an ``error`` message has them; None where it passed.

    Args:
        said: What it said.
        code: Its exit code; negative: the signal that ended it.
    """
    words = "; ".join(said.errors)
    name = "trtexec%s" % (" of TensorRT %s" % text(said.version) if said.version else "")
    if code < 0:
        hint = ", perhaps because memory ran out" if code == -9 else ""
        return "runtime", "%s was killed by signal %d%s" % (name, -code, hint)
    other = _OTHER.search(words + " ")
    if other is not None:
        return "unsupported", "%s does not take the engine: the %s" % (name, other[1])
    if said.ended == "PASSED" and code == 0:
        return None
    if _GPU.search(words):
        advice = "See 'edge-sdk doctor' and the NVIDIA driver"
        return "unsupported", "%s cannot use the GPU: %s. %s" % (name, words[:600], advice)
    refused = _refused(said.errors)
    if refused is not None:
        return "unsupported", "TensorRT %s refuses the model: %s" % (text(said.version or ()), refused)
    kind = "memory" if _MEMORY.search(words) else "runtime"
    if not said.errors:
        ended = "ended in the middle" if said.ended is None else "failed"
        return kind, "%s %s with exit code %d and named no error; its last words: %s" % (
            name,
            ended,
            code,
            "; ".join(said.end) or "none",
        )
    return kind, "%s failed: %s" % (name, words[:1500])


def _refused(errors):
    """Operator, node and reason of what the parser stopped at, None where it is not that."""
    for place, line in enumerate(errors):
        found = _REFUSED.search(line)
        if found is None:
            continue
        operator, output = found.groups()
        name, reason = "", ""
        for after, following in enumerate(errors[place + 1 :], place + 1):
            if not name and re.match(r'(?:name: "|Node name: )', following):
                name = following.partition(": ")[2].strip('"')
            if _REASON.search(following):
                reason = " ".join(errors[after + 1 :][:2])
                break
        reason = re.sub(r"^\[\d+\] ", "", reason).strip().rstrip(".")
        return "operator %s, node '%s': %s" % (operator, name or output or "", reason or "no reason given")
    return None


def times(content):
    """The iterations of ``--exportTimes``, each a dict with the keys of ``TIMES``, in milliseconds.

    Raises:
        OutputError: It is something else, or was cut short.
    """
    entries = _json(content, "--exportTimes")
    if not isinstance(entries, list) or not entries:
        raise OutputError("--exportTimes wrote no iterations")
    wanted = set(TIMES)
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != wanted or not all(map(_is_time, entry.values())):
            raise OutputError("--exportTimes wrote an iteration that is none: %.200r" % (entry,))
    return entries


def profile(content):
    """Iterations, and name and median milliseconds of each layer, of ``--exportProfile``.

    Raises:
        OutputError: It is something else, or was cut short.
    """
    entries = _json(content, "--exportProfile")
    if not isinstance(entries, list) or not entries or not isinstance(entries[0], dict) or set(entries[0]) != {"count"}:
        raise OutputError("--exportProfile wrote no count")
    layers, wanted = [], set(PROFILE)
    for entry in entries[1:]:
        if not isinstance(entry, dict) or set(entry) != wanted or not isinstance(entry["name"], str):
            raise OutputError("--exportProfile wrote a layer that is none: %.200r" % (entry,))
        if not all(_is_time(entry[key]) for key in PROFILE[1:]):
            raise OutputError("--exportProfile wrote figures that are none: %.200r" % (entry,))
        layers.append((entry["name"][:MAX_NAME], float(entry["medianMs"])))
    count = entries[0]["count"]
    if type(count) is not int or count < 1:
        raise OutputError("--exportProfile counts %.40r iterations" % (count,))
    return count, layers


def _json(content, what):
    try:
        return json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise OutputError("%s wrote what is not JSON: %s" % (what, error)) from error


def _no_constant(name):
    raise ValueError("%s is no JSON number" % name)


def _is_time(value):
    return type(value) in (int, float) and 0 <= value < math.inf


def text(version):
    """A version as text."""
    return ".".join(map(str, version)) or "of unknown version"
