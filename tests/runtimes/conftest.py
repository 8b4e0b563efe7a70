"""The harness's own modules, and runners as processes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny

RUNTIMES = Path(__file__).parents[2] / "runtimes"
TIMING = {
    "warmup_min_runs": 3,
    "warmup_max_s": 0.5,
    "steady_within": 0.1,
    "min_runs": 20,
    "min_time_s": 0.05,
    "max_time_s": 0.3,
    "ci_within": 0.1,
}


@dataclass(frozen=True)
class Answer:
    """What a runner said and how it ended."""

    code: int
    messages: list[dict[str, Any]]
    stderr: str

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]

    @property
    def result(self) -> dict[str, Any]:
        assert self.code == 0, self.stderr
        return self.messages[-1]

    @property
    def error(self) -> dict[str, Any]:
        assert self.code == 1, self.stderr
        assert [message["type"] for message in self.messages].count("error") == 1
        return self.messages[-1]


Ask = Callable[..., Answer]


@pytest.fixture
def harness_module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Imports a module of ``runtimes/`` as its runners do."""

    def load(name: str) -> Any:
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(RUNTIMES))
            spec = importlib.util.spec_from_file_location(name, RUNTIMES / f"{name}.py")
            assert spec and spec.loader
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module

    return load


@pytest.fixture
def sysfs(tmp_path: Path) -> Callable[[dict[str, str]], str]:
    """Writes files as the kernel shows them, each whole or not at all, and returns their root."""

    def write(files: dict[str, str]) -> str:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.with_name(f".{path.name}")
            scratch.write_text(f"{text}\n")
            scratch.replace(path)
        return str(tmp_path)

    return write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle's folder with reference samples of one part."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    tiny.write_npz(folder / "reference.npz", tiny.reference())
    return folder


def request(folder: Path, program: str, parts=("forward",), **changes) -> dict[str, Any]:
    """A request as the host would write it."""
    return {
        "protocol_version": 1,
        "bundle": str(folder),
        "parts": [
            {"name": part, "program": program, "entry": part, "inputs": ["x"], "outputs": ["y"]} for part in parts
        ],
        "reference": "reference.npz",
        "inputs": None,
        "outputs": None,
        "threads": 1,
        "affinity": None,
        "options": {},
        "timing": TIMING,
        "gate": None,
        "power": None,
        "sustain": None,
        **changes,
    }


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Runs a runner with a request, and what it finds on its standard input."""

    def run(runner: str | Path, content: Any, words: Sequence[str] = (), stdin: bytes = b"") -> Answer:
        path = tmp_path / "request.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        file = RUNTIMES / runner / "runner.py" if isinstance(runner, str) else runner
        command = [sys.executable, str(file), *words, str(path)]
        done = subprocess.run(command, capture_output=True, input=stdin, timeout=120)
        messages = [json.loads(line) for line in done.stdout.splitlines()]
        return Answer(done.returncode, messages, done.stderr.decode(errors="replace"))

    return run


@pytest.fixture
def make_request() -> Callable[..., dict[str, Any]]:
    return request
