"""A small CLIP and a few photos as ImageNet lays them out, to train token compression on in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

SMALL = (
    *("data=imagenet", "training.batch_size=4", "training.epochs=1", "training.n_critic=2", "trainer.accelerator=cpu"),
    *("model.compressor.output_grid_size=2", "model.compressor.hidden_dim=8", "model.autoencoder.hidden_dim=8"),
    *("model.discriminator.hidden_dim=8", "training.learning_rate=5e-3"),
)
"""Settings of a small training."""


def write_photos(folder: Path) -> Path:
    """Twelve photos of two classes to train on and eight to judge with."""
    from PIL import Image

    draw = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 4)):
        for kind in ("n01440764", "n01443537"):
            (folder / split / kind).mkdir(parents=True)
            for number in range(count):
                small = Image.fromarray(draw.integers(0, 256, (6, 6, 3)).astype(np.uint8))
                small.resize((72, 60), Image.Resampling.BICUBIC).save(folder / split / kind / f"{number}.JPEG")
    return folder


def write_clip(folder: Path) -> Path:
    """A CLIP vision model of random weights with 4 x 4 tokens, 16 wide."""
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPVisionConfig(**sizes, image_size=32, patch_size=8)
    transformers.CLIPVisionModel(config).save_pretrained(folder)
    return folder
