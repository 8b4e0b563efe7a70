"""The semantic quantizer: each block of a slot becomes the nearest code of that block's own codebook.

Source: Wu et al., "Neural Language of Thought Models", arXiv 2402.01203; codebooks that follow by moving
averages: van den Oord et al., "Neural Discrete Representation Learning", arXiv 1711.00937, appendix A.1.

Shapes: b batch, k slots, m codebooks (blocks), n codes of a codebook, c width of a code.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.errors import ModelError
from edge_sdk.models.svq.slot_attention import BlockLinear, block_width, check_counts

_LLOYD_STEPS = 5
_SMOOTHING = 1e-5
_SPREAD = 0.1
_DEAD_SHARE = 0.05


class Quantized(NamedTuple):
    """What the quantizer made of slots.

    Attributes:
        slots: ``[b, k, slot_dim]``, quantized; gradients pass straight through.
        indices: int64 ``[b, k, m]``, the code of each block.
        loss: Commitment loss, times its cost.
        usage: Share of all codes that these slots use.
        perplexity: Number of codes that are in even use, the mean over the codebooks.
    """

    slots: Tensor
    indices: Tensor
    loss: Tensor
    usage: Tensor
    perplexity: Tensor


class SemanticVectorQuantizer(nn.Module):
    """Codebooks of the blocks of a slot, all looked up at once.

    Blocks are normalised to zero mean and unit variance before the look-up, so that no block can
    run away from its codes or shrink to meet them. In training the codes follow by moving averages;
    those that hardly any block takes are put on blocks of the batch. Where several processes train,
    each batch counts for its own process, and Lightning's DDP hands everyone the buffers of the first.

    Args:
        num_slots: Slots of an image.
        slot_dim: Width of a slot, a multiple of ``num_codebooks``.
        num_codebooks: Blocks of a slot; each has a codebook.
        codebook_size: Codes of a codebook.
        code_dim: Width of a code; where a block has another width, it is mapped to this one and back.
        commitment_cost: Weight of the commitment loss.
        ema_decay: How much of the moving averages stays at each step.
        reseed_every: Steps between two searches for dead codes.

    Raises:
        ModelError: A size is not possible.
    """

    codes: Tensor
    counts: Tensor
    sums: Tensor
    started: Tensor
    strength: Tensor
    offsets: Tensor
    steps: Tensor

    def __init__(
        self,
        num_slots: int = 4,
        slot_dim: int = 64,
        num_codebooks: int = 4,
        codebook_size: int = 512,
        code_dim: int = 16,
        commitment_cost: float = 0.25,
        *,
        ema_decay: float = 0.99,
        reseed_every: int = 50,
    ) -> None:
        super().__init__()
        sizes = {
            "num_slots": num_slots,
            "slot_dim": slot_dim,
            "num_codebooks": num_codebooks,
            "codebook_size": codebook_size,
            "reseed_every": reseed_every,
        }
        check_counts("SemanticVectorQuantizer", sizes)
        if code_dim < 2:
            raise ModelError(f"SemanticVectorQuantizer: code_dim is {code_dim}; expected 2 or more.")
        if not 0 <= ema_decay < 1:
            raise ModelError(f"SemanticVectorQuantizer: ema_decay is {ema_decay}; expected from 0 to below 1.")
        if commitment_cost < 0:
            raise ModelError(f"SemanticVectorQuantizer: commitment_cost is {commitment_cost}; expected 0 or more.")
        width = block_width("SemanticVectorQuantizer", slot_dim, num_codebooks)
        self.num_slots, self.num_codebooks, self.codebook_size = num_slots, num_codebooks, codebook_size
        self.code_dim, self.commitment_cost = code_dim, commitment_cost
        self.ema_decay, self.reseed_every = ema_decay, reseed_every
        same = width == code_dim
        self.to_code = nn.Identity() if same else BlockLinear(num_codebooks, width, code_dim)
        self.from_code = nn.Identity() if same else BlockLinear(num_codebooks, code_dim, width)
        codes = F.layer_norm(torch.randn(num_codebooks, codebook_size, code_dim), (code_dim,))
        self.register_buffer("codes", codes)
        self.register_buffer("counts", torch.ones(num_codebooks, codebook_size))
        self.register_buffer("sums", codes.clone())
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer("strength", torch.ones(()), persistent=False)
        self.register_buffer("offsets", torch.arange(num_codebooks) * codebook_size, persistent=False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # of training: a resumed run reseeds alike

    def set_strength(self, strength: float) -> None:
        """How far training moves blocks towards their codes, for a warm-up; evaluation always goes all the way.

        The commitment loss counts as much.

        Args:
            strength: 0 leaves the blocks as they are, 1 quantizes them.

        Raises:
            ModelError: ``strength`` is not from 0 to 1.
        """
        if not 0 <= strength <= 1:
            raise ModelError(f"SemanticVectorQuantizer: strength is {strength}; expected from 0 to 1.")
        self.strength.fill_(strength)

    def forward(self, slots: Tensor) -> Quantized:
        """Quantizes slots ``[b, k, slot_dim]``; in training the codes learn from them, too."""
        blocks = self._blocks(slots)
        if self.training:
            self._start(blocks)
        indices = self._nearest(blocks)
        chosen = self._chosen(indices)
        loss = self.commitment_cost * F.mse_loss(blocks, chosen)
        if self.training:
            # Blocks that are not yet moved to their codes are not drawn to them either.
            loss = loss * self.strength
        usage, perplexity = self._use(indices)
        mixed = self._mixed(blocks, chosen)
        if self.training:
            self._learn(blocks.detach(), indices)
        return Quantized(self._slots(mixed), indices, loss, usage, perplexity)

    def snap(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Quantized slots and their indices, with nothing learned and no loss."""
        blocks = self._blocks(slots)
        indices = self._nearest(blocks)
        return self._slots(self._mixed(blocks, self._chosen(indices))), indices

    def look_up(self, indices: Tensor) -> Tensor:
        """The slots ``[b, k, slot_dim]`` that indices ``[b, k, m]`` stand for."""
        return self._slots(self._chosen(indices))

    def used(self) -> tuple[Tensor, Tensor]:
        """Share of codes in use and perplexity of each codebook, both ``[m]``, by the moving averages."""
        shares = self.counts / self.counts.sum(dim=1, keepdim=True)
        alive = shares > _DEAD_SHARE / self.codebook_size
        return alive.float().mean(dim=1), _perplexity(shares)

    def _blocks(self, slots: Tensor) -> Tensor:
        x = self.to_code(slots)
        blocks = x.reshape(x.shape[0], x.shape[1], self.num_codebooks, self.code_dim)
        return F.layer_norm(blocks, (self.code_dim,))

    def _slots(self, blocks: Tensor) -> Tensor:
        return self.from_code(blocks.flatten(2))

    def _nearest(self, blocks: Tensor) -> Tensor:
        """The nearest codes ``[b, k, m]``: of |x - e|^2 only |e|^2 - 2 x e differs from code to code."""
        b, k, m, c = blocks.shape
        rows = blocks.detach().reshape(b * k, m, c).transpose(0, 1)
        # In 16 bits other codes would be the nearest than on a device.
        with torch.autocast(rows.device.type, enabled=False):
            score = torch.bmm(rows.to(self.codes.dtype), self.codes.transpose(1, 2))
            score = score - 0.5 * self.codes.square().sum(dim=2).unsqueeze(1)
        return score.argmax(dim=2).transpose(0, 1).reshape(b, k, m)

    def _chosen(self, indices: Tensor) -> Tensor:
        return F.embedding(indices + self.offsets, self.codes.flatten(0, 1))

    def _mixed(self, blocks: Tensor, chosen: Tensor) -> Tensor:
        return blocks + self.strength * (chosen - blocks).detach() if self.training else chosen

    def _use(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        counts = self._counted(indices)
        perplexity = _perplexity(counts / counts.sum(dim=1, keepdim=True))
        return (counts > 0).to(counts.dtype).mean(), perplexity.mean()

    def _counted(self, indices: Tensor) -> Tensor:
        flat = (indices + self.offsets).flatten()
        zeros = torch.zeros(self.num_codebooks * self.codebook_size, device=flat.device, dtype=self.codes.dtype)
        return zeros.index_add(0, flat, torch.ones_like(flat, dtype=zeros.dtype)).unflatten(0, self.counts.shape)

    def _summed(self, blocks: Tensor, indices: Tensor) -> Tensor:
        flat = (indices + self.offsets).flatten()
        zeros = torch.zeros_like(self.codes).flatten(0, 1)
        return zeros.index_add(0, flat, blocks.reshape(-1, self.code_dim).to(zeros.dtype)).unflatten(
            0, self.counts.shape
        )

    @torch.no_grad()
    def _learn(self, blocks: Tensor, indices: Tensor) -> None:
        """One step of the moving averages, and of the search for dead codes."""
        share = 1 - self.ema_decay
        self.counts.lerp_(self._counted(indices), share)
        self.sums.lerp_(self._summed(blocks, indices), share)
        total = self.counts.sum(dim=1, keepdim=True)
        smooth = (self.counts + _SMOOTHING) / (total + self.codebook_size * _SMOOTHING) * total
        self.codes.copy_(self.sums / smooth.unsqueeze(2))
        self.steps += 1
        if self.steps % self.reseed_every == 0:
            self._reseed(blocks)

    @torch.no_grad()
    def _reseed(self, blocks: Tensor) -> None:
        """Puts codes that less than a twentieth of their share of blocks took on blocks of this batch."""
        even = self.counts.mean(dim=1, keepdim=True)
        dead = self.counts < _DEAD_SHARE * even
        seeds = self._drawn(blocks)
        self.codes.copy_(torch.where(dead.unsqueeze(2), seeds, self.codes))
        self.counts.copy_(torch.where(dead, even, self.counts))
        self.sums.copy_(torch.where(dead.unsqueeze(2), seeds * even.unsqueeze(2), self.sums))

    def _drawn(self, blocks: Tensor) -> Tensor:
        """A block of the batch, a little moved, for every code: ``[m, n, c]``."""
        rows = blocks.reshape(-1, self.num_codebooks, self.code_dim).transpose(0, 1)
        picks = torch.randint(rows.shape[1], self.counts.shape, device=rows.device)
        drawn = torch.gather(rows, 1, picks.unsqueeze(2).expand(-1, -1, self.code_dim)).to(self.codes.dtype)
        return drawn + _SPREAD * torch.randn_like(drawn)

    @torch.no_grad()
    def _start(self, blocks: Tensor) -> None:
        """On the first batch: codes on blocks of it, then a few of Lloyd's steps."""
        if self.started:
            return
        self.codes.copy_(self._drawn(blocks))
        for _ in range(_LLOYD_STEPS):
            indices = self._nearest(blocks)
            counts = self._counted(indices).unsqueeze(2)
            means = self._summed(blocks, indices) / counts.clamp(min=1)
            self.codes.copy_(torch.where(counts > 0, means, self.codes))
        even = blocks.shape[0] * blocks.shape[1] / self.codebook_size
        self.counts.fill_(even)
        self.sums.copy_(self.codes * even)
        self.started.fill_(True)


def _perplexity(shares: Tensor) -> Tensor:
    """The exponential of the entropy of shares ``[m, n]``, ``[m]``."""
    return torch.special.entr(shares).sum(dim=1).exp()
