"""Image encoders that give a square grid of tokens: CLIP's vision transformers, and EfficientNet-Lite0.

Shapes: b batch, s image size, n tokens, d width of a token, g tokens of a side (n = g * g).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edge_sdk.errors import MissingDependencyError, ModelError, first_line

if TYPE_CHECKING:
    from transformers import CLIPVisionModel

CLIP = "openai/clip-vit-large-patch14-336"
EFFICIENTNET = "efficientnet_lite0"

# Source: OpenAI's CLIP, the means and deviations of its preprocessing, for pixels from 0 to 1.
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_EFFICIENTNET_SIZE = 384
_EFFICIENTNET_STRIDE = 16
_EFFICIENTNET_BLOCKS = 11  # those with a stride of 16 or less: 24 x 24 places at 384 pixels
_SHOWN_KEYS = 3


class ClipVisionEncoder(nn.Module):
    """The patch tokens of a CLIP vision transformer, without its class token.

    Args:
        model: From transformers.
        name: Whose weights these are.
        freeze: Whether the weights stay as they are; the module then stays in evaluation mode.
        layer: Whose hidden states are the tokens: -1 the last one's, -2 the one before it, as
            language models that see take them.

    Raises:
        ModelError: There is no such layer, or the patches do not divide the image.
    """

    def __init__(self, model: CLIPVisionModel, name: str = CLIP, freeze: bool = True, layer: int = -1) -> None:
        super().__init__()
        config: Any = model.config
        size, patch, layers = int(config.image_size), int(config.patch_size), int(config.num_hidden_layers)
        if size % patch:
            raise ModelError(f"{name}: patches of {patch} pixels do not divide an image of {size}.")
        if not -layers - 1 <= layer <= -1:
            raise ModelError(f"{name}: layer is {layer}; expected {-layers - 1} to -1, counted from the last.")
        self.model, self.name, self.freeze, self.layer = model, name, freeze, layer
        self.image_size, self.grid, self.dim = size, size // patch, int(config.hidden_size)
        self.mean, self.std = _CLIP_MEAN, _CLIP_STD
        if freeze:
            self.requires_grad_(False)
            self.eval()

    @classmethod
    def from_pretrained(cls, name: str = CLIP, freeze: bool = True, layer: int = -1) -> ClipVisionEncoder:
        """A CLIP whose weights lie on this disk: in a folder, or in the Hugging Face cache.

        Nothing is downloaded.

        Args:
            name: A folder, or a name on the Hugging Face hub.
            freeze: See the class.
            layer: See the class.

        Raises:
            MissingDependencyError: transformers is not installed, or the weights are not on the disk.
            ModelError: What is there is no CLIP, or does not fit.
        """
        try:
            from transformers import AutoConfig, CLIPVisionModel
            from transformers.utils import logging
        except ImportError as error:
            raise MissingDependencyError(
                f"CLIP needs transformers, which cannot be imported ({error}): pip install 'edge-sdk[clip]'."
            ) from error
        try:
            config = AutoConfig.from_pretrained(name, local_files_only=True)
        except (OSError, ValueError) as error:
            if Path(name).expanduser().is_dir():
                raise ModelError(f"{name} holds no model of transformers: {first_line(error)}.") from error
            raise MissingDependencyError(
                f"the weights of {name} are not on this disk. Fetch them with: hf download {name} (large: 1.7 GB for "
                f"{CLIP}), or give the path of a folder that holds them."
            ) from error
        if config.model_type not in ("clip", "clip_vision_model"):
            raise ModelError(f"{name} is a {config.model_type}; expected a CLIP or its vision model.")
        # Reading from a disk takes no bar.
        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            found: Any = CLIPVisionModel.from_pretrained(name, local_files_only=True, output_loading_info=True)
            model, told = found
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"the weights of {name} cannot be read: {first_line(error)}.") from error
        finally:
            if bars:
                logging.enable_progress_bar()
        if missing := sorted(told["missing_keys"]):
            shown = ", ".join(missing[:_SHOWN_KEYS])
            raise ModelError(f"{name} lacks {len(missing)} weights of a CLIP vision model ({shown}, ...).")
        return cls(model.eval(), name, freeze, layer)

    def train(self, mode: bool = True) -> ClipVisionEncoder:
        """A frozen encoder stays in evaluation mode."""
        return super().train(mode and not self.freeze)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[b, 3, s, s]`` to tokens ``[b, n, d]``.

        Raises:
            ModelError: The images are of another shape.
        """
        _check_images(self.name, images, self.image_size)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            found: Any = self.model(pixel_values=images, output_hidden_states=self.layer != -1)
            hidden = found.last_hidden_state if self.layer == -1 else found.hidden_states[self.layer]
        return hidden[:, 1:]


class EfficientNetEncoder(nn.Module):
    """The places of EfficientNet-Lite0's map at a stride of 16, 112 channels each, as tokens.

    A convolutional network with real ImageNet weights that come in a package. It is no CLIP: its tokens
    know nothing of language. At 384 pixels there are 24 x 24 of them, as many as CLIP ViT-L/14 has at 336.

    Args:
        image_size: Pixels of a side, a multiple of 32.

    Raises:
        MissingDependencyError: A package is not installed.
        ModelError: The size does not fit.
    """

    def __init__(self, image_size: int = _EFFICIENTNET_SIZE) -> None:
        super().__init__()
        from edge_sdk.models.efficientnet_lite0.plugin import network

        if image_size < 32 or image_size % 32:
            raise ModelError(f"{EFFICIENTNET}: image_size is {image_size}; expected a multiple of 32.")
        whole: Any = network()
        self.name = f"{EFFICIENTNET}, ImageNet weights"
        self.image_size, self.grid = image_size, image_size // _EFFICIENTNET_STRIDE
        self.mean, self.std = 3 * (127 / 255,), 3 * (128 / 255,)
        self.stem = nn.Sequential(whole._conv_stem, whole._bn0, nn.ReLU6())
        blocks = whole._blocks[:_EFFICIENTNET_BLOCKS]
        self.blocks, self.dim = nn.Sequential(*blocks), int(blocks[-1]._bn2.num_features)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> EfficientNetEncoder:
        """Stays in evaluation mode: its weights are frozen."""
        del mode
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[b, 3, s, s]`` to tokens ``[b, n, 112]``.

        Raises:
            ModelError: The images are of another shape.
        """
        _check_images(self.name, images, self.image_size)
        return self.blocks(self.stem(images)).flatten(2).transpose(1, 2)


TokenEncoder = ClipVisionEncoder | EfficientNetEncoder
"""Turns images ``[b, 3, s, s]``, normalised, into tokens ``[b, n, d]``, row by row.

Each has a ``name``, ``image_size``, ``grid`` and ``dim``; and ``mean`` and ``std`` of each channel, for pixels from 0
to 1.
"""


def load_encoder(name: str = CLIP, freeze: bool = True, layer: int = -1) -> TokenEncoder:
    """An encoder by name.

    Args:
        name: ``efficientnet_lite0``, or a CLIP: a folder, or a name on the Hugging Face hub whose weights lie
            in the cache.
        freeze: Whether its weights stay as they are; those of EfficientNet-Lite0 always do.
        layer: Of CLIP; see `ClipVisionEncoder`.

    Raises:
        MissingDependencyError: A package is not installed, or the weights are not on the disk.
        ModelError: They do not fit.
    """
    return EfficientNetEncoder() if name == EFFICIENTNET else ClipVisionEncoder.from_pretrained(name, freeze, layer)


def _check_images(name: str, images: Tensor, size: int) -> None:
    if images.dim() != 4 or tuple(images.shape[1:]) != (3, size, size):
        raise ModelError(f"{name}: images are {list(images.shape)}; expected [batch, 3, {size}, {size}].")
