"""An LSTM that looks at the places of an image, word by word.

Source: Xu et al., "Show, Attend and Tell: Neural Image Caption Generation with Visual Attention", ICML 2015,
arXiv 1502.03044: soft attention with its gate, and the initial state from the mean of the places. Weights are named
as in the widely used implementations for PyTorch (``decoder.attention.encoder_att``, ``decode_step``, ``f_beta``), so
that their checkpoints fit.

Shapes: b batch, p places of an image, c channels of a place, a width of the attention, d width of the state, v words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.errors import ModelError


class State(NamedTuple):
    """What the decoder remembers: hidden state and cell, both ``[b, d]``."""

    hidden: Tensor
    cell: Tensor


class Seen(NamedTuple):
    """An image as the decoder looks at it: its places ``[b, p, c]``, and what each is found by, ``[b, p, a]``."""

    places: Tensor
    keys: Tensor


class LstmCell(nn.Module):
    """One step of an LSTM, as two matrix products and pointwise operators, which delegates and quantizers have.

    Its weights are those of `torch.nn.LSTMCell`, and so are its results.

    Args:
        input_size: Width of the input.
        hidden_size: Width of the state.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        bound = hidden_size**-0.5
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_size, input_size).uniform_(-bound, bound))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size).uniform_(-bound, bound))
        self.bias_ih = nn.Parameter(torch.empty(4 * hidden_size).uniform_(-bound, bound))
        self.bias_hh = nn.Parameter(torch.empty(4 * hidden_size).uniform_(-bound, bound))

    def forward(self, x: Tensor, state: State) -> State:
        """Input ``[b, input_size]`` and the state before to the state after."""
        gates = F.linear(x, self.weight_ih, self.bias_ih) + F.linear(state.hidden, self.weight_hh, self.bias_hh)
        return self.next_state(gates.chunk(4, dim=1), state)

    @staticmethod
    def next_state(gates: Sequence[Tensor], state: State) -> State:
        """The state after, of what the products gave for each gate, ``[b, hidden_size]``, and the state before."""
        let_in, keep, new, show = gates
        cell = torch.sigmoid(keep) * state.cell + torch.sigmoid(let_in) * torch.tanh(new)
        return State(torch.sigmoid(show) * torch.tanh(cell), cell)


class Attention(nn.Module):
    """How much each place matters for the next word.

    Args:
        encoder_dim: Channels of a place.
        decoder_dim: Width of the state.
        attention_dim: Width in which both are compared.
    """

    def __init__(self, encoder_dim: int, decoder_dim: int, attention_dim: int) -> None:
        super().__init__()
        self.encoder_att = nn.Linear(encoder_dim, attention_dim)
        self.decoder_att = nn.Linear(decoder_dim, attention_dim)
        self.full_att = nn.Linear(attention_dim, 1)

    def forward(self, seen: Seen, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """An image and hidden state ``[b, d]`` to a mixture of places ``[b, c]`` and shares ``[b, p]``."""
        compared = torch.relu(seen.keys + self.decoder_att(hidden)[:, None])
        shares = torch.softmax(self.full_att(compared)[:, :, 0], dim=1)
        return torch.bmm(shares[:, None], seen.places)[:, 0], shares


class AttentionDecoder(nn.Module):
    """Says a caption word by word.

    Args:
        vocab_size: Words.
        encoder_dim: Channels of a place.
        embed_dim: Width of a word.
        attention_dim: Width of the attention.
        decoder_dim: Width of the state.
        dropout: Share of the state that is dropped before the words are scored, in training.

    Raises:
        ModelError: A size is below 1, or the share is none.
    """

    def __init__(
        self,
        vocab_size: int,
        encoder_dim: int,
        embed_dim: int = 256,
        attention_dim: int = 256,
        decoder_dim: int = 512,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        sizes = {
            "vocab_size": vocab_size,
            "encoder_dim": encoder_dim,
            "embed_dim": embed_dim,
            "attention_dim": attention_dim,
            "decoder_dim": decoder_dim,
        }
        if faults := [f"{name} is {value}" for name, value in sizes.items() if value < 1]:
            raise ModelError(f"AttentionDecoder: {', '.join(faults)}; expected 1 or more.")
        if not 0 <= dropout < 1:
            raise ModelError(f"AttentionDecoder: dropout is {dropout:g}; expected a share from 0 to below 1.")
        self.vocab_size, self.encoder_dim, self.decoder_dim = vocab_size, encoder_dim, decoder_dim
        self.attention = Attention(encoder_dim, decoder_dim, attention_dim)
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.decode_step = LstmCell(embed_dim + encoder_dim, decoder_dim)
        self.init_h = nn.Linear(encoder_dim, decoder_dim)
        self.init_c = nn.Linear(encoder_dim, decoder_dim)
        self.f_beta = nn.Linear(decoder_dim, encoder_dim)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(decoder_dim, vocab_size)

    @classmethod
    def sized_for(cls, state: dict[str, Tensor], prefix: str = "decoder.", dropout: float = 0.5) -> AttentionDecoder:
        """A decoder of the sizes that a checkpoint's weights have; it is not filled.

        Args:
            state: Weights by name.
            prefix: What stands before the decoder's names.
            dropout: See the class.

        Raises:
            ModelError: The weights that tell the sizes are missing or are no matrices.
        """
        names = ("embedding.weight", "attention.encoder_att.weight", "init_h.weight")
        found = [state.get(prefix + name) for name in names]
        missing = [prefix + name for name, value in zip(names, found, strict=True) if value is None or value.ndim != 2]
        if missing:
            raise ModelError(
                f"the checkpoint is no captioner's: it lacks {', '.join(missing)}, which tell the decoder's sizes."
            )
        (vocab_size, embed_dim), (attention_dim, encoder_dim), (decoder_dim, _) = (
            value.shape for value in found if value is not None
        )
        return cls(vocab_size, encoder_dim, embed_dim, attention_dim, decoder_dim, dropout)

    def look(self, places: Tensor) -> Seen:
        """What all steps need of images whose places are ``[b, p, c]``; it is the same for each of them."""
        return Seen(places, self.attention.encoder_att(places))

    def start(self, places: Tensor) -> State:
        """The state before the first word of images whose places are ``[b, p, c]``."""
        mean = places.mean(dim=1)
        return State(self.init_h(mean), self.init_c(mean))

    def step(self, words: Tensor, state: State, seen: Seen) -> tuple[Tensor, State, Tensor]:
        """One word further.

        Args:
            words: The words before, int64 ``[b]``.
            state: Before them.
            seen: What `look` gave.

        Returns:
            Scores of the next word ``[b, v]``, the state, and how much each place mattered ``[b, p]``.
        """
        mixture, shares = self.attention(seen, state.hidden)
        gated = mixture * torch.sigmoid(self.f_beta(state.hidden))
        state = self.decode_step(torch.cat([self.embedding(words), gated], dim=1), state)
        return self.fc(self.dropout(state.hidden)), state, shares

    def forward(self, places: Tensor, captions: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of every next word where the words before are given.

        Args:
            places: ``[b, p, c]``.
            captions: Start, words, end and padding, int64 ``[b, t]``.

        Returns:
            Scores ``[b, t - 1, v]`` and the shares of the places ``[b, t - 1, p]``.

        Raises:
            ModelError: A caption has no word to be told.
        """
        if captions.ndim != 2 or captions.shape[1] < 2:
            raise ModelError(f"captions are {list(captions.shape)}; expected [batch, words] with a start and one more.")
        seen, state, scores, shares = self.look(places), self.start(places), [], []
        for words in captions[:, :-1].unbind(1):
            score, state, share = self.step(words, state, seen)
            scores.append(score)
            shares.append(share)
        return torch.stack(scores, dim=1), torch.stack(shares, dim=1)
