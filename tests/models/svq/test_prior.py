"""The prior: causal, the same with and without its cache, able to learn, and one step of it exported."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from edge_sdk.errors import ModelError  # noqa: E402
from edge_sdk.models.svq.prior import AutoregressiveTransformer  # noqa: E402


def _prior(**changes) -> AutoregressiveTransformer:
    torch.manual_seed(0)
    sizes = {"num_slots": 3, "num_codebooks": 2, "codebook_size": 5, "embed_dim": 16, "num_heads": 2, "num_layers": 2}
    return AutoregressiveTransformer(**{**sizes, **changes}).eval()


def _sharp(**changes) -> AutoregressiveTransformer:
    """One whose logits differ from code to code, as they do after training."""
    prior = _prior(**changes)
    with torch.no_grad():
        prior.head.weight.normal_(std=1.0)
        prior.tokens.weight.normal_(std=1.0)
    return prior


def _numbers(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_code_changes_only_the_logits_after_it():
    prior, codes = _sharp(), torch.randint(5, (2, 3, 2), generator=_numbers())
    before = prior(codes).flatten(1, 2)
    changed = codes.clone()
    changed[:, 1, 0] = (changed[:, 1, 0] + 1) % 5
    after = prior(changed).flatten(1, 2)
    assert before.shape == (2, 6, 5)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.isclose(before[:, 3:], after[:, 3:]).all(dim=2).any()


def test_steps_give_the_logits_of_the_whole():
    prior, codes = _sharp(), torch.randint(5, (2, 3, 2), generator=_numbers())
    whole, flat, cache = prior(codes).flatten(1, 2), codes.flatten(1), prior.empty_cache(2)
    for place in range(6):
        # What is fed at the first place is not looked at.
        before = flat[:, place - 1] if place else torch.full((2,), 4)
        logits, cache = prior.step(before, torch.tensor([place]), cache)
        torch.testing.assert_close(logits, whole[:, place])
    assert cache.shape == (2, 2, 2, 2, 6, 8)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
def test_the_cache_does_not_change_what_is_drawn(temperature):
    prior = _sharp(num_slots=6)
    kept, anew = (prior.generate(4, temperature, _numbers(), use_cache) for use_cache in (True, False))
    assert kept.shape == (4, 6, 2) and kept.dtype == torch.int64
    assert torch.equal(kept, anew)
    assert kept.min() >= 0 and kept.max() < 5


def test_temperature_0_takes_the_likeliest_code():
    prior = _sharp()
    found = prior.generate(2, 0.0)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found, prior(found).argmax(dim=-1))


def test_random_numbers_decide_what_is_drawn():
    prior = _sharp()
    first, again, other = (prior.generate(8, generator=_numbers(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_it_is_left_in_the_mode_it_was_in():
    prior = _prior().train()
    prior.generate(1)
    assert prior.training


def test_it_learns_what_codes_come_together():
    prior = _prior(dropout=0.0).train()
    codes = torch.tensor([[[0, 1], [2, 3], [4, 0]], [[3, 3], [1, 1], [2, 2]]])
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.01)
    for _ in range(60):
        loss, terms = prior.compute_loss(codes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # The first code is a coin's throw, ln 2 of six codes; the others follow from it.
    assert float(terms["prior_loss"]) == pytest.approx(0.6931 / 6, abs=0.02)
    drawn = {tuple(one.flatten().tolist()) for one in prior.generate(32, 0.3, _numbers())}
    assert drawn == {tuple(one.flatten().tolist()) for one in codes}


def test_codes_of_a_flat_shape_are_taken_too():
    prior, codes = _sharp(), torch.randint(5, (2, 3, 2), generator=_numbers())
    assert torch.equal(prior(codes), prior(codes.flatten(1)))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(2, 3, 3, dtype=torch.int64), r"codes are \[2, 3, 3\]; expected \[batch, 3, 2\]"),
        (torch.zeros(2, 5, dtype=torch.int64), r"codes are \[2, 5\]; expected"),
        (torch.zeros(2, 3, 2), "codes are of type float32; expected int64"),
        (torch.zeros(0, 3, 2, dtype=torch.int64), "a batch of 0 codes came"),
        (torch.full((2, 3, 2), 5), "codes go from 5 to 5; expected from 0 to 4"),
        (torch.full((2, 3, 2), -1), "codes go from -1 to -1; expected from 0 to 4"),
    ],
)
def test_what_are_no_codes(codes, message):
    with pytest.raises(ModelError, match=message):
        _prior()(codes)


@pytest.mark.parametrize("temperature", [-0.5, float("inf"), float("nan")])
def test_an_impossible_temperature(temperature):
    with pytest.raises(ModelError, match=r"expected 0 \(the likeliest code\) or more"):
        _prior().generate(1, temperature)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 3}, "embed_dim 16 is no multiple of 3 heads"),
        ({"dropout": 1.0}, "dropout is 1.0; expected from 0 to below 1"),
        ({"num_layers": 0}, "num_layers is 0; expected 1 or more"),
    ],
)
def test_impossible_sizes(change, message):
    with pytest.raises(ModelError, match=message):
        _prior(**change)


def test_batch_0():
    with pytest.raises(ModelError, match="batch_size is 0; expected 1 or more"):
        _prior().generate(0)
