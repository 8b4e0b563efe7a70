from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_sdk._paths import data_dir


@pytest.fixture(autouse=True)
def _only_built_in_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_SDK_TARGETS", raising=False)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of the test's own folder and returns its path."""

    def write(text: str | bytes, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def pi() -> str:
    """The text of a built-in profile, under a name of its own."""
    text = (data_dir("targets") / "raspberry-pi-5.yaml").read_text()
    return text.replace("name: raspberry-pi-5", "name: my-board")
