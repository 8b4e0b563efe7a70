"""Compiles in a process of its own, so that frames go on being shown, and that it can be broken off."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_sdk import errors
from edge_sdk.bundle import Bundle
from edge_sdk.errors import EdgeSdkError
from edge_sdk.models.captioning.live.choices import PLUGIN, Choice, Offers

_STAGE = re.compile(r"\[ *[\d.]+ s\] (.*)")


class Compiler:
    """Makes the bundle of a choice by ``edge-sdk compile``, which takes it from the cache where it is there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def bundle(self, choice: Choice, offers: Offers, say: Callable[[str], None]) -> Bundle:
        """The bundle, compiled where it is not there yet.

        Args:
            choice: Which.
            offers: Where its checkpoint lies, and for what it is compiled.
            say: Called with a line as each stage starts.

        Raises:
            EdgeSdkError: What ``edge-sdk compile`` says.
        """
        words = ["compile", PLUGIN, "--target", offers.target, "--runtime", offers.runtime_name]
        words += ["--quantize", choice.precision, "--set", f"checkpoint={offers.checkpoints[choice.model]}", "--json"]
        with tempfile.TemporaryFile("w+", encoding="utf-8") as out:
            with self._lock:
                self._process = process = subprocess.Popen(
                    [sys.executable, "-m", "edge_sdk", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    start_new_session=True,
                )
            last = ""
            assert process.stderr is not None
            with process.stderr as lines:
                for line in lines:
                    last = line.strip() or last
                    if (stage := _STAGE.match(line)) and stage[1] != "done":
                        say(stage[1])
            code = process.wait()
            out.seek(0)
            content = _document(out.read())
        if code == 0 and "bundle" in content:
            return Bundle.open(content["bundle"]["path"])
        raise _error(content, f"'edge-sdk compile' ended with exit code {code}: {last[:300]}")

    def stop(self) -> None:
        """Breaks off what is being compiled."""
        with self._lock:
            process = self._process
        if process is not None and process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def checkpoints(original: Path, pruned: Path) -> dict[str, Path]:
    """The files of the models, by their names."""
    return {"original": original.expanduser().absolute(), "pruned": pruned.expanduser().absolute()}


def _document(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _error(content: dict[str, Any], otherwise: str) -> EdgeSdkError:
    told = content.get("error")
    if not isinstance(told, dict):
        return EdgeSdkError(otherwise)
    kind = getattr(errors, str(told.get("kind")), EdgeSdkError)
    known = isinstance(kind, type) and issubclass(kind, EdgeSdkError)
    return (kind if known else EdgeSdkError)(str(told.get("message")))
