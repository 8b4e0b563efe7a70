"""Trainings that a table is made of: done once, gone on with where they were broken off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def trained(
    folder: Path,
    system: str,
    overrides: Sequence[str],
    say: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What ``metrics.json`` of a run holds: trained now, gone on with, or there already.

    Args:
        folder: The run's folder.
        system: What is trained.
        overrides: With which settings.
        say: Is told what is begun.
        environment: Variables beside those of this process.

    Raises:
        SystemExit: The folder holds a run with other settings.
    """
    told = folder.with_suffix(".settings.json")
    if told.exists() and json.loads(told.read_text()) != list(overrides):
        raise SystemExit(f"{folder} was trained with other settings ({told}): give another folder.")
    told.write_text(json.dumps(list(overrides)))
    metrics = folder / "metrics.json"
    if not (metrics.exists() and json.loads(metrics.read_text())["finished"]):
        say(f"training into {folder}: {' '.join(overrides)}")
        command = [sys.executable, "-m", "edge_sdk", "train", system]
        command += ["--resume"] if (folder / "config.yaml").exists() else overrides
        surroundings = {**os.environ, **(environment or {})}
        subprocess.run([*command, "--out", str(folder)], check=True, stdout=subprocess.DEVNULL, env=surroundings)
    return json.loads(metrics.read_text())
