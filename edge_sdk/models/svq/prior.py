"""The prior: a causal transformer over the codes of all slots, block after block, with a key-value cache.

Shapes: b batch, k slots, m codebooks, t tokens (k * m), n codes of a codebook, e width, l layers, h heads.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.errors import ModelError
from edge_sdk.models.svq.slot_attention import check_counts

_HIDDEN = -1e9


class AutoregressiveTransformer(nn.Module):
    """Tells the next code from those before it.

    A code's place is known by its slot and its block, and every block has codes and logits of its own.

    Args:
        num_slots: Slots.
        num_codebooks: Blocks of a slot.
        codebook_size: Codes of a block's codebook.
        embed_dim: Width, a multiple of ``num_heads``.
        num_heads: Heads of the attention.
        num_layers: Layers.
        dropout: Share of values that training drops after each half of a layer.

    Raises:
        ModelError: A size is not possible.
    """

    allowed: Tensor
    factors: Tensor
    offsets: Tensor
    blocks: Tensor
    here: Tensor

    def __init__(
        self,
        num_slots: int = 4,
        num_codebooks: int = 4,
        codebook_size: int = 512,
        embed_dim: int = 256,
        num_heads: int = 8,
        num_layers: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        counts = {
            "num_slots": num_slots,
            "num_codebooks": num_codebooks,
            "codebook_size": codebook_size,
            "embed_dim": embed_dim,
            "num_heads": num_heads,
            "num_layers": num_layers,
        }
        check_counts("AutoregressiveTransformer", counts)
        if embed_dim % num_heads:
            raise ModelError(f"AutoregressiveTransformer: embed_dim {embed_dim} is no multiple of {num_heads} heads.")
        if not 0 <= dropout < 1:
            raise ModelError(f"AutoregressiveTransformer: dropout is {dropout}; expected from 0 to below 1.")
        self.num_slots, self.num_codebooks, self.codebook_size = num_slots, num_codebooks, codebook_size
        self.embed_dim, self.num_heads, self.num_layers = embed_dim, num_heads, num_layers
        self.num_tokens = num_slots * num_codebooks
        self.tokens = nn.Embedding(num_codebooks * codebook_size + 1, embed_dim)
        self.slot_place = nn.Parameter(torch.randn(num_slots, 1, embed_dim) * 0.02)
        self.block_place = nn.Parameter(torch.randn(1, num_codebooks, embed_dim) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(_Layer(embed_dim, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(embed_dim)
        self.head = nn.Linear(embed_dim, num_codebooks * codebook_size)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self._add_tables()

    def forward(self, indices: Tensor) -> Tensor:
        """Logits of every code given those before it.

        Args:
            indices: int64 ``[b, k, m]`` or ``[b, t]``.

        Returns:
            Logits ``[b, k, m, n]``.

        Raises:
            ModelError: The indices are of another shape or type, or no codes.
        """
        flat = self._flat(indices)
        return self._logits(flat[:, :-1]).unflatten(1, (self.num_slots, self.num_codebooks))

    def compute_loss(self, indices: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of a code in nats, and the share of codes that the best logit tells.

        Args:
            indices: int64 ``[b, k, m]``.

        Returns:
            The loss, and ``prior_loss`` and ``prior_accuracy`` for a log.

        Raises:
            ModelError: As for `forward`.
        """
        logits = self(indices)
        loss = F.cross_entropy(logits.flatten(0, 2), indices.flatten())
        accuracy = (logits.detach().argmax(dim=-1).flatten() == indices.flatten()).float().mean()
        return loss, {"prior_loss": loss.detach(), "prior_accuracy": accuracy}

    def empty_cache(self, batch_size: int) -> Tensor:
        """A cache to begin with: zeros ``[l, 2, b, h, t, e / h]``."""
        shape = (self.num_layers, 2, batch_size, self.num_heads, self.num_tokens, self.embed_dim // self.num_heads)
        return self.slot_place.new_zeros(shape)

    def step(self, token: Tensor, position: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the code at one position, given the code before it and the cache of those before that.

        Args:
            token: int64 ``[b]``, the code at ``position - 1``; at position 0 it is not looked at.
            position: int64 ``[1]``, from 0 to t - 1.
            cache: Keys and values so far, ``[l, 2, b, h, t, e / h]``.

        Returns:
            Logits ``[b, n]``, and the cache with this position in it.
        """
        row = token * self.factors.index_select(0, position) + self.offsets.index_select(0, position)
        x = (self.tokens(row) + self._places().index_select(0, position)).unsqueeze(1)
        bias = self.allowed.index_select(0, position)
        # Written by a mask: a place that is an input cannot be indexed in a graph of fixed shapes.
        here = self.here.index_select(0, position).unsqueeze(2)
        caches: list[Tensor] = []

        def keep(new: Tensor) -> Tensor:
            old = cache[len(caches)]
            caches.append(old + here * (new - old))
            return caches[-1]

        for layer in self.layers:
            x = layer(x, bias, keep)
        logits = self.head(self.norm(x)).reshape(-1, self.num_codebooks, self.codebook_size)
        logits = (logits * self.blocks.index_select(0, position).unsqueeze(2)).sum(dim=1)
        return logits, torch.stack(caches)

    @torch.no_grad()
    def generate(
        self,
        batch_size: int,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        use_cache: bool = True,
    ) -> Tensor:
        """Draws codes one after another.

        Args:
            batch_size: How many images' codes.
            temperature: 1 draws from the distribution as learned, less from its likelier codes; 0 takes
                the likeliest code.
            generator: Random numbers; PyTorch's own where none is given.
            use_cache: Whether to keep keys and values; without, all is computed anew for every code. The
                codes are the same.

        Returns:
            Codes, int64 ``[b, k, m]``.

        Raises:
            ModelError: ``batch_size`` is below 1, or ``temperature`` below 0 or not finite.
        """
        check_counts("generate", {"batch_size": batch_size})
        if not 0 <= temperature < float("inf"):
            raise ModelError(f"generate: temperature is {temperature}; expected 0 (the likeliest code) or more.")
        was_training = self.training
        self.eval()
        try:
            return self._generated(batch_size, temperature, generator, use_cache)
        finally:
            self.train(was_training)

    def _generated(
        self, batch_size: int, temperature: float, generator: torch.Generator | None, use_cache: bool
    ) -> Tensor:
        codes = torch.zeros(batch_size, self.num_tokens, dtype=torch.int64, device=self.slot_place.device)
        cache = self.empty_cache(batch_size)
        for place in range(self.num_tokens):
            if use_cache:
                logits = self._advanced(codes[:, max(place - 1, 0)], place, cache)
            else:
                logits = self._logits(codes[:, :place])[:, -1]
            codes[:, place] = _drawn(logits, temperature, generator)
        return codes.unflatten(1, (self.num_slots, self.num_codebooks))

    def _advanced(self, before: Tensor, place: int, cache: Tensor) -> Tensor:
        """`step` for a place that is known: into the cache itself, with no work for places yet to come."""
        row = before * self.factors[place] + self.offsets[place]
        x = (self.tokens(row) + self._places()[place]).unsqueeze(1)
        for layer, old in zip(self.layers, cache, strict=True):

            def keep(new: Tensor, old: Tensor = old) -> Tensor:
                old[:, :, :, place : place + 1] = new
                return old[:, :, :, : place + 1]

            x = layer(x, None, keep)
        weight, bias = self._heads()
        block = place % self.num_codebooks
        return F.linear(self.norm(x[:, 0]), weight[block], bias[block])

    def _logits(self, before: Tensor) -> Tensor:
        """Logits ``[b, r + 1, n]`` of the first r + 1 positions from the first r codes ``[b, r]``."""
        length = before.shape[1] + 1
        shifted = F.pad(before, (1, 0))
        x = self.tokens(shifted * self.factors[:length] + self.offsets[:length]) + self._places()[:length]
        x = self.dropout(x)
        bias = self.allowed[:length, :length]
        for layer in self.layers:
            x = layer(x, bias)
        x = self.norm(x)
        # Each position needs the logits of its own block alone: a quarter of the head's work with four blocks.
        whole = -length % self.num_codebooks
        x = F.pad(x, (0, 0, 0, whole)).unflatten(1, (-1, self.num_codebooks))
        weight, own_bias = self._heads()
        logits = torch.einsum("bkme,mne->bkmn", x, weight) + own_bias
        return logits.flatten(1, 2)[:, :length]

    def _heads(self) -> tuple[Tensor, Tensor]:
        """Weights ``[m, n, e]`` and biases ``[m, n]`` of each block's logits."""
        blocks = (self.num_codebooks, self.codebook_size)
        return self.head.weight.unflatten(0, blocks), self.head.bias.unflatten(0, blocks)

    def _places(self) -> Tensor:
        return (self.slot_place + self.block_place).flatten(0, 1)

    def _add_tables(self) -> None:
        """What depends on the position alone, as tables: rows of one are what a step of any position takes."""
        m, n, t = self.num_codebooks, self.codebook_size, self.num_tokens
        position = torch.arange(t)
        # The row of a code in the embedding is code * factor + offset; the last row stands for the beginning.
        factors = (position > 0).long()
        offsets = torch.where(position > 0, (position - 1) % m * n, m * n)
        tables = {
            "allowed": torch.full((t, t), _HIDDEN).triu(1),
            "factors": factors,
            "offsets": offsets,
            "blocks": F.one_hot(position % m, m).float(),
            "here": torch.eye(t),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def _flat(self, indices: Tensor) -> Tensor:
        whole = (self.num_slots, self.num_codebooks)
        if indices.dim() not in (2, 3) or tuple(indices.shape[1:]) not in (whole, (self.num_tokens,)):
            raise ModelError(
                f"codes are {list(indices.shape)}; expected [batch, {self.num_slots}, {self.num_codebooks}]: "
                "a code for each block of each slot."
            )
        check_codes(indices, self.codebook_size)
        return indices.flatten(1)


class _Layer(nn.Module):
    """Self-attention and a network of two layers, each after a normalisation and beside a shortcut."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.after = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor | None, keep: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The layer over ``[b, r, e]``.

        Args:
            x: All positions, or with ``keep`` the newest alone.
            bias: Added to the attention of each position to each, ``[r, t]``.
            keep: Takes the keys and values of the newest, ``[2, b, h, 1, e / h]``, and returns them with those of the
                positions before.

        Returns:
            ``[b, r, e]``.
        """
        b, r, e = x.shape
        parts = self.project(self.norm(x)).reshape(b, r, 3, self.heads, e // self.heads).permute(2, 0, 3, 1, 4)
        query, both = parts[0], parts[1:]
        if keep is not None:
            both = keep(both)
        scores = query @ both[0].transpose(2, 3) * (e // self.heads) ** -0.5
        if bias is not None:
            scores = scores + bias
        mixed = torch.softmax(scores, dim=-1) @ both[1]
        x = x + self.dropout(self.out(mixed.transpose(1, 2).reshape(b, r, e)))
        return x + self.dropout(self.after(x))


def check_codes(indices: Tensor, codebook_size: int) -> None:
    """Refuses what are no codes.

    Raises:
        ModelError: The type is not int64, there is none, or one is out of range.
    """
    if indices.dtype != torch.int64:
        raise ModelError(f"codes are of type {str(indices.dtype).removeprefix('torch.')}; expected int64.")
    if indices.numel() == 0:
        raise ModelError("a batch of 0 codes came; expected at least one image's.")
    if torch.compiler.is_compiling():
        return
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= codebook_size:
        raise ModelError(f"codes go from {low} to {high}; expected from 0 to {codebook_size - 1}.")


def _drawn(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    """A code ``[b]`` from each row of logits ``[b, n]``."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    return torch.multinomial(torch.softmax(logits / temperature, dim=-1), 1, generator=generator).squeeze(1)
