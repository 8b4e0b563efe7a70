"""A captioner as a device runs it: an image to all that the words need, and one word further.

Shapes: s image size, p places of an image, c channels of a place, a width of the attention, d width of the state,
v words.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.models.captioning.decoder import AttentionDecoder, LstmCell, Seen, State
from edge_sdk.models.captioning.encoders import PlacesEncoder

ENCODER, STEP = "encoder", "decoder_step"
IMAGE = ("image",)
BEGINNING = ("places", "keys", "hidden", "cell")
"""What ``encoder`` gives: the image as the decoder looks at it, and the state before the first word."""
STEP_INPUTS = ("word", "hidden", "cell", "places", "keys")
STEP_OUTPUTS = ("scores", "next_hidden", "next_cell", "shares")


class ImageToBeginning(nn.Module):
    """The encoder, and what of the decoder is the same for all words.

    Args:
        encoder: Gives the places.
        decoder: Looks at them.
    """

    def __init__(self, encoder: PlacesEncoder, decoder: AttentionDecoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.encoder_att, self.init_h, self.init_c = decoder.attention.encoder_att, decoder.init_h, decoder.init_c

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images ``[b, 3, s, s]`` to `BEGINNING`: ``[b, p, c]``, ``[b, p, a]``, and twice ``[b, d]``."""
        grid = self.encoder.map(images)
        places = grid.flatten(2).transpose(1, 2)
        mean = F.adaptive_avg_pool2d(grid, 1).flatten(1)
        return places, self.encoder_att(places), self.init_h(mean), self.init_c(mean)


class WordToNext(nn.Module):
    """One step of the decoder.

    Args:
        decoder: It is copied.
    """

    def __init__(self, decoder: AttentionDecoder) -> None:
        super().__init__()
        self.decoder = copy.deepcopy(decoder)
        self.decoder.decode_step = _OneProduct(decoder.decode_step)  # type: ignore[assignment]
        # Not called in a step; they would be no part of the program, but of the module's parameters.
        for name in ("init_h", "init_c"):
            delattr(self.decoder, name)
        del self.decoder.attention.encoder_att

    def forward(
        self, word: Tensor, hidden: Tensor, cell: Tensor, places: Tensor, keys: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`STEP_INPUTS`, the word int64 ``[b]``, to `STEP_OUTPUTS`: ``[b, v]``, twice ``[b, d]``, and ``[b, p]``."""
        scores, state, shares = self.decoder.step(word, State(hidden, cell), Seen(places, keys))
        return scores, state.hidden, state.cell, shares


class _OneProduct(nn.Module):
    """An LSTM's step with one matrix product instead of two."""

    def __init__(self, cell: LstmCell) -> None:
        super().__init__()
        self.gates = nn.Linear(cell.weight_ih.shape[1] + cell.weight_hh.shape[1], cell.weight_ih.shape[0])
        with torch.no_grad():
            self.gates.weight.copy_(torch.cat([cell.weight_ih, cell.weight_hh], dim=1))
            self.gates.bias.copy_(cell.bias_ih + cell.bias_hh)

    def forward(self, x: Tensor, state: State) -> State:
        """As `LstmCell`."""
        gates = self.gates(torch.cat([x, state.hidden], dim=1))
        return LstmCell.next_state(gates.chunk(4, dim=1), state)
