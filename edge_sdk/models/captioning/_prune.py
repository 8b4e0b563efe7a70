"""Prunes a captioner: its encoder's channels, and the widths of its decoder's state and attention.

What goes from one to the other keeps its width, so that the pruned encoder can be told what the whole one gives.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edge_sdk.models.captioning.decoder import AttentionDecoder, LstmCell, State
from edge_sdk.models.captioning.network import Captioner
from edge_sdk.pruning import Recipe, prune, zero_smallest

_GATES = 4
_PLACES = 4  # of an example


@dataclass(frozen=True)
class PrunedCaptioner:
    """A pruned captioner, and how many parameters the one had that it was made of."""

    captioner: Captioner
    parameters_before: int


def prune_captioner(captioner: Captioner, recipe: Recipe) -> PrunedCaptioner:
    """Prunes encoder and decoder, each by the recipe; the captioner itself stays as it is.

    Raises:
        UnsupportedError: So much cannot go.
        MissingDependencyError: torch-pruning is not installed.
    """
    encoder, decoder = copy.deepcopy(captioner.encoder), copy.deepcopy(captioner.decoder)
    channels = Recipe(channels=recipe.channels)
    if recipe.channels:
        encoder_inputs, decoder_inputs = examples(captioner)
        encoder = prune(encoder, encoder_inputs, channels).module
        decoder = prune(Unrolled(decoder), decoder_inputs, channels).module.decoder()
    if recipe.weights:
        for module in (encoder, decoder):
            zero_smallest(module, recipe.weights / 100)
    before = sum(parameter.numel() for parameter in captioner.parameters())
    return PrunedCaptioner(Captioner(encoder, decoder, captioner.vocabulary).eval(), before)


def examples(captioner: Captioner) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Inputs of the encoder, and of the decoder unrolled, to follow them with."""
    size = captioner.encoder.image_size
    words = torch.zeros(1, 2, dtype=torch.long)
    return (torch.zeros(1, 3, size, size),), (torch.zeros(1, _PLACES, captioner.encoder.dim), words)


class Unrolled(nn.Module):
    """Two steps of a decoder, so that the dependencies of its state can be followed.

    Args:
        decoder: It is copied.
    """

    def __init__(self, decoder: AttentionDecoder) -> None:
        super().__init__()
        self.steps = copy.deepcopy(decoder)
        self.steps.decode_step = _GateByGate(decoder.decode_step)  # type: ignore[assignment]

    def forward(self, places: Tensor, words: Tensor) -> list[Tensor]:
        """Places ``[b, p, c]`` and words int64 ``[b, 2]`` to the scores and shares of both steps."""
        seen, state, found = self.steps.look(places), self.steps.start(places), []
        for word in words.unbind(1):
            scores, state, shares = self.steps.step(word, state, seen)
            found += [scores, shares]
        return found

    def decoder(self) -> AttentionDecoder:
        """The decoder itself, of the sizes that its layers have now."""
        state = {name: value for name, value in self.steps.state_dict().items() if not name.startswith("decode_step.")}
        cell: Any = self.steps.decode_step
        state |= {f"decode_step.{name}": value for name, value in cell.together().items()}
        done = AttentionDecoder.sized_for(state, prefix="", dropout=self.steps.dropout.p)
        done.load_state_dict(state)
        return done.requires_grad_(self.steps.fc.weight.requires_grad)


class _GateByGate(nn.Module):
    """An LSTM's step with two layers for each gate."""

    def __init__(self, cell: LstmCell) -> None:
        super().__init__()
        self.ih = nn.ModuleList(_layers(cell.weight_ih, cell.bias_ih))
        self.hh = nn.ModuleList(_layers(cell.weight_hh, cell.bias_hh))

    def forward(self, x: Tensor, state: State) -> State:
        """As `LstmCell`."""
        gates = [ih(x) + hh(state.hidden) for ih, hh in zip(self.ih, self.hh, strict=True)]
        return LstmCell.next_state(gates, state)

    def together(self) -> dict[str, Tensor]:
        """The weights as `LstmCell` has them."""
        return {
            f"{kind}_{name}": torch.cat([layer.get_parameter(kind).detach() for layer in layers])
            for name, layers in (("ih", self.ih), ("hh", self.hh))
            for kind in ("weight", "bias")
        }


def _layers(weight: Tensor, bias: Tensor) -> list[nn.Linear]:
    layers = []
    for part, shift in zip(weight.chunk(_GATES), bias.chunk(_GATES), strict=True):
        layer = nn.Linear(part.shape[1], part.shape[0])
        layer.load_state_dict({"weight": part, "bias": shift})
        layers.append(layer)
    return layers
