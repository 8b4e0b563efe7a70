"""Vision token compression in training: compressor and decoder against a critic, on tokens that are kept on disk.

Networks see tokens divided by `TokenCompressionTask.scale`, so that losses mean the same for every
encoder; the weights that are written take them as they are.

Shapes: b batch, n tokens, m compressed tokens, d width of a token.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edge_sdk._files import write_atomic
from edge_sdk.errors import ModelError
from edge_sdk.models import _images
from edge_sdk.models._features import features, weights_identity
from edge_sdk.models.token_compression import losses, metrics
from edge_sdk.models.token_compression._config import Config
from edge_sdk.models.token_compression._data import Split, views
from edge_sdk.models.token_compression._networks import compressor_of, decoder_of
from edge_sdk.models.token_compression._pictures import draw_tokens
from edge_sdk.models.token_compression.components import components, start_at
from edge_sdk.models.token_compression.compressor import TokenCompressor
from edge_sdk.models.token_compression.critic import TokenCritic
from edge_sdk.models.token_compression.encoders import load_encoder
from edge_sdk.training.base import Say
from edge_sdk.training.seeds import generator
from edge_sdk.training.task import Phase, Task

_CRITIC_BETAS = (0.0, 0.9)  # Source: algorithm 1 of arXiv 1704.00028
_CRITIC_RATE = 1e-4
_JUDGED = 1000  # images that agreement is measured over, at most
_FITTED = 2**25  # numbers of tokens that components are found in, at most
_SCALED_BY = 256  # images whose tokens decide the scale, at most
_SHOWN, _PIXELS = 6, 192  # photos in the picture, and their size in it

PICTURE = "tokens.png"


class TokenCompressionTask(Task):
    """A compressor in training.

    Args:
        config: The run's settings.
        say: Is called with a line as each stage starts.

    Attributes:
        scale: The root of the mean square of the tokens to train on.

    Raises:
        EdgeSdkError: The encoder's weights or the photos are missing or do not fit.
    """

    score = "cosine"

    def __init__(self, config: Config, say: Say) -> None:
        super().__init__(config)
        self.settings = config
        data, chosen = config.data, config.model
        subset = data.subset_size if data.use_subset else 0
        squares = {split: views(data.root, split, data.views, config.seed, subset) for split in ("train", "val")}
        if len(squares["train"]) < config.training.batch_size:
            raise ModelError(
                f"there are {len(squares['train'])} squares to train on, fewer than a batch: give "
                f"training.batch_size={len(squares['train'])} or less."
            )
        say(f"loading the encoder {chosen.clip.model_name}")
        encoder = load_encoder(chosen.clip.model_name, layer=chosen.clip.layer)
        self.grid, self.output_grid = encoder.grid, chosen.compressor.output_grid_size
        # The networks come first: sizes that do not fit are told before any photo is encoded.
        self.network = nn.ModuleDict(_networks(config, encoder.dim, encoder.grid)).train()
        if config.trainer.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        weights = weights_identity(encoder)
        self.tokens: dict[Split, np.ndarray] = {}
        begun = time.monotonic()
        for split, some in squares.items():
            say(f"encoding {len(some)} squares of photos ({split})")
            self.tokens[split] = features(encoder, weights, some, say)  # type: ignore[index]
        self._encoding_s = time.monotonic() - begun
        self._squares = squares["val"]
        self.labels = torch.tensor([view.label for view in squares["val"]])
        self.about_encoder = {
            "name": encoder.name,
            "model_name": chosen.clip.model_name,
            "layer": chosen.clip.layer,
            "image_size": encoder.image_size,
            "grid": encoder.grid,
            "dim": encoder.dim,
            "weights": weights,
        }
        self.scale = float(np.sqrt(np.mean(np.square(_spread(self.tokens["train"], _SCALED_BY), dtype=np.float64))))
        if chosen.compressor.use_residual and chosen.compressor.start == "components":
            say("finding the principal components of tokens")
            known = _spread(self.tokens["train"], _FITTED // (encoder.grid**2 * encoder.dim))
            directions = components(torch.from_numpy(known), self.grid, self.output_grid)
            start_at(self.compressor, self.network["decoder"], directions)  # type: ignore[arg-type]
        self._critic_optimizer: torch.optim.Adam | None = None
        self._critic_state: dict[str, Any] | None = None
        self._order = torch.empty(0)
        self._found: list[Tensor] = []
        self._distances: list[Tensor] = []
        self._pooled: dict[str, float] = {}

    @property
    def compressor(self) -> TokenCompressor:
        """What is trained to be deployed."""
        return self.network["compressor"]  # type: ignore[return-value]

    def train_dataloader(self) -> range:
        """The numbers of an epoch's batches; `loss` cuts them out of the tokens."""
        return range(len(self.tokens["train"]) // self.settings.training.batch_size)

    def val_dataloader(self) -> range:
        """The numbers of the batches."""
        return range(-(-len(self.tokens["val"]) // self.settings.training.batch_size))

    def on_train_epoch_start(self) -> None:
        """Shuffles the squares."""
        super().on_train_epoch_start()
        draw = generator(self.settings.seed, self.current_epoch)
        self._order = torch.randperm(len(self.tokens["train"]), generator=draw)

    def loss(self, batch: int, draw: torch.Generator) -> Tensor:
        """The loss of compressor and decoder, after the critic's steps on batches of its own."""
        chosen = self.settings.loss
        figures = self._train_critic(draw) if chosen.weights.wgan else {}
        tokens = self._tokens("train", self._numbers(batch))
        compressed = self.compressor(tokens)
        rebuilt = self.network["decoder"](compressed).float()
        ae = losses.reconstruction(chosen.ae.type)(rebuilt, tokens, self.grid)
        total = chosen.weights.ae * ae
        if chosen.weights.wgan:
            wgan = losses.generator_loss(self._score(compressed))
            total = total + chosen.weights.wgan * wgan
            figures["wgan"] = wgan.detach()
        self.log_dict({f"train/{name}": value for name, value in {**figures, "ae": ae.detach()}.items()})
        return total

    def names(self, batch: int) -> list[str]:
        """The batch's squares, by number."""
        return [f"square {number}" for number in self._numbers(batch).tolist()]

    def validation_step(self, batch: int, batch_idx: int) -> None:
        """Keeps what becomes of a batch."""
        del batch_idx
        size = self.settings.training.batch_size
        tokens = self._tokens("val", np.arange(batch * size, min((batch + 1) * size, len(self.tokens["val"]))))
        compressed = self.compressor(tokens)
        self._found.append(self.network["decoder"](compressed).float().cpu())
        real = losses.sampled(tokens, self.grid, self.output_grid, generator(0, batch))
        self._distances.append((self._score(real) - self._score(compressed)).cpu())

    def on_validation_epoch_end(self) -> None:
        """The metrics over all squares, beside those of average pooling to as many tokens."""
        tokens = torch.from_numpy(self.tokens["val"].astype(np.float32)) / self.scale
        found = torch.cat(self._found)
        if not self._pooled:
            pooled = metrics.pooled(tokens, self.grid, self.output_grid)
            self._pooled = {f"pooled_{name}": value for name, value in self.judged(pooled, tokens).items()}
        distance = {"critic_distance": float(torch.cat(self._distances).mean())}
        self.metrics = {**self.judged(found, tokens), **distance, **self._pooled}
        self.log_dict({f"val/{name}": value for name, value in self.metrics.items()})
        self._found, self._distances = [], []

    def judged(self, found: Tensor, tokens: Tensor) -> dict[str, float]:
        """The figures of what tokens to judge with became, both ``[i, n, d]``."""
        places = torch.tensor(_images.spread(len(tokens), _JUDGED))
        some, wanted = found[places], tokens[places]
        return {
            "cosine": float(metrics.cosine(found, tokens).mean()),
            "relative_mse": float(metrics.relative_mse(found, tokens).mean()),
            "retrieval_agreement": metrics.retrieval_agreement(some, wanted),
            "probe_agreement": metrics.probe_agreement(some, wanted, self.labels[places]),
        }

    def phases(self) -> list[Phase]:
        """Compressor and decoder; the critic has an optimizer of its own."""
        learning = [*self.compressor.parameters(), *self.network["decoder"].parameters()]
        return [Phase(learning, self.settings.optimizer.lr, self.settings.epochs)]

    def save_weights(self, path: Path, facts: Mapping[str, str | int | float | bool]) -> None:
        """Writes compressor, decoder and their sizes, for tokens as the encoder gives them.

        Raises:
            StorageError: The disk is full or not ours.
        """
        parts = {name: _unscaled(self.network[name], self.scale) for name in ("compressor", "decoder")}
        chosen = self.settings.model
        content = {
            **parts,
            "settings": {"compressor": chosen.compressor.model_dump(), "autoencoder": chosen.autoencoder.model_dump()},
            "encoder": self.about_encoder,
            "data": {"root": self.settings.data.root, "views": self.settings.data.views},
            "facts": dict(facts),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_atomic(path, buffer.getvalue())

    def about(self) -> dict[str, Any]:
        """The encoder, the tokens and the squares."""
        counts = {split: len(tokens) for split, tokens in self.tokens.items()}
        tokens = {"encoder": self.grid**2, "compressed": self.output_grid**2}
        return {
            "encoder": self.about_encoder,
            "encoding_seconds": round(self._encoding_s, 3),
            "tokens": tokens,
            "squares": counts,
            "scale": self.scale,
        }

    @torch.no_grad()
    def draw(self, folder: Path) -> None:
        """Draws photos to judge with and their tokens, as ``tokens.png``."""
        places = np.array(_images.spread(len(self._squares), _SHOWN))
        photos = np.stack([np.asarray(self._squares[place].read(_PIXELS)) for place in places])
        tokens = self._tokens("val", places)
        compressed = self.compressor(tokens)
        rebuilt = self.network["decoder"](compressed)
        figures = self.metrics
        title = (
            f"{self.grid**2} tokens as {self.output_grid**2}: cosine similarity {figures['cosine']:.3f}, of averages "
            f"{figures['pooled_cosine']:.3f}, over {len(self._squares)} squares of photos that were not trained on"
        )
        tokens, compressed, rebuilt = (one.float().cpu() for one in (tokens, compressed, rebuilt))
        draw_tokens(folder / PICTURE, photos, tokens, compressed, rebuilt, title)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the state of the critic's optimizer, and how long encoding took."""
        checkpoint["encoding_seconds"] = self._encoding_s
        checkpoint["critic_optimizer"] = None if self._critic_optimizer is None else self._critic_optimizer.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over what `on_save_checkpoint` kept."""
        self._critic_state = checkpoint["critic_optimizer"]
        self._encoding_s = checkpoint["encoding_seconds"]

    def _train_critic(self, draw: torch.Generator) -> dict[str, Tensor]:
        """The critic's steps before one of the compressor; the figures of the last one."""
        optimizer, critic = self._optimizer_of_critic(), self.network["critic"].requires_grad_(True)
        figures: dict[str, Tensor] = {}
        for _ in range(self.settings.training.n_critic):
            numbers = torch.randint(len(self.tokens["train"]), (self.settings.training.batch_size,), generator=draw)
            tokens = self._tokens("train", numbers.numpy())
            with torch.no_grad():
                fake = self.compressor(tokens).float()
            # Second derivatives in 16 bits are noise.
            with torch.autocast(self.device.type, enabled=False):
                real = losses.sampled(tokens, self.grid, self.output_grid, draw)
                distance = losses.critic_loss(critic(real), critic(fake))
                penalty = losses.gradient_penalty(critic, real, fake, draw)
                optimizer.zero_grad()
                (distance + self.settings.loss.wgan.lambda_gp * penalty).backward()
                optimizer.step()
            figures = {"wasserstein_distance": -distance.detach(), "gradient_penalty": penalty.detach()}
        critic.requires_grad_(False)
        return figures

    def _optimizer_of_critic(self) -> torch.optim.Adam:
        if self._critic_optimizer is None:
            critic = self.network["critic"].requires_grad_(True)
            self._critic_optimizer = torch.optim.Adam(critic.parameters(), _CRITIC_RATE, _CRITIC_BETAS)
            if self._critic_state is not None:
                self._critic_optimizer.load_state_dict(self._critic_state)
        return self._critic_optimizer

    def _score(self, compressed: Tensor) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):
            return self.network["critic"](compressed.float())

    def _numbers(self, batch: int) -> np.ndarray:
        size = self.settings.training.batch_size
        return self._order[batch * size : (batch + 1) * size].numpy()

    def _tokens(self, split: Split, numbers: np.ndarray) -> Tensor:
        """Tokens ``[b, n, d]``, scaled."""
        return torch.from_numpy(self.tokens[split][numbers]).to(self.device).float() / self.scale


def _networks(config: Config, dim: int, grid: int) -> dict[str, nn.Module]:
    chosen = config.model
    out, critic = chosen.compressor.output_grid_size, chosen.discriminator
    return {
        "compressor": compressor_of(chosen.compressor, dim, grid),
        "decoder": decoder_of(chosen.autoencoder, dim, grid, out),
        "critic": TokenCritic(dim, out, critic.hidden_dim, critic.num_layers, critic.multi_scale),
    }


def _unscaled(network: nn.Module, scale: float) -> dict[str, Tensor]:
    """The weights of a network that gives for ``x`` ``scale`` times what this one gives for ``x / scale``."""
    state = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    first, last = network.ends  # type: ignore[misc]
    state[f"{first}.weight"] /= scale
    for name in (f"{last}.weight", f"{last}.bias", f"{network.shortcut}.bias"):
        if name in state:
            state[name] *= scale
    return state


def _spread(tokens: np.ndarray, wanted: int) -> np.ndarray:
    return tokens[_images.spread(len(tokens), wanted)].astype(np.float32)
