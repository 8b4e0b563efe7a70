"""The image encoders: CLIP against transformers' own outputs, EfficientNet-Lite0's map, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edge_sdk.errors import MissingDependencyError, ModelError
from edge_sdk.models.efficientnet_lite0.plugin import network
from edge_sdk.models.token_compression.encoders import ClipVisionEncoder, EfficientNetEncoder, load_encoder


@pytest.fixture(scope="module")
def clip():
    """A CLIP vision model of two small layers with random weights."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    return transformers.CLIPVisionModel(
        transformers.CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=56,
            patch_size=14,
        )
    ).eval()


@pytest.fixture
def saved(clip, tmp_path: Path) -> Path:
    clip.save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


IMAGES = torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))


def test_clips_tokens_are_those_of_transformers_without_the_class_token(clip):
    expected = clip(pixel_values=IMAGES, output_hidden_states=True)
    encoder = ClipVisionEncoder(clip, "small")
    assert (encoder.grid, encoder.dim, encoder.image_size) == (4, 32, 56)
    torch.testing.assert_close(encoder(IMAGES), expected.last_hidden_state[:, 1:])
    before_last = ClipVisionEncoder(clip, "small", layer=-2)(IMAGES)
    torch.testing.assert_close(before_last, expected.hidden_states[-2][:, 1:])


def test_a_frozen_clip_keeps_its_weights_and_another_learns(clip):
    frozen = ClipVisionEncoder(clip, "small").train()
    assert not frozen(IMAGES).requires_grad
    assert not any(module.training for module in frozen.modules())
    clip.requires_grad_(True)
    free = ClipVisionEncoder(clip, "small", freeze=False).train()
    free(IMAGES).sum().backward()
    assert clip.get_input_embeddings().weight.grad is not None
    assert free.model.training


def test_a_clip_is_read_from_a_folder(clip, saved):
    found = load_encoder(str(saved))
    torch.testing.assert_close(found(IMAGES), ClipVisionEncoder(clip, "small")(IMAGES))


def test_a_whole_clip_gives_its_vision_model(tmp_path):
    transformers = pytest.importorskip("transformers")
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**vision, "vocab_size": 99}
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**vision, "image_size": 32, "patch_size": 16}, projection_dim=16
    )
    whole = transformers.CLIPModel(config).eval()
    whole.save_pretrained(tmp_path)
    encoder, images = load_encoder(str(tmp_path)), torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(encoder(images), whole.vision_model(images).last_hidden_state[:, 1:])


def test_efficientnets_tokens_are_its_map_at_a_stride_of_16():
    encoder = EfficientNetEncoder(64)
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found: list[torch.Tensor] = []
    whole = network()
    whole._blocks[10].register_forward_hook(lambda module, inputs, output: found.append(output))
    whole(images)
    torch.testing.assert_close(encoder(images), found[0].flatten(2).transpose(1, 2))
    assert (encoder.grid, encoder.dim) == (4, 112)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_the_packaged_encoder_has_as_many_tokens_as_clip_at_336_pixels():
    assert load_encoder("efficientnet_lite0").grid ** 2 == 576


def test_missing_weights_are_told_with_the_command_that_fetches_them():
    with pytest.raises(MissingDependencyError, match="not on this disk. Fetch them with: hf download openai/clip-vit"):
        load_encoder()


def test_a_folder_without_a_model_is_told(tmp_path):
    with pytest.raises(ModelError, match="holds no model of transformers"):
        load_encoder(str(tmp_path))


def test_a_model_that_is_no_clip_is_told(tmp_path):
    transformers = pytest.importorskip("transformers")
    transformers.ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is a vit; expected a CLIP"):
        load_encoder(str(tmp_path))


def test_weights_that_lack_layers_are_told(saved):
    from safetensors.torch import load_file, save_file

    path = saved / "model.safetensors"
    weights = load_file(path)
    save_file({name: value for name, value in weights.items() if "layers.1" not in name}, path, {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks \d+ weights of a CLIP vision model"):
        load_encoder(str(saved))


def test_another_patch_size_gives_another_grid_and_one_that_does_not_divide_is_refused(clip):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPVisionConfig(**sizes, image_size=64, patch_size=16)
    assert ClipVisionEncoder(transformers.CLIPVisionModel(config), "small").grid == 4
    odd = transformers.CLIPVisionConfig(**sizes, image_size=60, patch_size=16)
    with pytest.raises(ModelError, match="patches of 16 pixels do not divide an image of 60"):
        ClipVisionEncoder(transformers.CLIPVisionModel(odd), "small")


@pytest.mark.parametrize("layer", [0, 1, -4])
def test_a_layer_that_is_not_there_is_refused(clip, layer):
    with pytest.raises(ModelError, match="expected -3 to -1, counted from the last"):
        ClipVisionEncoder(clip, "small", layer=layer)


def test_images_of_another_size_are_refused(clip):
    with pytest.raises(ModelError, match=r"images are \[1, 3, 64, 64\]; expected \[batch, 3, 56, 56\]"):
        ClipVisionEncoder(clip, "small")(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ModelError, match="image_size is 40; expected a multiple of 32"):
        EfficientNetEncoder(40)
