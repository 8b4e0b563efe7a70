"""The time that a language model needs at the very least to read image tokens, by the target's peak figures.

A bound, not a measurement: no language model is run. Reading (prefill) is counted as one pass over all
tokens: each weight is read from memory once, each matrix product and causal attention is computed at the unit's
peak, keys and values are written once, and nothing else costs anything. Vocabulary logits are computed for the
last token only.

Sources: Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009, for the bound; Kaplan et al.,
"Scaling Laws for Neural Language Models", arXiv 2001.08361, section 2.1, for counting by matrices and
attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from edge_sdk.errors import ModelError
from edge_sdk.profiling.roofline import bound
from edge_sdk.schema.manifest import Cost

if TYPE_CHECKING:
    from edge_sdk.schema._base import Precision
    from edge_sdk.schema.report import Unavailable
    from edge_sdk.schema.target import ComputeUnit, Target

WEIGHT_BYTES: Mapping[Precision, float] = MappingProxyType(
    {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "int8": 1, "int4": 0.5}
)
"""Of a weight."""


def state_bytes(precision: Precision) -> int:
    """Of a number of a token, of its keys and values: 16 bits, unless the model is in FP32."""
    return 4 if precision in ("fp32", "tf32") else 2


@dataclass(frozen=True)
class LanguageModel:
    """The sizes of a decoder with gated feed-forward layers, as Llama's are.

    Attributes:
        name: What has these sizes.
        layers: How many.
        width: Of a hidden state.
        key_value_width: Of a token's keys, and of its values.
        hidden: Width of the feed-forward layers.
        vocabulary: Entries of the output.
    """

    name: str
    layers: int
    width: int
    key_value_width: int
    hidden: int
    vocabulary: int

    @property
    def layer_weights(self) -> int:
        """Weights of all layers: queries, keys, values, output, and three matrices of the feed-forward layers."""
        attention = 2 * self.width * self.width + 2 * self.width * self.key_value_width
        return self.layers * (attention + 3 * self.width * self.hidden)

    def reading(self, tokens: int, precision: Precision) -> Cost:
        """What reading so many tokens costs.

        Raises:
            ModelError: There are no tokens.
        """
        if tokens < 1:
            raise ModelError(f"a language model is to read {tokens} tokens; expected 1 or more.")
        # Token t attends t of them: products with their keys, and with their values.
        attended = tokens * (tokens + 1) // 2
        macs = tokens * self.layer_weights + self.layers * 2 * self.width * attended + self.width * self.vocabulary
        weights = self.layer_weights + self.width * self.vocabulary
        return Cost(
            macs=macs,
            weight_bytes=round(weights * WEIGHT_BYTES[precision]),
            activation_bytes=tokens * state_bytes(precision) * (self.width + 2 * self.layers * self.key_value_width),
        )


LANGUAGE_MODELS = (
    # Source: Zhang et al., "TinyLlama", arXiv 2401.02385: 4 groups of keys and values, each 64 wide.
    LanguageModel("TinyLlama 1.1B", 22, 2048, 256, 5632, 32_000),
    # Source: Touvron et al., "Llama 2", arXiv 2307.09288, and its config.json.
    LanguageModel("Llama 2 7B", 32, 4096, 4096, 11_008, 32_000),
)


@dataclass(frozen=True)
class Reading:
    """Bounds of reading an image and a question.

    Attributes:
        model: The language model's name.
        tokens: Image tokens as the encoder gives them.
        compressed: As the compressor gives them.
        text: Tokens of the question.
        without_ms: With all of the encoder's tokens, or why there is no bound.
        with_ms: With the compressed ones, without the compressor's own time.
    """

    model: str
    tokens: int
    compressed: int
    text: int
    without_ms: float | Unavailable
    with_ms: float | Unavailable


def readings(
    target: Target, unit: ComputeUnit, precision: Precision, tokens: int, compressed: int, text: int
) -> list[Reading]:
    """Bounds for each of `LANGUAGE_MODELS`.

    Args:
        target: Whose memory it is.
        unit: Which computes.
        precision: In which it computes, and weights are kept.
        tokens: Image tokens of the encoder.
        compressed: Image tokens of the compressor.
        text: Tokens beside those of the image.
    """
    found = []
    for model in LANGUAGE_MODELS:
        without, with_it = (
            bound(model.reading(count + text, precision), target, unit, precision) for count in (tokens, compressed)
        )
        found.append(Reading(model.name, tokens, compressed, text, without, with_it))
    return found
