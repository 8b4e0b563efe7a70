"""What a quantizer is: a frozen config, and the function that applies it to captured graphs."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from edge_sdk.errors import UnsupportedError, unknown_name

if TYPE_CHECKING:
    import onnx

    from edge_sdk.models.base import Sample
    from edge_sdk.pipeline.values import Captured, Quantized
    from edge_sdk.schema._base import Precision
    from edge_sdk.schema.manifest import SkippedLayer


STATIC_INT8 = frozenset({"int8-static", "int8-lsq"})
"""Quantizers whose graphs compute in integers throughout, with scales that are fixed beforehand."""


@dataclass(frozen=True)
class Int8Rules:
    """What static INT8 looks like where a runtime takes it.

    Attributes:
        symmetric: Whether an activation's zero point is 0.
        only_inputs: Whether a layer's result stays in float and only what layers read is quantized, with the one side
            of an addition that a layer does not give itself. Such a layer takes the addition and the activation
            function behind it into its own kernel.
        half_scales: Whether every scale is a number of FP16, so that the graph may be cast to FP16.
    """

    symmetric: bool = False
    only_inputs: bool = False
    half_scales: bool = False


AFFINE = Int8Rules()
"""Integers throughout, with zero points."""


@dataclass(frozen=True)
class Budget:
    """How much accuracy may be lost, and how it is judged.

    Attributes:
        max_drop: Largest allowed drop of ``metric``.
        metric: What drops, for messages.
        samples: Inputs to judge with.
        drop: The drop, given the outputs of ``samples`` and their FP32 outputs.
    """

    max_drop: float
    metric: str
    samples: Sequence[Sample]
    drop: Callable[[Sequence[Sample], Sequence[Sample]], float]


@dataclass(frozen=True)
class Data:
    """What a quantizer may look at besides the graph."""

    calibration: Sequence[Sample] = ()
    budget: Budget | None = None
    progress: Callable[[str], None] = lambda _: None
    rules: Int8Rules = AFFINE


class Quantizer(ABC):
    """A method that changes precision. Subclasses are frozen dataclasses; their fields are its options."""

    name: ClassVar[str]
    summary: ClassVar[str]
    precision: ClassVar[Precision]
    """What the target must allow."""
    needs_calibration: ClassVar[bool] = False
    takes_budget: ClassVar[bool] = False

    @property
    def options(self) -> dict[str, str | int | float | bool | None]:
        """The options as used."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    @property
    def float_outputs(self) -> bool:
        """Whether a quantized layer's results go to the model's outputs in float."""
        return False

    def check(self) -> None:  # noqa: B027 - most have nothing to check
        """Refuses options that nothing can be done with, before any work.

        Raises:
            EdgeSdkError: What is wrong, and what to give instead.
        """

    def apply_torch(self, captured: Captured, data: Data) -> Quantized:
        """Quantizes PyTorch graphs."""
        raise UnsupportedError(f"quantizer '{self.name}' does not work on PyTorch graphs")

    def apply_onnx(self, model: onnx.ModelProto, part: str, data: Data) -> tuple[onnx.ModelProto, list[SkippedLayer]]:
        """Quantizes the ONNX graph of one part; gives the graph and the layers it left alone."""
        raise UnsupportedError(f"quantizer '{self.name}' does not work on ONNX graphs")


def make_quantizer(name: str, settings: Mapping[str, str] | None = None) -> Quantizer:
    """A quantizer with options given as text.

    Args:
        name: Its name in the table.
        settings: Option name to text, such as ``{"calibration": "histogram"}``.

    Raises:
        UnsupportedError: The name, an option or its value is unknown.
    """
    from edge_sdk.quantization import QUANTIZERS

    kind: Any = QUANTIZERS.load(name)
    known = {field.name: field for field in fields(kind)}
    values = {}
    for key, text in (settings or {}).items():
        if key not in known:
            raise UnsupportedError(f"quantizer '{name}': " + unknown_name("option", key, known))
        values[key] = _coerce(name, key, text, known[key].default, known[key].metadata.get("choices"))
    return kind(**values)


def _coerce(quantizer: str, key: str, text: str, default: Any, choices: Sequence[str] | None):
    """``text`` as a value of the default's type."""
    where = f"quantizer '{quantizer}', option '{key}'"
    if choices is not None and text not in choices:
        raise UnsupportedError(f"{where}: {unknown_name('value', text, choices)}")
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise UnsupportedError(f"{where}: found '{text}', expected true or false")
        return text.lower() == "true"
    try:
        return type(default)(text)
    except ValueError as error:
        raise UnsupportedError(f"{where}: found '{text}', expected {type(default).__name__}") from error
