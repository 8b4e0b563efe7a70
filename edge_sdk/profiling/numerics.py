"""How far a device's outputs are from the reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import log10, sqrt
from typing import TYPE_CHECKING

import numpy as np

from edge_sdk.errors import DeviceError
from edge_sdk.schema.report import Numerics

if TYPE_CHECKING:
    from edge_sdk.schema.manifest import PartSpec

# An error of 10^15 times the signal and more is reported as -300 dB: a reference of nothing but
# zeros has no other figure.
_LEAST_RATIO = 1e-30


@dataclass
class _Sums:
    """Sums over all samples and outputs of a part, in FP64."""

    dot: float = 0.0
    signal: float = 0.0
    power: float = 0.0
    noise: float = 0.0
    max_abs_err: float = 0.0

    def add(self, reference: np.ndarray, output: np.ndarray) -> None:
        error = output - reference
        self.dot += float(np.vdot(reference, output))
        self.signal += float(np.vdot(reference, reference))
        self.power += float(np.vdot(output, output))
        self.noise += float(np.vdot(error, error))
        self.max_abs_err = max(self.max_abs_err, float(np.abs(error).max(initial=0.0)))

    @property
    def cosine(self) -> float:
        if self.signal == 0 or self.power == 0:
            return 1.0 if self.signal == self.power else 0.0
        return max(-1.0, min(1.0, self.dot / sqrt(self.signal) / sqrt(self.power)))

    @property
    def sqnr_db(self) -> float | None:
        return None if self.noise == 0 else 10 * log10(max(self.signal / self.noise, _LEAST_RATIO))


def compare(
    parts: Iterable[PartSpec], reference: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]
) -> Numerics:
    """The distance of outputs from the reference; each figure is that of the part where it is worst.

    Values that are infinite or NaN in the reference (a mask of minus infinity) must be the same in
    the output and count no further.

    Args:
        parts: The parts of the model and their outputs.
        reference: ``PART/outputs/NAME`` to ``[samples, *shape]``.
        outputs: The same keys, from the device.

    Raises:
        DeviceError: An output is missing, has another shape, or holds NaN or infinity.
    """
    sums = []
    samples = 0
    for part in parts:
        total = _Sums()
        for spec in part.outputs:
            key = f"{part.name}/outputs/{spec.name}"
            expected, found = _pair(key, reference, outputs)
            finite = _finite(key, expected, found)
            total.add(expected[finite], found[finite])
            samples = max(samples, len(expected))
        sums.append(total)
    known = [total.sqnr_db for total in sums if total.sqnr_db is not None]
    return Numerics(
        cosine=min(total.cosine for total in sums),
        max_abs_err=max(total.max_abs_err for total in sums),
        sqnr_db=min(known, default=None),
        reference=f"FP32 eager outputs of {samples} sample{'s' if samples != 1 else ''} in the bundle",
    )


def _pair(
    key: str, reference: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    if key not in outputs:
        raise DeviceError(f"the runner wrote no output '{key}'; it wrote {', '.join(sorted(outputs)) or 'none'}.")
    expected, found = reference[key], outputs[key]
    if found.dtype.kind not in "fiub":
        raise DeviceError(f"output '{key}' has the type {found.dtype}; expected numbers.")
    if expected.shape != found.shape:
        raise DeviceError(
            f"output '{key}' has the shape {list(found.shape)}, the reference {list(expected.shape)}: "
            "the bundle's program is not that of its reference. Compile the bundle again."
        )
    return expected.astype(np.float64), found.astype(np.float64)


def _finite(key: str, expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Where the reference is finite, after checking that the output is finite in the same places."""
    finite = np.isfinite(expected)
    wrong = finite & ~np.isfinite(found)
    if wrong.any():
        raise DeviceError(
            f"output '{key}' holds NaN or infinity in {int(wrong.sum())} of {wrong.size} values where the reference "
            "holds numbers: the program overflows at this precision. Compile it with another quantizer."
        )
    if not np.array_equal(expected[~finite], found[~finite], equal_nan=True):
        raise DeviceError(
            f"output '{key}' differs from the reference where that is infinite or NaN. Compile it with another "
            "quantizer."
        )
    return finite
