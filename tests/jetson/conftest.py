"""Modules of ``jetson/`` as runners import them, and trees of files as a Jetson's kernel shows them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

JETSON = Path(__file__).parents[2] / "jetson"
NAMES = ("power_rails", "jtop_rails", "jtop")


@pytest.fixture
def jetson(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a module anew."""
    monkeypatch.syspath_prepend(str(JETSON))

    def forget() -> None:
        for name in NAMES:
            sys.modules.pop(name, None)

    forget()
    yield importlib.import_module
    forget()


@pytest.fixture
def monitors(tmp_path: Path) -> Callable[..., str]:
    """Writes INA3221 monitors, ``{I2C address: {channel: (label, mV, mA)}}``, and returns the root."""

    def write(chips: dict[int, dict[int, tuple[str | None, int, int]]], folder: str = "sys/bus/i2c/devices") -> str:
        for place, (address, channels) in enumerate(chips.items()):
            chip = (
                tmp_path / folder / (f"1-00{address:x}/hwmon/hwmon{place + 2}" if "i2c" in folder else f"hwmon{place}")
            )
            chip.mkdir(parents=True, exist_ok=True)
            (chip / "name").write_text("ina3221\n")
            # Beside its channels the driver shows shunt voltages and sums.
            (chip / "in7_label").write_text("sum of shunt voltages\n")
            (chip / "in7_input").write_text("760\n")
            (chip / "curr4_input").write_text("9999\n")
            for channel, (label, volts, current) in channels.items():
                if label is not None:
                    (chip / f"in{channel}_label").write_text(f"{label}\n")
                (chip / f"in{channel}_input").write_text(f"{volts}\n")
                (chip / f"curr{channel}_input").write_text(f"{current}\n")
        return str(tmp_path)

    return write
