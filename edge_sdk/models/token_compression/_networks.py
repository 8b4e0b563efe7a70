"""Settings to networks, for training and for what it wrote."""

from __future__ import annotations

from edge_sdk.models.token_compression._config import Autoencoder, Compressor
from edge_sdk.models.token_compression.compressor import TokenCompressor
from edge_sdk.models.token_compression.decoders import AttentionDecoder, ConvDecoder


def compressor_of(chosen: Compressor, dim: int, grid: int) -> TokenCompressor:
    """The compressor, for an encoder with ``grid * grid`` tokens that are ``dim`` wide.

    Raises:
        ModelError: The sizes do not fit each other.
    """
    return TokenCompressor(
        dim,
        grid,
        chosen.output_grid_size,
        chosen.num_layers,
        chosen.hidden_dim,
        chosen.use_residual,
        chosen.progressive,
    )


def decoder_of(chosen: Autoencoder, dim: int, grid: int, input_grid: int) -> ConvDecoder | AttentionDecoder:
    """The decoder, for ``input_grid * input_grid`` compressed tokens.

    Raises:
        ModelError: The sizes do not fit each other.
    """
    if chosen.use_attention:
        return AttentionDecoder(dim, grid, input_grid, chosen.num_layers, chosen.hidden_dim)
    return ConvDecoder(dim, grid, input_grid, chosen.num_layers, chosen.hidden_dim, chosen.progressive)
