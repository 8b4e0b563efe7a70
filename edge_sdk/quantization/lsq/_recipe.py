"""What is quantized to how many bits."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from edge_sdk.errors import UnsupportedError, unknown_name

Edges = Literal["8bit", "fp32", "same"]
Start = Literal["paper", "mse", "range"]
Outputs = Literal["int8", "float"]
FEWEST_BITS, MOST_BITS = 2, 8


@dataclass(frozen=True)
class Recipe:
    """How a network is quantized in training.

    Attributes:
        weight_bits: Bits of a weight, 2 to 8.
        activation_bits: Bits of what goes into a layer, 2 to 8. Sums and what goes into them have 8.
        edges: The first and the last layer: in 8 bits (as in the paper), in FP32, or like the others.
        per_channel: Whether a weight has a step for each output channel, or a single one.
        start: The first value of a step: the paper's, the one with the least squared error, or the one that covers
            the range of all values.
        outputs: ``float`` leaves what the last linear layer gives to the output as it is, ``int8`` rounds it.

    Raises:
        UnsupportedError: A value is outside of these.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    edges: Edges = "8bit"
    per_channel: bool = True
    start: Start = "range"
    outputs: Outputs = "int8"

    def __post_init__(self) -> None:
        for name in ("weight_bits", "activation_bits"):
            bits = getattr(self, name)
            if not isinstance(bits, int) or not FEWEST_BITS <= bits <= MOST_BITS:
                raise UnsupportedError(
                    f"LSQ: {name} is {bits!r}; expected a whole number from {FEWEST_BITS} to {MOST_BITS}."
                )
        for name, known in (("edges", get_args(Edges)), ("start", get_args(Start)), ("outputs", get_args(Outputs))):
            if getattr(self, name) not in known:
                raise UnsupportedError("LSQ: " + unknown_name(name, str(getattr(self, name)), known))

    def facts(self) -> dict[str, Any]:
        """Its fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
