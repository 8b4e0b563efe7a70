"""The semantic quantizer: what it looks up, what it learns, what it refuses."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from edge_sdk.errors import ModelError  # noqa: E402
from edge_sdk.models.svq.quantizer import SemanticVectorQuantizer  # noqa: E402


def _quantizer(**changes) -> SemanticVectorQuantizer:
    torch.manual_seed(0)
    sizes = {"num_slots": 3, "slot_dim": 12, "num_codebooks": 3, "codebook_size": 8, "code_dim": 4}
    return SemanticVectorQuantizer(**{**sizes, **changes})


def _clusters(count: int, centres: int = 4) -> torch.Tensor:
    """Slots ``[count, 3, 12]`` whose blocks lie near a few centres."""
    places = 3 * torch.randn(centres, 12, generator=torch.Generator().manual_seed(1))
    numbers = torch.Generator().manual_seed(2)
    chosen = torch.randint(centres, (count, 3), generator=numbers)
    return places[chosen] + 0.02 * torch.randn(count, 3, 12, generator=numbers)


def test_each_block_gets_the_nearest_code_of_its_own_codebook():
    quantizer = _quantizer().eval()
    slots = torch.randn(5, 3, 12)
    found = quantizer(slots)
    blocks = torch.nn.functional.layer_norm(slots.reshape(5, 3, 3, 4), (4,))
    distances = (blocks.unsqueeze(3) - quantizer.codes).square().sum(dim=-1)
    assert found.indices.dtype == torch.int64
    assert torch.equal(found.indices, distances.argmin(dim=-1))
    expected = torch.stack([quantizer.codes[block][found.indices[..., block]] for block in range(3)], dim=2)
    assert torch.equal(found.slots, expected.flatten(2))
    assert torch.equal(quantizer.look_up(found.indices), found.slots)
    torch.testing.assert_close(found.loss, 0.25 * (blocks - expected).square().mean())


def test_blocks_of_another_width_than_codes_are_mapped_there_and_back():
    quantizer = _quantizer(code_dim=6)
    found = quantizer(torch.randn(5, 3, 12))
    assert found.slots.shape == (5, 3, 12) and found.indices.shape == (5, 3, 3)
    assert quantizer.codes.shape == (3, 8, 6)


def test_gradients_pass_straight_through():
    quantizer = _quantizer()
    slots = torch.randn(5, 3, 12, requires_grad=True)
    weights = torch.randn(5, 3, 12)
    (quantizer(slots).slots * weights).sum().backward()
    straight = slots.detach().clone().requires_grad_()
    (torch.nn.functional.layer_norm(straight.reshape(5, 3, 3, 4), (4,)).flatten(2) * weights).sum().backward()
    torch.testing.assert_close(slots.grad, straight.grad)


def test_strength_blends_in_training_and_not_in_evaluation():
    quantizer, slots = _quantizer(), torch.randn(5, 3, 12)
    quantizer(slots)
    blocks = torch.nn.functional.layer_norm(slots.reshape(5, 3, 3, 4), (4,)).flatten(2)
    quantizer.set_strength(0.0)
    torch.testing.assert_close(quantizer.snap(slots)[0], blocks)
    assert float(quantizer(slots).loss) == 0
    whole = quantizer.eval().snap(slots)[0]
    quantizer.train().set_strength(0.5)
    torch.testing.assert_close(quantizer.snap(slots)[0], (blocks + whole) / 2)
    torch.testing.assert_close(quantizer.eval().snap(slots)[0], whole)


def test_codes_find_the_clusters_and_the_loss_falls():
    quantizer = _quantizer()
    losses = [float(quantizer(_clusters(64)).loss) for _ in range(100)]
    assert losses[-1] < 1e-3 and losses[-1] <= losses[0]
    assert torch.isfinite(quantizer.codes).all()


def test_dead_codes_are_put_on_blocks_of_the_batch():
    quantizer = _quantizer(reseed_every=10, ema_decay=0.5)
    quantizer(_clusters(64))
    quantizer.codes.fill_(100.0)
    quantizer.codes[:, 0] = 0.0
    quantizer.sums.copy_(quantizer.codes)
    quantizer.counts.fill_(1.0)
    before = quantizer.eval()(_clusters(64))
    quantizer.train()
    for _ in range(30):
        quantizer(_clusters(64))
    after = quantizer.eval()(_clusters(64))
    assert before.perplexity == pytest.approx(1.0) and after.perplexity > 3
    assert after.loss < before.loss / 10


def test_evaluation_changes_nothing():
    quantizer = _quantizer()
    quantizer(_clusters(8))
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer.eval()(_clusters(64))
    quantizer.train().snap(_clusters(64))
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


def test_usage_and_perplexity_tell_even_use_from_one_code():
    quantizer = _quantizer(num_slots=1, slot_dim=4, num_codebooks=1, codebook_size=4).eval()
    quantizer.codes.copy_(torch.nn.functional.layer_norm(torch.eye(4), (4,)))
    even = quantizer(torch.eye(4).reshape(4, 1, 4))
    one = quantizer(torch.eye(4)[:1].expand(4, -1).reshape(4, 1, 4))
    assert (float(even.usage), float(one.usage)) == (1.0, 0.25)
    assert float(even.perplexity) == pytest.approx(4.0) and float(one.perplexity) == pytest.approx(1.0)


def test_use_by_the_moving_averages_is_told_of_each_codebook():
    quantizer = _quantizer()
    quantizer.counts.fill_(0.0)
    quantizer.counts[0] = 1.0
    quantizer.counts[1:, 0] = 1.0
    share, perplexity = quantizer.used()
    assert share.tolist() == [1.0, 0.125, 0.125]
    assert perplexity.tolist() == pytest.approx([8.0, 1.0, 1.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_slots": 0}, "num_slots is 0; expected 1 or more"),
        ({"codebook_size": 0, "num_codebooks": -1}, "num_codebooks is -1, codebook_size is 0"),
        ({"code_dim": 1}, "code_dim is 1; expected 2 or more"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0; expected from 0 to below 1"),
        ({"commitment_cost": -0.1}, "commitment_cost is -0.1; expected 0 or more"),
        ({"num_codebooks": 5}, "a slot of 12 does not divide into 5 equal blocks"),
    ],
)
def test_impossible_sizes(change, message):
    with pytest.raises(ModelError, match=message):
        _quantizer(**change)


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_an_impossible_strength(strength):
    with pytest.raises(ModelError, match="expected from 0 to 1"):
        _quantizer().set_strength(strength)


def test_a_quantizer_that_is_read_again_looks_for_dead_codes_at_the_same_steps():
    whole, first = _quantizer(reseed_every=5), _quantizer(reseed_every=5)
    batches = [_clusters(16) + step for step in range(8)]

    def learn(quantizer: SemanticVectorQuantizer, some: list[torch.Tensor], begin: int) -> None:
        for step, slots in enumerate(some, begin):
            torch.manual_seed(step)
            quantizer(slots)

    learn(whole.train(), batches, 0)
    learn(first.train(), batches[:3], 0)
    second = _quantizer(reseed_every=5).train()
    second.load_state_dict(first.state_dict())
    learn(second, batches[3:], 3)
    assert torch.equal(second.codes, whole.codes)


def test_the_nearest_code_is_the_same_in_mixed_precision():
    quantizer = _quantizer(codebook_size=256, slot_dim=48, code_dim=16).eval()
    slots = torch.randn(64, 3, 48)
    with torch.autocast("cpu", torch.bfloat16):
        found = quantizer.snap(slots)[1]
    assert torch.equal(found, quantizer.snap(slots)[1])
