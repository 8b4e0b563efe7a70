"""The public calls: compile, profile, deploy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_sdk.bundle import Bundle
    from edge_sdk.models.base import Model
    from edge_sdk.schema.report import Report
    from edge_sdk.schema.request import Timing
    from edge_sdk.schema.target import Target

Progress = Callable[[str], None]
"""Called with one line as each stage starts."""


def compile(
    model: str | Path | Model,
    target: str | Path | Target,
    *,
    quantize: str = "fp32",
    runtime: str = "auto",
    settings: Mapping[str, str] | None = None,
    out: Path | str | None = None,
    calibration: Path | str | None = None,
    max_drop: float | None = None,
    rewrites: bool = True,
    device: str = "local",
    use_cache: bool = True,
    progress: Progress | None = None,
) -> Bundle: ...


def profile(
    bundle: Bundle | Path | str,
    *,
    device: str = "local",
    timing: Timing | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report: ...


def deploy(
    model: str | Path | Model,
    target: str | Path | Target,
    *,
    inputs: Path | str | None = None,
    quantize: str = "fp32",
    runtime: str = "auto",
    settings: Mapping[str, str] | None = None,
    out: Path | str | None = None,
    calibration: Path | str | None = None,
    max_drop: float | None = None,
    rewrites: bool = True,
    device: str | None = None,
    timing: Timing | None = None,
    threads: int | None = None,
    use_cache: bool = True,
    progress: Progress | None = None,
) -> Report: ...
