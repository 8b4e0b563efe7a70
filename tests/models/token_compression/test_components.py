"""Where training starts: the best linear compressor and decoder, and the picture of what they do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edge_sdk.models.token_compression._pictures import draw_tokens
from edge_sdk.models.token_compression.components import components, start_at
from edge_sdk.models.token_compression.compressor import TokenCompressor
from edge_sdk.models.token_compression.decoders import AttentionDecoder, ConvDecoder
from edge_sdk.models.token_compression.grids import to_grid, to_tokens
from edge_sdk.models.token_compression.metrics import pooled

DIM, GRID, OUT = 6, 8, 2


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def areas(codes: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """Tokens whose areas are mixtures of a basis ``[k, d, s, s]``, by codes ``[i, m, k]``."""
    return to_tokens(F.conv_transpose2d(to_grid(codes, OUT), basis, stride=GRID // OUT))


def started(tokens: torch.Tensor, kind: type = ConvDecoder) -> tuple[TokenCompressor, torch.nn.Module]:
    compressor, decoder = TokenCompressor(DIM, GRID, OUT, hidden_dim=8), kind(DIM, GRID, OUT, hidden_dim=8)
    start_at(compressor, decoder, components(tokens, GRID, OUT))
    return compressor, decoder


@pytest.mark.parametrize("kind", [ConvDecoder, AttentionDecoder])
def test_tokens_of_as_many_dimensions_as_a_token_is_wide_come_back_whole(kind):
    basis = drawn(DIM, DIM, GRID // OUT, GRID // OUT)
    compressor, decoder = started(areas(drawn(32, OUT**2, DIM, seed=1), basis), kind)
    others = areas(drawn(4, OUT**2, DIM, seed=2), basis)
    torch.testing.assert_close(decoder(compressor(others)), others, rtol=1e-3, atol=1e-3)
    assert float((pooled(others, GRID, OUT) - others).square().mean()) > 0.5 * float(others.square().mean())


def test_no_linear_map_leaves_a_smaller_error():
    tokens = drawn(64, GRID**2, DIM)
    compressor, decoder = started(tokens)
    rows = F.unfold(to_grid(tokens, GRID), GRID // OUT, stride=GRID // OUT).transpose(1, 2).flatten(0, 1)
    least = torch.linalg.svdvals(rows.double())[DIM:].square().sum()  # Eckart and Young
    error = (decoder(compressor(tokens)) - tokens).double().square().sum()
    assert float(error / least) == pytest.approx(1, abs=0.01)


def test_tokens_that_do_not_change_within_an_area_are_compressed_to_themselves():
    tokens = areas(drawn(32, OUT**2, DIM), torch.eye(DIM)[:, :, None, None].expand(-1, -1, 4, 4))
    compressor, _ = started(tokens)
    torch.testing.assert_close(compressor(tokens), to_tokens(F.avg_pool2d(to_grid(tokens, GRID), 4)), atol=1e-4, rtol=0)


def test_of_fewer_areas_than_a_token_is_wide_all_come_back():
    tokens = drawn(1, GRID**2, DIM)
    directions = components(tokens, GRID, OUT)
    rows = directions.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(DIM), atol=1e-5, rtol=0)
    compressor, decoder = started(tokens)
    torch.testing.assert_close(decoder(compressor(tokens)), tokens, atol=1e-4, rtol=0)


def test_components_are_the_same_each_time_and_leave_random_numbers_alone():
    tokens = drawn(8, GRID**2, DIM)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = components(tokens, GRID, OUT)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(components(tokens, GRID, OUT), first)


def test_a_picture_is_drawn_of_photos_their_tokens_and_what_became_of_them(tmp_path: Path):
    Image = pytest.importorskip("PIL.Image")
    tokens = drawn(2, GRID**2, DIM)
    photos = np.full((2, 32, 32, 3), (200, 30, 30), np.uint8)
    draw_tokens(tmp_path / "pictures" / "tokens.png", photos, tokens, tokens[:, : OUT**2], tokens, "a title")
    drawn_pixels = np.asarray(Image.open(tmp_path / "pictures" / "tokens.png").convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(drawn_pixels, axis=0, return_counts=True)
    assert counts[(colours == (200, 30, 30)).all(1)] > 1000, "the photos are in it"
    assert len(colours) > 2 * GRID**2, "and maps of many colours"
