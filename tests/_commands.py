"""What the tests of the command line share: an empty folder, small models in files, what was left behind."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import _models  # noqa: F401 - PyTorch logs to the standard error that it finds when imported: not to that of one test

from edge_sdk.cli import main

DESKTOP = ("--target", "desktop-cpu")
ORT = ("--runtime", "onnxruntime")
NET = """
    import torch

    def build(width="16"):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(16, int(width)), torch.nn.ReLU(), torch.nn.Linear(int(width), 4))
        return net, (torch.ones(1, 16),)
"""

Edge = Callable[..., tuple[int, str]]


def edge_in(folder: Path, capsys, monkeypatch) -> Edge:
    """Runs command lines in this process and in a folder; gives the exit code and what was said of the fault."""
    monkeypatch.chdir(folder)

    def run(*arguments: str | Path) -> tuple[int, str]:
        code = main(list(map(str, arguments)))
        out, err = capsys.readouterr()
        assert out == "" and "Traceback" not in err
        lines = [line for line in err.splitlines() if not line.startswith("[")]  # those are progress
        assert lines and lines[0].startswith("edge-sdk: ")
        return code, "\n".join(lines)

    return run


def write(path: Path, text: str) -> Path:
    """Writes a text that is indented as the test's source is."""
    path.write_text(textwrap.dedent(text))
    return path


def everything(folder: Path) -> set[str]:
    """All files and folders within a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} if folder.exists() else set()
