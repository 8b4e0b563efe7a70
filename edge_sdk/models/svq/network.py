"""SVQ: an image as the discrete codes of its objects, and back; with a prior, new images.

Source: Wu et al., "Neural Language of Thought Models", arXiv 2402.01203, which calls it "Structured
World Modeling via Semantic Vector Quantization".

Shapes: b batch, s image size, k slots, d slot size, m codebooks (blocks of a slot), n codes of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.errors import ModelError, unknown_name
from edge_sdk.models._checkpoint import fill
from edge_sdk.models.svq.decoders import SVQDecoder, TransformerDecoder
from edge_sdk.models.svq.prior import AutoregressiveTransformer, check_codes
from edge_sdk.models.svq.quantizer import SemanticVectorQuantizer
from edge_sdk.models.svq.slot_attention import Init, SlotAttentionEncoder

Quantize = Literal["inside", "after", "none"]
Decoder = Literal["cnn", "transformer"]

_DECODERS: Mapping[str, type[SVQDecoder] | type[TransformerDecoder]] = {
    "cnn": SVQDecoder,
    "transformer": TransformerDecoder,
}
_QUANTIZE = ("inside", "after", "none")


class SVQ(nn.Module):
    """Slot attention, a semantic quantizer, a decoder and, once `init_prior` made one, a prior.

    ``settings`` holds the arguments as plain values, and under ``prior`` those of `init_prior` or None.

    Args:
        image_size: Height and width of the images in pixels, a multiple of 8.
        in_channels: Channels of the images.
        num_slots: Slots.
        num_iterations: Rounds of slot attention.
        slot_size: Width of a slot, a multiple of ``num_codebooks``.
        num_codebooks: Blocks of a slot; each has a codebook.
        codebook_size: Codes of a codebook.
        code_dim: Width of a code.
        hidden_dim: Channels of the encoder's and the decoder's inner layers.
        commitment_cost: Weight of the commitment loss in the quantizer.
        decoder: ``cnn``: spatial broadcast. ``transformer``: patches attend to the slots.
        quantize: ``inside``: in every iteration of slot attention, whose recurrent cell then keeps
            the blocks apart (the paper's form). ``after``: once after them. ``none``: not at all;
            then there are no codes.
        init: How the slots start, see `SlotAttentionEncoder`.

    Raises:
        ModelError: A size or a choice is not possible.
    """

    prior: AutoregressiveTransformer | None

    def __init__(
        self,
        image_size: int = 64,
        in_channels: int = 3,
        num_slots: int = 4,
        num_iterations: int = 3,
        slot_size: int = 64,
        num_codebooks: int = 4,
        codebook_size: int = 512,
        code_dim: int = 16,
        hidden_dim: int = 64,
        commitment_cost: float = 0.25,
        *,
        decoder: Decoder = "cnn",
        quantize: Quantize = "inside",
        init: Init = "learned",
    ) -> None:
        super().__init__()
        if decoder not in _DECODERS:
            raise ModelError("SVQ: " + unknown_name("decoder", decoder, _DECODERS))
        if quantize not in _QUANTIZE:
            raise ModelError("SVQ: " + unknown_name("place to quantize", quantize, _QUANTIZE))
        self.settings: dict[str, Any] = {
            "image_size": image_size,
            "in_channels": in_channels,
            "num_slots": num_slots,
            "num_iterations": num_iterations,
            "slot_size": slot_size,
            "num_codebooks": num_codebooks,
            "codebook_size": codebook_size,
            "code_dim": code_dim,
            "hidden_dim": hidden_dim,
            "commitment_cost": commitment_cost,
            "decoder": decoder,
            "quantize": quantize,
            "init": init,
            "prior": None,
        }
        self.image_size, self.in_channels, self.num_slots = image_size, in_channels, num_slots
        self.num_codebooks, self.codebook_size, self.quantize = num_codebooks, codebook_size, quantize
        blocks = num_codebooks if quantize == "inside" else 1
        self.encoder = SlotAttentionEncoder(
            image_size, num_slots, num_iterations, in_channels, slot_size, hidden_dim, num_blocks=blocks, init=init
        )
        self.quantizer = None
        if quantize != "none":
            self.quantizer = SemanticVectorQuantizer(
                num_slots, slot_size, num_codebooks, codebook_size, code_dim, commitment_cost
            )
        self.decoder = _DECODERS[decoder](slot_size, hidden_dim, num_slots, image_size, in_channels)
        self.prior = None

    @classmethod
    def from_state(cls, checkpoint: Mapping[str, Any], what: str = "the checkpoint") -> SVQ:
        """The model that `checkpoint` wrote down, in evaluation mode.

        Args:
            checkpoint: ``state_dict``, and ``settings`` as `settings` has them.
            what: Where it comes from, for messages.

        Raises:
            ModelError: A key is missing, a setting is unknown or not possible, or the weights do not fit.
        """
        for key in ("state_dict", "settings"):
            if not isinstance(checkpoint.get(key), Mapping):
                raise ModelError(
                    f"{what} has no '{key}'; expected a dict of state_dict and settings, as SVQ.checkpoint() gives it "
                    "to torch.save."
                )
        settings = dict(checkpoint["settings"])
        prior = settings.pop("prior", None)
        try:
            model = cls(**settings)
            if prior is not None:
                model.init_prior(**prior)
        except TypeError as error:
            raise ModelError(f"{what} holds settings that SVQ does not take: {error}.") from error
        fill(model, checkpoint["state_dict"], what)
        return model.eval()

    def checkpoint(self) -> dict[str, Any]:
        """Weights and settings as tensors and plain values, for ``torch.save`` and then `from_state`."""
        return {"state_dict": self.state_dict(), "settings": dict(self.settings)}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images ``[b, in_channels, s, s]`` from 0 to 1, taken apart and put together again.

        Returns:
            ``recon`` ``[b, in_channels, s, s]``, ``masks`` ``[b, k, 1, s, s]`` (they sum to 1 over the slots),
            ``slots`` ``[b, k, d]`` as the decoder takes them, ``attention`` ``[b, k, positions]`` and, with
            a quantizer, ``indices`` int64 ``[b, k, m]``, ``commitment_loss``, ``codebook_usage`` (share of
            all codes in this batch) and ``perplexity``.

        Raises:
            ModelError: The images are of another shape, none, or not finite.
        """
        slots, attention, quantized = self.encoder(images, self.quantizer if self.quantize == "inside" else None)
        if self.quantizer is not None and quantized is None:
            quantized = self.quantizer(slots)
            slots = quantized.slots
        recon, masks = self.decoder(slots)
        outputs = {"recon": recon, "masks": masks, "slots": slots, "attention": attention.transpose(1, 2)}
        if quantized is not None:
            outputs["indices"] = quantized.indices
            outputs["commitment_loss"] = quantized.loss
            outputs["codebook_usage"] = quantized.usage
            outputs["perplexity"] = quantized.perplexity
        return outputs

    def compute_loss(
        self,
        images: Tensor,
        outputs: Mapping[str, Tensor],
        recon_loss_weight: float = 1.0,
        commitment_loss_weight: float = 0.25,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of training without the prior's.

        Args:
            images: The images that ``outputs`` came from.
            outputs: What `forward` returned.
            recon_loss_weight: Weight of the mean squared error of the image.
            commitment_loss_weight: Weight of the quantizer's commitment loss.

        Returns:
            The loss, and its terms for a log: ``loss``, ``recon_loss``, ``commitment_loss``.
        """
        recon_loss = F.mse_loss(outputs["recon"], images)
        commitment = outputs.get("commitment_loss", recon_loss.new_zeros(()))
        loss = recon_loss_weight * recon_loss + commitment_loss_weight * commitment
        terms = {"loss": loss, "recon_loss": recon_loss, "commitment_loss": commitment}
        return loss, {name: value.detach() for name, value in terms.items()}

    def init_prior(
        self, embed_dim: int = 256, num_heads: int = 8, num_layers: int = 4, dropout: float = 0.1
    ) -> AutoregressiveTransformer:
        """Adds a prior of the codes, untrained, and returns it.

        Raises:
            ModelError: A size is not possible, or the model has no codes.
        """
        self._quantizer("a prior")
        self.settings["prior"] = {
            "embed_dim": embed_dim,
            "num_heads": num_heads,
            "num_layers": num_layers,
            "dropout": dropout,
        }
        prior = AutoregressiveTransformer(
            self.num_slots, self.num_codebooks, self.codebook_size, embed_dim, num_heads, num_layers, dropout
        )
        self.prior = prior = prior.to(self.encoder.mean.device)
        return prior

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """The codes of images, int64 ``[b, k, m]``; the same at each call, in training mode too.

        Raises:
            ModelError: The images do not fit, or the model has no codes.
        """
        self._quantizer("codes")
        was_training = self.training
        self.eval()
        try:
            return self(images)["indices"]
        finally:
            self.train(was_training)

    def decode(self, indices: Tensor) -> dict[str, Tensor]:
        """The image and the masks that codes stand for.

        Args:
            indices: int64 ``[b, k, m]``.

        Returns:
            ``recon`` ``[b, in_channels, s, s]`` and ``masks`` ``[b, k, 1, s, s]``.

        Raises:
            ModelError: The indices are of another shape or out of range, or the model has no codes.
        """
        quantizer = self._quantizer("codes")
        if indices.dim() != 3 or tuple(indices.shape[1:]) != (self.num_slots, self.num_codebooks):
            raise ModelError(
                f"codes are {list(indices.shape)}; expected [batch, {self.num_slots}, {self.num_codebooks}]: "
                "a code for each block of each slot."
            )
        check_codes(indices, self.codebook_size)
        recon, masks = self.decoder(quantizer.look_up(indices))
        return {"recon": recon, "masks": masks}

    @torch.no_grad()
    def generate(
        self,
        batch_size: int,
        temperature: float = 1.0,
        use_cache: bool = True,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """New images ``[b, in_channels, s, s]`` from 0 to 1, from codes that the prior draws.

        Args:
            batch_size: How many.
            temperature: 1 draws as learned, less draws likelier codes, 0 takes the likeliest.
            use_cache: Whether the prior keeps keys and values; the images are the same, later.
            generator: Random numbers; PyTorch's own where none is given.

        Raises:
            ModelError: There is no prior, or a value is not possible.
        """
        if self.prior is None:
            raise ModelError("this SVQ has no prior to generate with: call init_prior(...), then train it.")
        indices = self.prior.generate(batch_size, temperature, generator, use_cache)
        return self.decode(indices)["recon"].clamp(0, 1)

    def _quantizer(self, what: str) -> SemanticVectorQuantizer:
        if self.quantizer is None:
            raise ModelError(f"an SVQ with quantize='none' has no codes, so no {what}: use 'inside' or 'after'.")
        return self.quantizer


class EncoderToCodes(nn.Module):
    """The part of a device that turns images into codes.

    Args:
        model: The model, in evaluation mode: its slots start from the same place for each image.

    Raises:
        ModelError: The model has no codes.
    """

    def __init__(self, model: SVQ) -> None:
        super().__init__()
        self.quantizer = model._quantizer("encoder to codes")
        self.encoder = model.encoder
        self.inside = model.quantize == "inside"

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[b, in_channels, s, s]`` to codes int64 ``[b, k, m]``."""
        slots, _, quantized = self.encoder.attend(images, self.quantizer if self.inside else None)
        return self.quantizer.snap(slots)[1] if quantized is None else quantized.indices


class DecoderFromCodes(nn.Module):
    """The part of a device that turns codes into an image.

    Args:
        model: The model, in evaluation mode.

    Raises:
        ModelError: The model has no codes.
    """

    def __init__(self, model: SVQ) -> None:
        super().__init__()
        self.quantizer = model._quantizer("decoder from codes")
        self.decoder = model.decoder

    def forward(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Codes int64 ``[b, k, m]`` to the image ``[b, in_channels, s, s]`` and masks ``[b, k, 1, s, s]``."""
        return self.decoder(self.quantizer.look_up(indices))


class PriorStep(nn.Module):
    """The part of a device that tells the logits of the next code.

    Args:
        model: The model, in evaluation mode.

    Raises:
        ModelError: The model has no prior.
    """

    def __init__(self, model: SVQ) -> None:
        super().__init__()
        if model.prior is None:
            raise ModelError("this SVQ has no prior to step: call init_prior(...), then train it.")
        self.prior = model.prior

    def forward(self, token: Tensor, position: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """See `AutoregressiveTransformer.step`."""
        return self.prior.step(token, position, cache)
