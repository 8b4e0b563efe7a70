"""The test vectors of the runner protocol through every program of this repository that speaks it.

``index.json`` says of each file whether it is valid, why, how it ends and what is said of it. The app's own
tests run the same files.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from edge_sdk.devices import _instrument
from edge_sdk.devices._protocol import conversation
from edge_sdk.errors import DeviceError, MissingDependencyError
from edge_sdk.schema import _json_schema
from edge_sdk.schema.messages import Message
from edge_sdk.schema.request import RunRequest

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors" / "runner-protocol"
INDEX = json.loads((VECTORS / "index.json").read_text("utf-8"))
RUNTIME = "onnxruntime"


def vectors(kind: str) -> pytest.MarkDecorator:
    entries = INDEX[kind]
    return pytest.mark.parametrize("entry", entries, ids=[Path(entry["file"]).stem for entry in entries])


@pytest.fixture(scope="module")
def request_module() -> Any:
    """The module with which the Python runners read a request."""
    spec = importlib.util.spec_from_file_location("vectors_request", ROOT / "runtimes" / "_request.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def request_file(entry, tmp_path) -> Path:
    """A request's vector with the folders that it names."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for name in ("forward.onnx", "reference.npz"):
        (bundle / name).write_bytes(b"")
    (tmp_path / "secret.onnx").write_bytes(b"")
    text = (VECTORS / entry["file"]).read_text("utf-8")
    path = tmp_path / "request.json"
    path.write_text(text.replace("@BUNDLE@", str(bundle)).replace("@OUT@", str(tmp_path)), encoding="utf-8")
    return path


def test_the_index_names_every_file():
    named = [entry["file"] for kind in ("requests", "answers", "instrumentation") for entry in INDEX[kind]]
    found = [path.relative_to(VECTORS).as_posix() for path in VECTORS.glob("*/*")]
    assert sorted(named) == sorted(found)


@pytest.mark.parametrize("kind", ["requests", "answers", "instrumentation"])
def test_there_are_vectors_of_both_sorts(kind):
    assert {entry["valid"] for entry in INDEX[kind]} == {True, False}
    for entry in INDEX[kind]:
        assert entry["why"] and (entry["valid"] or entry["says"]), entry["file"]


@vectors("requests")
def test_requests_as_a_runner_reads_them(entry, request_file, request_module):
    if entry["valid"]:
        assert request_module.read([str(request_file)]) == json.loads(request_file.read_text("utf-8"))
        return
    with pytest.raises(request_module.Refused) as caught:
        request_module.read([str(request_file)])
    assert entry["says"] in str(caught.value) and caught.value.kind == entry["kind"]


@vectors("requests")
def test_what_the_host_sends_is_valid(entry, request_file):
    """Whatever is valid the host can send: it comes out of the schema as it went in."""
    if entry["valid"]:
        text = request_file.read_text("utf-8")
        assert json.loads(RunRequest.model_validate_json(text).model_dump_json()) == json.loads(text)


def ended(lines: Iterator[bytes], entry) -> None:
    """Reads an answer as the SDK does, and looks whether it ends as the index says."""
    answer = conversation(lines, "test", RUNTIME, str)
    if entry["valid"] and entry["ends"] == "result":
        messages = list(answer)
        assert messages[0].type == "hello" and messages[-1].type == "result"
        adapter = TypeAdapter(Message)
        for message in messages:
            assert adapter.validate_json(message.model_dump_json()) == message
        return
    with pytest.raises((DeviceError, MissingDependencyError)) as caught:
        list(answer)
    assert entry["says"] in str(caught.value)
    assert "\x1b" not in str(caught.value)


@vectors("answers")
def test_answers_as_the_host_reads_them(entry):
    data = (VECTORS / entry["file"]).read_bytes()
    assert data.endswith(b"\n")
    ended(iter(data[:-1].split(b"\n")), entry)


@vectors("instrumentation")
def test_instrumentation_as_the_host_reads_it(entry):
    data = (VECTORS / entry["file"]).read_bytes()
    ended(_instrument.lines(data.split(b"\n")), entry)


def test_every_message_on_the_instrumentation_fits_into_its_channel():
    for entry in INDEX["answers"]:
        if entry["valid"]:
            for line in (VECTORS / entry["file"]).read_bytes().splitlines():
                assert len(line) <= 64 << 10


def test_the_schema_file_is_up_to_date():
    text = (ROOT / "docs" / "runner-protocol.schema.json").read_text("utf-8")
    assert text == _json_schema.text(), "run: python -m edge_sdk.schema._json_schema docs/runner-protocol.schema.json"


def test_the_schema_names_every_message_and_every_key():
    schema = _json_schema.runner_protocol()
    parts = schema["$defs"]
    assert set(parts["message"]["discriminator"]["mapping"]) == {
        "hello",
        "progress",
        "sample",
        "power",
        "window",
        "answer",
        "result",
        "error",
    }
    request = parts["RunRequest"]
    assert set(request["required"]) == set(RunRequest.model_fields) and request["additionalProperties"] is False
