"""Slot attention: a small convolutional encoder whose positions compete for a few slots.

Source: Locatello et al., "Object-Centric Learning with Slot Attention", NeurIPS 2020, arXiv
2006.15055. The recurrent cell of blocks, and the quantizer inside each iteration: Wu et al., arXiv
2402.01203. Learned initial slots, and their gradient: Jia, Liu and Huang, "Improving Object-centric
Learning with Query Optimization", ICLR 2023, arXiv 2210.08990.

Shapes: b batch, s image size, p positions, k slots, d slot size, m blocks of a slot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn

from edge_sdk.errors import ModelError

if TYPE_CHECKING:
    from edge_sdk.models.svq.quantizer import Quantized, SemanticVectorQuantizer

Init = Literal["random", "learned"]

_SMALL = 32
_PLACE_GAIN = 0.3
_EPSILON = 1e-8


class Attended(NamedTuple):
    """What slot attention found.

    Attributes:
        slots: ``[b, k, d]``, quantized where a quantizer works inside the iterations.
        attention: ``[b, p, k]``, how much of each position each slot has; sums to 1 over the slots.
        quantized: What the quantizer says of the last iteration, None without one.
    """

    slots: Tensor
    attention: Tensor
    quantized: Quantized | None


class BlockLinear(nn.Module):
    """A linear layer of each block by itself: one of a block-diagonal matrix, without a loop over the blocks.

    Args:
        num_blocks: Blocks; with 1 it is an ordinary linear layer.
        features_in: Width of a block that enters.
        features_out: Width of a block that leaves.
    """

    def __init__(self, num_blocks: int, features_in: int, features_out: int) -> None:
        super().__init__()
        bound = features_in**-0.5
        self.weight = nn.Parameter(torch.empty(num_blocks, features_in, features_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_blocks * features_out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """``[b, k, m * features_in]`` to ``[b, k, m * features_out]``."""
        blocks, features_in, _ = self.weight.shape
        apart = x.reshape(-1, blocks, features_in).transpose(0, 1)
        together = torch.bmm(apart, self.weight).transpose(0, 1)
        return together.reshape(x.shape[0], x.shape[1], -1) + self.bias


class BlockGru(nn.Module):
    """A gated recurrent unit of each block by itself.

    Args:
        num_blocks: Blocks; with 1 it is an ordinary unit.
        width: Width of a block.
    """

    def __init__(self, num_blocks: int, width: int) -> None:
        super().__init__()
        self.num_blocks, self.width = num_blocks, width
        self.from_input = BlockLinear(num_blocks, width, 3 * width)
        self.from_state = BlockLinear(num_blocks, width, 3 * width)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        """The next state ``[b, k, d]`` from an input and the state, both ``[b, k, d]``."""
        reset_x, update_x, new_x = self._gates(self.from_input(x))
        reset_h, update_h, new_h = self._gates(self.from_state(state))
        update = torch.sigmoid(update_x + update_h)
        new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
        return new + update * (state - new)

    def _gates(self, x: Tensor) -> tuple[Tensor, ...]:
        b, k, _ = x.shape
        apart = x.reshape(b, k, self.num_blocks, 3, self.width).unbind(3)
        return tuple(gate.reshape(b, k, self.num_blocks * self.width) for gate in apart)


class PositionEmbedding(nn.Module):
    """Adds a learned linear function of the place: the distances to the four edges, from 0 to 1.

    Args:
        size: Positions each way.
        channels: Channels of what it is added to.
        gain: How large the function is at first, 1 for PyTorch's own start.
    """

    grid: Tensor

    def __init__(self, size: int, channels: int, gain: float = 1.0) -> None:
        super().__init__()
        line = torch.linspace(0, 1, size)
        y, x = torch.meshgrid(line, line, indexing="ij")
        self.register_buffer("grid", torch.stack([y, x, 1 - y, 1 - x], dim=-1), persistent=False)
        self.project = nn.Linear(4, channels)
        with torch.no_grad():
            for parameter in self.project.parameters():
                parameter.mul_(gain)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, channels, size, size]``, or one broadcast over the positions, to the same with places."""
        return x + self.project(self.grid).permute(2, 0, 1)


class SlotAttentionEncoder(nn.Module):
    """Image to slots.

    In training random initial slots are drawn anew for each image; in evaluation they are the same
    for all, so that an image has one answer. The gradient passes through all iterations where slots start
    at random; through the last one, and straight on to where they start, where that is learned.

    Args:
        image_size: Height and width of the images in pixels, a multiple of 8.
        num_slots: Slots.
        num_iterations: Rounds of attention.
        in_channels: Channels of the images.
        slot_size: Width of a slot, a multiple of ``num_blocks``.
        hidden_dim: Channels of the convolutions.
        num_blocks: Blocks of a slot that the recurrent cell and the network after it keep apart.
        init: ``learned``: each slot starts from a learned value of its own. ``random``: slots start from one
            learned normal distribution and are interchangeable; with some seeds they all stay alike.

    Raises:
        ModelError: A size is not possible.
    """

    noise: Tensor
    log_deviation: nn.Parameter

    def __init__(
        self,
        image_size: int = 64,
        num_slots: int = 4,
        num_iterations: int = 3,
        in_channels: int = 3,
        slot_size: int = 64,
        hidden_dim: int = 64,
        *,
        num_blocks: int = 1,
        init: Init = "learned",
    ) -> None:
        super().__init__()
        counts = {
            "num_slots": num_slots,
            "num_iterations": num_iterations,
            "in_channels": in_channels,
            "slot_size": slot_size,
            "hidden_dim": hidden_dim,
            "num_blocks": num_blocks,
        }
        check_counts("SlotAttentionEncoder", counts)
        check_image_size("SlotAttentionEncoder", image_size)
        width = block_width("SlotAttentionEncoder", slot_size, num_blocks)
        if init not in ("random", "learned"):
            raise ModelError(f"SlotAttentionEncoder: init is '{init}'; expected 'random' or 'learned'.")
        self.image_size, self.in_channels = image_size, in_channels
        self.num_slots, self.num_iterations, self.slot_size, self.init = num_slots, num_iterations, slot_size, init
        # A small image keeps more of its positions: an object must cover a few of them to be told from others.
        stride = 2 if image_size <= _SMALL else 4
        self.convolutions = nn.Sequential(
            nn.Conv2d(in_channels, hidden_dim, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(hidden_dim, hidden_dim, 5, stride=stride // 2, padding=2),
            nn.ReLU(),
            nn.Conv2d(hidden_dim, hidden_dim, 5, padding=2),
            nn.ReLU(),
        )
        # What an image shows must outweigh where: with PyTorch's own start the places give 99.6 % of the variance of
        # the features, and slots share out the image by place.
        for layer in self.convolutions:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.place = PositionEmbedding(image_size // stride, hidden_dim, _PLACE_GAIN)
        self.features = nn.Sequential(
            nn.LayerNorm(hidden_dim),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, slot_size),
            nn.LayerNorm(slot_size),
        )
        self.key = nn.Linear(slot_size, slot_size, bias=False)
        self.value = nn.Linear(slot_size, slot_size, bias=False)
        query = nn.Linear(slot_size, slot_size, bias=False)
        self.query = nn.Sequential(nn.LayerNorm(slot_size), query)
        self.cell = BlockGru(num_blocks, width)
        self.refine = nn.Sequential(
            nn.LayerNorm(slot_size),
            BlockLinear(num_blocks, width, 2 * width),
            nn.ReLU(),
            BlockLinear(num_blocks, 2 * width, width),
        )
        means = 1 if init == "random" else num_slots
        self.mean = nn.Parameter(torch.randn(1, means, slot_size) * slot_size**-0.5)
        if init == "random":
            self.log_deviation = nn.Parameter(torch.zeros(1, 1, slot_size))
            self.register_buffer("noise", torch.randn(1, num_slots, slot_size))

    def forward(self, images: Tensor, quantizer: SemanticVectorQuantizer | None = None) -> Attended:
        """Slots of images ``[b, in_channels, s, s]``.

        Args:
            images: Images from 0 to 1.
            quantizer: Quantizes the slots in every iteration.

        Raises:
            ModelError: The images are of another shape, none, or not finite.
        """
        check_images(images, self.in_channels, self.image_size)
        return self.attend(images, quantizer)

    def attend(self, images: Tensor, quantizer: SemanticVectorQuantizer | None = None) -> Attended:
        """`forward` without a look at the images, for graphs that are exported."""
        return self.attend_to(self.convolve(images), quantizer)

    def convolve(self, images: Tensor) -> Tensor:
        """What the convolutions find in images, ``[b, hidden_dim, s / 4, s / 4]``, up to 32 pixels ``s / 2``."""
        return self.convolutions(images)

    def attend_to(self, convolved: Tensor, quantizer: SemanticVectorQuantizer | None = None) -> Attended:
        """`attend` to what `convolve` gave."""
        features = self.features(self.place(convolved).flatten(2).transpose(1, 2))
        keys, values = self.key(features) * self.slot_size**-0.5, self.value(features)
        start = slots = self.initial_slots(convolved.shape[0])
        for _ in range(self.num_iterations - 1):
            slots, _ = self._iterate(slots, keys, values)
            if quantizer is not None:
                slots, _ = quantizer.snap(slots)
        if self.init == "learned" and self.training:
            slots = slots.detach() + (start - start.detach())
        slots, attention = self._iterate(slots, keys, values)
        quantized = None if quantizer is None else quantizer(slots)
        return Attended(slots if quantized is None else quantized.slots, attention, quantized)

    def initial_slots(self, batch: int) -> Tensor:
        """Where the slots of ``batch`` images start, ``[b, k, d]``."""
        if self.init == "learned":
            return self.mean.expand(batch, -1, -1)
        if self.training:
            noise = torch.randn(batch, self.num_slots, self.slot_size, device=self.mean.device, dtype=self.mean.dtype)
        else:
            noise = self.noise.expand(batch, -1, -1)
        return self.mean + noise * self.log_deviation.exp()

    def _iterate(self, slots: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        attention = torch.softmax(torch.bmm(keys, self.query(slots).transpose(1, 2)), dim=-1)
        shares = attention + _EPSILON
        shares = shares / shares.sum(dim=1, keepdim=True)
        slots = self.cell(torch.bmm(shares.transpose(1, 2), values), slots)
        return slots + self.refine(slots), attention


def check_counts(who: str, counts: dict[str, int]) -> None:
    """Refuses sizes below 1, all at once.

    Raises:
        ModelError: There is one.
    """
    faults = [f"{name} is {value}" for name, value in counts.items() if value < 1]
    if faults:
        raise ModelError(f"{who}: {', '.join(faults)}; expected 1 or more.")


def check_image_size(who: str, size: int) -> None:
    """Refuses image sizes that do not halve often enough.

    Raises:
        ModelError: ``size`` is no multiple of 8, or below 16.
    """
    if size < 16 or size % 8:
        raise ModelError(f"{who}: image_size is {size}; expected a multiple of 8 from 16 on, such as 64.")


def block_width(who: str, slot_size: int, num_blocks: int) -> int:
    """Width of one block of a slot.

    Raises:
        ModelError: The blocks do not divide the slot.
    """
    if slot_size % num_blocks:
        raise ModelError(
            f"{who}: a slot of {slot_size} does not divide into {num_blocks} equal blocks. "
            "Take a slot size that is a multiple of the number of codebooks."
        )
    return slot_size // num_blocks


def check_images(images: Tensor, channels: int, size: int) -> None:
    """Refuses images that a network cannot take.

    Raises:
        ModelError: They are of another shape, none, or not finite.
    """
    wanted = f"[batch, {channels}, {size}, {size}]"
    if images.dim() != 4 or tuple(images.shape[1:]) != (channels, size, size):
        raise ModelError(f"images are {list(images.shape)}; expected {wanted}. Convert or resize them first.")
    if images.shape[0] == 0:
        raise ModelError(f"a batch of 0 images came; expected {wanted} with at least one.")
    if not torch.compiler.is_compiling() and not torch.isfinite(images).all():
        bad = int((~torch.isfinite(images)).flatten(1).any(dim=1).sum())
        raise ModelError(f"{bad} of {images.shape[0]} images hold NaN or infinity; expected values from 0 to 1.")
