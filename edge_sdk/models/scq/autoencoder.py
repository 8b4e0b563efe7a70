"""An autoencoder for images whose latents are quantized.

Shapes: b batch size, c channels, h and w pixels, s stride, d width of a latent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edge_sdk.errors import ModelError, unknown_name
from edge_sdk.models.scq.layer import Quantized, SCQLayer
from edge_sdk.models.scq.nearest import PassThrough, VQLayer
from edge_sdk.models.scq.networks import Decoder, Encoder
from edge_sdk.models.scq.solvers._problem import Anchor

Quantizer = Literal["scq", "vq", "none"]
QUANTIZERS: tuple[Quantizer, ...] = ("scq", "vq", "none")

Stats = dict[str, Tensor]
"""Name of each statistic to its scalar; see `edge_sdk.models.scq.layer.SCQLayer.forward`."""


class SCQAutoencoder(nn.Module):
    """Encoder, quantizer and decoder.

    Args:
        input_channels: Of the image.
        latent_dim: Width of a latent, and of a code.
        num_codes: Size of the codebook.
        scq_lambda: Weight of the quantizer's penalty, above 0.
        hidden: Channels of the encoder and the decoder next to the latents.
        stride: Pixels of a side for each latent, a power of 2 from 2.
        quantizer: ``scq``, ``vq`` for the nearest code, or ``none``.
        solver: Of ``scq``: one of `edge_sdk.models.scq.solvers.SOLVERS`.
        anchor: Of ``scq``: ``vq``, as in the paper, or ``none``.
        ema_decay: Of the averages that codes follow; None for codes that are learned by gradient.

    Raises:
        ModelError: An argument does not fit.
    """

    def __init__(
        self,
        input_channels: int = 3,
        latent_dim: int = 128,
        num_codes: int = 256,
        scq_lambda: float = 1e-3,
        *,
        hidden: int = 128,
        stride: int = 8,
        quantizer: Quantizer = "scq",
        solver: str = "exact",
        anchor: Anchor = "vq",
        ema_decay: float | None = 0.99,
    ) -> None:
        super().__init__()
        if quantizer not in QUANTIZERS:
            raise ModelError(unknown_name("quantizer", quantizer, QUANTIZERS))
        if input_channels < 1 or latent_dim < 1:
            raise ModelError(
                f"an autoencoder of {input_channels} input channels and latents that are {latent_dim} wide: "
                "both must be at least 1."
            )
        self.input_channels = input_channels
        self.stride = stride
        self.encoder = Encoder(input_channels, latent_dim, hidden, stride)
        self.quantizer: SCQLayer | VQLayer | PassThrough
        if quantizer == "scq":
            self.quantizer = SCQLayer(num_codes, latent_dim, scq_lambda, solver, anchor, ema_decay)
        elif quantizer == "vq":
            self.quantizer = VQLayer(num_codes, latent_dim, ema_decay)
        else:
            self.quantizer = PassThrough()
        self.decoder = Decoder(input_channels, latent_dim, hidden, stride)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Stats]:
        """An image through all three.

        Args:
            x: ``[b, c, h, w]``; photos have values from 0 to 1.

        Returns:
            The reconstruction ``[b, c, h, w]``, the latents and the quantized latents ``[b, d, h / s, w / s]``,
            and the statistics of the quantizer.

        Raises:
            ModelError: The image does not fit or holds NaN.
        """
        z = self.encode(x)
        z_q, stats = self.quantize(z)
        return self.decode(z_q), z, z_q, stats

    def encode(self, x: Tensor) -> Tensor:
        """The latents ``[b, d, h / s, w / s]`` of images ``[b, c, h, w]``.

        Raises:
            ModelError: The images do not fit or hold NaN.
        """
        self._check(x)
        return self.encoder(x)

    def quantize(self, z: Tensor) -> tuple[Tensor, Stats]:
        """The quantized latents, in the shape of ``z``, and the statistics.

        Raises:
            ModelError: The latents do not fit or are not finite.
        """
        z_q, _, stats = self.weigh(z)
        return z_q, stats

    def weigh(self, z: Tensor) -> Quantized:
        """What `quantize` gives, with the weights of the codes ``[b h w / s^2, k]`` in between.

        Raises:
            ModelError: The latents do not fit or are not finite.
        """
        return self.quantizer(z)

    def decode(self, z_q: Tensor) -> Tensor:
        """The images ``[b, c, h, w]`` of quantized latents ``[b, d, h / s, w / s]``."""
        return self.decoder(z_q)

    def _check(self, x: Tensor) -> None:
        wanted = f"[batch, {self.input_channels}, height, width]"
        if x.ndim != 4 or x.shape[1] != self.input_channels:
            raise ModelError(f"the images have the shape {list(x.shape)}; expected {wanted}.")
        if not len(x):
            raise ModelError(f"there are no images (batch 0): give at least one, {wanted}.")
        height, width = x.shape[2:]
        if not height or not width or height % self.stride or width % self.stride:
            raise ModelError(
                f"the images have {height} x {width} pixels, and the network's stride is {self.stride}: give sides "
                f"that it divides, such as {max(1, height // self.stride) * self.stride} x "
                f"{max(1, width // self.stride) * self.stride}."
            )
        if self.training and x[:, 0].numel() == self.stride**2:
            raise ModelError(
                f"the images give a single latent in all, which has no variance to train with: give more than one "
                f"image, or sides above {self.stride} pixels."
            )
        if bad := int(x.detach().isnan().flatten(1).any(1).sum()):
            raise ModelError(f"{bad} of {len(x)} images hold NaN: check how they were read and scaled.")


def compute_loss(
    x_recon: Tensor,
    x: Tensor,
    z: Tensor,
    z_q: Tensor,
    stats: Stats,
    *,
    commitment_weight: float = 0.02,
    entropy_weight: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a training step.

    Args:
        x_recon: Reconstructions ``[b, c, h, w]``.
        x: Images ``[b, c, h, w]``.
        z: Latents ``[b, d, h / s, w / s]``.
        z_q: Quantized latents, the same shape.
        stats: Of the quantizer.
        commitment_weight: Weight of the mean squared distance of a latent from what it was quantized to,
            which moves the latent alone. Squared lengths of latents are near 1, squared errors of pixels far
            below: 0.02 keeps the two terms of one size.
        entropy_weight: Weight of the entropy in bits of one vector's weights; above 0 fewer codes are mixed.

    Returns:
        The loss, and its parts by name, without gradients: ``loss``, ``reconstruction`` (mean squared error
        of a pixel), ``commitment``, ``codebook`` (the same distance, which moves the codes where they are
        learned by gradient), ``entropy``.

    Raises:
        ModelError: Reconstructions and images differ in shape.
    """
    if x_recon.shape != x.shape:
        raise ModelError(f"the reconstructions have the shape {list(x_recon.shape)}; expected {list(x.shape)}.")
    reconstruction = nn.functional.mse_loss(x_recon, x)
    commitment = (z - z_q.detach()).square().sum(1).mean()
    loss = reconstruction + commitment_weight * commitment
    if entropy_weight:
        loss = loss + entropy_weight * stats["weight_entropy"]
    if stats["error"].requires_grad:
        loss = loss + stats["error"]
    parts = {
        "loss": loss,
        "reconstruction": reconstruction,
        "commitment": commitment,
        "codebook": stats["error"],
        "entropy": stats["weight_entropy"],
    }
    return loss, {name: value.detach() for name, value in parts.items()}


def sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments with which `SCQAutoencoder` fits a state dict, as far as its tensors tell.

    Args:
        state: Weights by name.
    """
    found: dict[str, Any] = {}
    if (project := state.get("encoder.project.weight")) is not None and project.ndim == 4:
        found["latent_dim"], found["hidden"] = project.shape[:2]
        strided = [name for name, value in state.items() if name.startswith("encoder.") and _halves(value)]
        found["stride"] = 1 << len(strided)
        found["quantizer"] = "none"
    if (codes := state.get("quantizer.codebook.codes")) is not None and codes.ndim == 2:
        found["num_codes"] = codes.shape[0]
        found["quantizer"] = "vq"
        if "quantizer.codebook.sums" not in state:
            found["ema_decay"] = None
    if (penalty := state.get("quantizer.penalty")) is not None and penalty.numel() == 1:
        found["scq_lambda"] = float(penalty)
        found["quantizer"] = "scq"
    if (anchored := state.get("quantizer.anchored")) is not None and anchored.numel() == 1:
        found["anchor"] = "vq" if bool(anchored) else "none"
    return found


def _halves(weight: Tensor) -> bool:
    return weight.ndim == 4 and tuple(weight.shape[2:]) == (4, 4)


@torch.no_grad()
def randomly_initialised(seed: int, **settings: Any) -> SCQAutoencoder:
    """An autoencoder in evaluation mode with random weights, whose latents have the scale of trained ones.

    Args:
        seed: Of the weights.
        settings: As for `SCQAutoencoder`.

    Raises:
        ModelError: A setting does not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SCQAutoencoder(**settings)
        scale = network.encoder.scale
        scale.momentum = None  # the statistics of one batch become those of evaluation
        network.encoder.train()(torch.rand(4, network.input_channels, 8 * network.stride, 8 * network.stride))
        scale.momentum = 0.1
    return network.eval()
