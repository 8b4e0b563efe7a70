"""Reads the request and refuses what is wrong with it before anything is loaded."""

from __future__ import annotations

import json
import os

PROTOCOL_VERSION = 1
MAX_BYTES = 4 << 20


class Refused(Exception):
    """The request cannot be met. ``kind`` is what the ``error`` message says."""

    def __init__(self, message, kind="request"):
        super().__init__(message)
        self.kind = kind


_NUMBER = (int, float)
_NONE = type(None)
_FIELDS = {
    "protocol_version": int,
    "bundle": str,
    "parts": list,
    "reference": str,
    "inputs": (str, _NONE),
    "outputs": (str, _NONE),
    "threads": (int, _NONE),
    "affinity": (list, _NONE),
    "options": dict,
    "timing": (dict, _NONE),
    "gate": (dict, _NONE),
    "power": (dict, _NONE),
    "sustain": (dict, _NONE),
}
_PART = {"name": str, "program": str, "entry": str, "inputs": list, "outputs": list}
_TIMING = {
    "warmup_min_runs": int,
    "warmup_max_s": _NUMBER,
    "steady_within": _NUMBER,
    "min_runs": int,
    "min_time_s": _NUMBER,
    "max_time_s": _NUMBER,
    "ci_within": _NUMBER,
}
_GROUPS = {
    "timing": _TIMING,
    "gate": {"below_c": _NUMBER, "wait_s": _NUMBER},
    "power": {"sensors": list, "rate_hz": _NUMBER, "idle_s": _NUMBER},
    "sustain": {"time_s": _NUMBER, "window_s": _NUMBER},
}
SENSORS = ("rapl", "nvml", "ina3221", "jtop", "battery", "power_supply")
MAX_RATE_HZ = 1000


def read(argv, session=False):
    """The request of a command line, checked: version, fields, types, and that its files are there.

    Args:
        argv: One word, the path of the request.
        session: Whether it is for a session, which neither times nor writes anything.

    Raises:
        Refused: Something is wrong with it.
    """
    if len(argv) != 1:
        raise Refused("expected one argument, the path of the request; found %d" % len(argv))
    request = _parse(argv[0])
    version = request.get("protocol_version") if isinstance(request, dict) else None
    if version != PROTOCOL_VERSION:
        raise Refused("protocol version %.40r is not known; this runner speaks %d" % (version, PROTOCOL_VERSION))
    _check("request", request, _FIELDS)
    for part in request["parts"]:
        _check("parts", part, _PART)
    for name, fields in _GROUPS.items():
        if request[name] is not None:
            _check(name, request[name], fields)
    _check_values(request, session)
    for path in [request["reference"]] + [part["program"] for part in request["parts"]]:
        if not os.path.isfile(inside(request["bundle"], path)):
            raise Refused("the bundle holds no file %s" % path)
    if request["inputs"] is not None and not os.path.isfile(request["inputs"]):
        raise Refused("no file of inputs at %s" % request["inputs"])
    return request


def inside(bundle, path):
    """The full path of a file of the bundle.

    Raises:
        Refused: It leads out of the bundle, by its words or by a link.
    """
    root = os.path.realpath(bundle)
    full = os.path.realpath(os.path.join(root, path))
    if os.path.isabs(path) or os.path.commonpath([root, full]) != root:
        raise Refused("the path %.200r leads out of the bundle" % path)
    return full


def _parse(path):
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise Refused("the request is longer than %d bytes" % MAX_BYTES)
        return json.loads(text.decode("utf-8"), parse_constant=_no_constant, parse_float=_number)
    except OSError as error:
        raise Refused("the request cannot be read: %s" % error) from error
    except (ValueError, RecursionError) as error:
        raise Refused("the request is not JSON: %s" % error) from error


def _no_constant(name):
    raise ValueError("%s is no JSON number" % name)


def _number(text):
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("%.40s is too large a number" % text)
    return value


def _check(where, value, fields):
    if not isinstance(value, dict):
        raise Refused("%s: expected an object, found %s" % (where, type(value).__name__))
    wrong = ["%s.%s is missing" % (where, key) for key in fields if key not in value]
    wrong += ["%s.%s is not known" % (where, key) for key in value if key not in fields]
    for key, kinds in fields.items():
        # bool is a kind of int in Python, but true is no number in JSON.
        if key in value and (not isinstance(value[key], kinds) or isinstance(value[key], bool)):
            wrong.append("%s.%s has the type %s" % (where, key, type(value[key]).__name__))
    if wrong:
        raise Refused("; ".join(wrong))


def _check_values(request, session):
    names = [part["name"] for part in request["parts"]]
    if not names or len(set(names)) != len(names):
        raise Refused("request.parts: expected at least one part and no name twice, found %s" % names)
    for part in request["parts"]:
        if not all(isinstance(name, str) for name in part["inputs"] + part["outputs"]):
            raise Refused("parts: inputs and outputs are lists of names")
    if request["threads"] is not None and request["threads"] < 1:
        raise Refused("request.threads is %d; expected at least 1" % request["threads"])
    if request["affinity"] is not None and not all(type(cpu) is int and cpu >= 0 for cpu in request["affinity"]):
        raise Refused("request.affinity: expected processor numbers")
    if session and not (request["timing"] is request["inputs"] is request["outputs"] is None):
        raise Refused("the request of a session asks for timing or outputs; expected neither")
    if not session and request["timing"] is None and request["outputs"] is None:
        raise Refused("the request asks for neither timing nor outputs")
    if request["inputs"] is not None and request["outputs"] is None:
        raise Refused("request.inputs is given without request.outputs")
    timing = request["timing"]
    if timing is not None and not (min(timing.values()) >= 0 and timing["min_runs"] >= 1):
        raise Refused("timing: expected no negative figures and min_runs of at least 1")
    _check_measuring(request["gate"], request["power"], request["sustain"])


def _check_measuring(gate, power, sustain):
    if gate is not None and gate["wait_s"] < 0:
        raise Refused("gate.wait_s is %.40r; expected no negative figure" % gate["wait_s"])
    if power is not None:
        unknown = [sensor for sensor in power["sensors"] if sensor not in SENSORS]
        if unknown or not power["sensors"]:
            raise Refused(
                "power.sensors: expected at least one of %s; found %.200r" % (", ".join(SENSORS), power["sensors"])
            )
        if not (0 < power["rate_hz"] <= MAX_RATE_HZ and power["idle_s"] >= 0):
            raise Refused(
                "power: expected a rate_hz above 0 and up to %d, and no negative idle_s; found %.40r and %.40r"
                % (MAX_RATE_HZ, power["rate_hz"], power["idle_s"])
            )
    if sustain is not None and not (sustain["time_s"] > 0 and sustain["window_s"] > 0):
        raise Refused(
            "sustain: expected time_s and window_s above 0; found %.40r and %.40r"
            % (sustain["time_s"], sustain["window_s"])
        )
