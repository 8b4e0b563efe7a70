"""The compressor, its decoders, critic and losses: sizes, hand-derived values, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edge_sdk.errors import ModelError
from edge_sdk.models.token_compression import losses
from edge_sdk.models.token_compression.compressor import DynamicTokenCompressor, TokenCompressor, complexity
from edge_sdk.models.token_compression.critic import TokenCritic
from edge_sdk.models.token_compression.decoders import AttentionDecoder, ConvDecoder
from edge_sdk.models.token_compression.grids import strides, to_grid, to_tokens

DIM = 8


def tokens(grid: int, batch: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, grid * grid, DIM, generator=torch.Generator().manual_seed(seed))


def trained(module: nn.Module) -> nn.Module:
    """Weights other than the zeros that training starts from."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.3)
    return module


def pooled(x: torch.Tensor, grid: int, output_grid: int) -> torch.Tensor:
    return to_tokens(F.avg_pool2d(to_grid(x, grid), grid // output_grid))


@pytest.mark.parametrize(
    ("grid", "output", "layers", "expected"),
    [
        (24, 6, 3, [2, 2, 1]),
        (24, 4, 3, [3, 2, 1]),
        (24, 8, 3, [3, 1, 1]),
        (24, 12, 1, [2]),
        (24, 6, 1, [4]),
        (24, 2, 2, [4, 3]),
        (24, 24, 2, [1, 1]),
    ],
)
def test_the_way_from_one_grid_to_another_has_as_many_steps_as_asked_for(grid, output, layers, expected):
    assert strides(grid, output, layers, progressive=True) == expected
    assert strides(grid, output, layers) == [grid // output, *[1] * (layers - 1)]


@pytest.mark.parametrize("grid", [24, 16, 12])
@pytest.mark.parametrize("output", [12, 8, 6, 4])
def test_every_grid_that_divides_is_reached_and_given_back(grid, output):
    if grid % output:
        pytest.raises(ModelError, TokenCompressor, DIM, grid, output)
        return
    x = tokens(grid)
    compressed = TokenCompressor(DIM, grid, output)(x)
    assert compressed.shape == (2, output * output, DIM)
    for decoder in (ConvDecoder, AttentionDecoder):
        assert decoder(DIM, grid, output)(compressed).shape == x.shape


@pytest.mark.parametrize(("grid", "output"), [(24, 6), (24, 4), (12, 3)])
def test_the_grid_may_shrink_and_grow_over_several_steps(grid, output):
    x = tokens(grid)
    compressor = trained(TokenCompressor(DIM, grid, output, num_layers=2, progressive=True))
    decoder = trained(ConvDecoder(DIM, grid, output, num_layers=2, progressive=True))
    kernels = [layer.stride[0] for layer in compressor.layers if isinstance(layer, nn.Conv2d)]
    assert len(kernels) == 2 and math.prod(kernels) == grid // output
    assert decoder(compressor(x)).shape == x.shape


def test_training_starts_at_average_pooling_and_its_repetition():
    x = tokens(12)
    compressed = TokenCompressor(DIM, 12, 4)(x)
    expected = pooled(x, 12, 4)
    torch.testing.assert_close(compressed, expected)
    repeated = to_tokens(to_grid(expected, 4).repeat_interleave(3, 2).repeat_interleave(3, 3))
    for decoder in (ConvDecoder(DIM, 12, 4), AttentionDecoder(DIM, 12, 4)):
        torch.testing.assert_close(decoder(compressed), repeated)


def test_without_the_shortcut_the_average_is_not_added():
    with_it, without = (TokenCompressor(DIM, 12, 4, use_residual=use) for use in (True, False))
    without.load_state_dict(trained(without).state_dict())
    with_it.load_state_dict(without.state_dict(), strict=False)  # its linear map stays where it starts
    x = tokens(12)
    torch.testing.assert_close(with_it(x) - without(x), pooled(x, 12, 4), rtol=1e-4, atol=1e-4)


def test_a_compressed_token_depends_on_its_neighbourhood_alone():
    compressor, x = trained(TokenCompressor(DIM, 24, 6, num_layers=2)), tokens(24, batch=1)
    before = compressor(x)
    x[0, 0] += 1  # the first row's first place
    changed = (compressor(x) - before).abs().amax(2)[0].reshape(6, 6) > 1e-6
    assert changed[0, 0]
    assert not changed[4:].any()


@pytest.mark.parametrize("multi_scale", [False, True])
def test_the_critic_scores_each_image_by_itself(multi_scale):
    critic, x = trained(TokenCritic(DIM, 6, 16, multi_scale=multi_scale)), tokens(6, batch=3)
    torch.testing.assert_close(critic(x), torch.cat([critic(one[None]) for one in x]), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in critic.modules())


def test_the_gradient_penalty_of_a_linear_critic_is_that_of_its_slope():
    slope = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    real, fake = torch.randn(5, 4, 3), torch.randn(5, 4, 3)
    found = losses.gradient_penalty(lambda x: (x * slope).sum((1, 2)), real, fake)
    assert float(found) == pytest.approx((float(slope.norm()) - 1) ** 2, rel=1e-5)


def test_the_gradient_penalty_of_a_quadratic_critic_is_that_of_the_point_between():
    # f(x) = |x|^2 / 2 has the gradient x, which is (share * real + (1 - share) * fake) at the point drawn.
    real, fake = torch.ones(3, 2, 2), torch.zeros(3, 2, 2)
    share = torch.rand(3, 1, 1, generator=torch.Generator().manual_seed(7)).flatten()
    expected = ((share * 2 - 1) ** 2).mean()  # four ones have a norm of 2
    found = losses.gradient_penalty(lambda x: x.square().sum((1, 2)) / 2, real, fake, torch.Generator().manual_seed(7))
    torch.testing.assert_close(found, expected)


def test_the_gradient_penalty_trains_the_critic():
    critic = TokenCritic(DIM, 4, 8)
    losses.gradient_penalty(critic, tokens(4, seed=1), tokens(4, seed=2)).backward()
    assert all(one.grad is not None for name, one in critic.named_parameters() if name.endswith("0.weight"))


def test_the_losses_have_the_values_derived_by_hand():
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.5, -0.5])
    assert float(losses.critic_loss(real, fake)) == -2
    assert float(losses.generator_loss(fake)) == 0
    x, y = torch.zeros(1, 4, 2), torch.zeros(1, 4, 2)
    x[..., 0] = 1.0
    y[..., 0], y[..., 1] = 1.0, 1.0  # each token turned by 45 degrees, one number of two wrong by 1
    assert float(losses.mse(x, y, 2)) == 0.5
    assert float(losses.cosine(x, y, 2)) == pytest.approx(1 - math.sqrt(0.5))
    assert float(losses.hybrid(x, y, 2)) == pytest.approx(1.5 - math.sqrt(0.5))
    assert float(losses.perceptual(x, y, 2)) == 0.5  # all neighbours differ by as much as before: by nothing
    y[0, 1, 1] = 0.0  # the first row's second token: two of its differences are wrong by 1
    assert float(losses.perceptual(x, y, 2)) == pytest.approx(3 / 8 + 1 / 4 + 1 / 4)


def test_a_real_token_is_taken_from_the_places_that_the_compressed_one_stands_for():
    places = torch.arange(144.0).reshape(1, 144, 1)
    found = losses.sampled(places, 12, 4, torch.Generator().manual_seed(3)).flatten().int().tolist()
    rows, columns = {one // 12 % 3 for one in found}, {one % 12 % 3 for one in found}
    assert len(rows) == len(columns) == 1
    assert [(one // 36) * 4 + one % 12 // 3 for one in found] == list(range(16))


def test_a_plain_image_takes_the_smallest_grid_and_a_busy_one_the_largest():
    compressor = DynamicTokenCompressor([TokenCompressor(DIM, 12, one) for one in (6, 4, 2)], tolerance=0.3)
    plain, busy = torch.ones(1, 144, DIM), tokens(12, batch=1)
    halves = plain.clone().reshape(1, 12, 12, DIM)
    halves[:, :, 6:] = 2.0  # two areas, which averages over 2 x 2 keep
    found = compressor(torch.cat([plain, busy, halves.reshape(1, 144, DIM)]))
    assert found.grids.tolist() == [2, 6, 2]
    assert found.mask.sum(1).tolist() == [4, 36, 4]
    torch.testing.assert_close(found.tokens[0, :4], plain[0, :4])
    assert not found.tokens[0, 4:].any()
    torch.testing.assert_close(found.tokens[1], pooled(busy, 12, 6)[0])


def test_complexity_is_the_share_of_the_variance_that_averages_lose():
    board = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(2, 2).reshape(1, 16, 1)
    assert float(complexity(board, 4, 2)) == 1
    assert float(complexity(board, 4, 4)) == 0
    assert float(complexity(torch.ones(1, 16, 1), 4, 2)) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TokenCompressor(DIM, 12, 24), "24 and the encoder gives 12 x 12 tokens: that is no compression"),
        (lambda: TokenCompressor(DIM, 24, 7), "output_grid 7 does not divide .* 1, 2, 3, 4, 6, 8, 12"),
        (lambda: TokenCompressor(0, 24, 6), "dim is 0; expected 1 or more"),
        (lambda: TokenCompressor(DIM, 24, 6, num_layers=0), "num_layers is 0; expected 1 or more"),
        (lambda: TokenCompressor(DIM, 24)(torch.zeros(1, 500, DIM)), r"\[1, 500, 8\]; expected \[batch, 576, width\]"),
        (lambda: TokenCompressor(DIM, 24)(torch.zeros(1, 576, 5)), "tokens are 5 wide; the compressor takes 8"),
        (lambda: AttentionDecoder(DIM, 24, hidden_dim=6), "hidden_dim 6 is no multiple of num_heads 4"),
        (lambda: TokenCritic(DIM, 1, multi_scale=True), "a single token has no smaller scale"),
        (lambda: DynamicTokenCompressor([]), "there are no compressors"),
        (lambda: DynamicTokenCompressor([TokenCompressor(DIM, 12, 4)] * 2), "two compressors give the same grid"),
        (lambda: DynamicTokenCompressor([TokenCompressor(DIM, 12, 4)], 1.5), "tolerance is 1.5; expected 0 to 1"),
        (lambda: losses.reconstruction("l3"), "unknown reconstruction loss 'l3'"),
    ],
)
def test_bad_sizes_are_refused_with_what_fits(make, message):
    with pytest.raises(ModelError, match=message):
        make()
