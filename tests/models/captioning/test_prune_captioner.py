"""A pruned captioner: how small it is, that it still fits together, and that its checkpoint remembers it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning", reason="torch-pruning is not installed: pip install 'edge-sdk[train]'")

from edge_sdk.models.captioning._prune import Unrolled, prune_captioner  # noqa: E402
from edge_sdk.models.captioning.decoder import AttentionDecoder  # noqa: E402
from edge_sdk.models.captioning.network import Captioner  # noqa: E402
from edge_sdk.pruning import Recipe  # noqa: E402


def parameters(module) -> int:
    return sum(value.numel() for value in module.parameters())


@pytest.fixture(scope="module")
def pruned(tiny_captioner) -> Captioner:
    found = prune_captioner(tiny_captioner, Recipe(30, 10))
    assert found.parameters_before == parameters(tiny_captioner)
    return found.captioner


def test_encoder_and_decoder_each_lose_the_share(tiny_captioner, pruned):
    for part in ("encoder", "decoder"):
        assert parameters(getattr(pruned, part)) <= 0.7 * parameters(getattr(tiny_captioner, part))
    assert pruned.encoder.dim == tiny_captioner.encoder.dim == pruned.decoder.encoder_dim
    assert pruned.decoder.decoder_dim < tiny_captioner.decoder.decoder_dim


def test_a_checkpoint_remembers_what_was_pruned(pruned):
    images = torch.rand(2, 3, 64, 64)
    again = Captioner.from_state(pruned.checkpoint(), "it")
    assert again.caption(images) == pruned.caption(images)
    zeros = [sum(int((value == 0).sum()) for value in one.parameters() if value.ndim > 1) for one in (pruned, again)]
    assert zeros[0] == zeros[1] > 0.09 * parameters(pruned)


def test_a_decoder_unrolled_is_the_decoder():
    torch.manual_seed(0)
    decoder = AttentionDecoder(11, 6, embed_dim=5, attention_dim=7, decoder_dim=8).eval()
    unrolled = Unrolled(decoder).eval()
    places, words = torch.randn(2, 4, 6), torch.randint(11, (2, 3))
    scores = decoder(places, words)[0]
    found = unrolled(places, words[:, :2])
    assert torch.allclose(found[0], scores[:, 0], atol=1e-6) and torch.allclose(found[2], scores[:, 1], atol=1e-6)
    again = unrolled.decoder().eval()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in decoder.state_dict().items())


def test_sensitivity_names_the_layers_of_both(tiny_captioner):
    from edge_sdk.models.captioning._data import captioned
    from edge_sdk.models.captioning._sensitivity import captioner_sensitivity

    said: list[str] = []
    found = captioner_sensitivity(tiny_captioner, captioned("embedded", "val", 1, 0, subset=2), said.append)
    assert found.unpruned == 1 and len(said) == 2
    layers = [*found.channels, *found.weights]
    assert any(name.startswith("encoder.layers.") for name in layers)
    assert "decoder.steps.attention.encoder_att" in layers
    assert all(0 <= value <= 1 for row in found.channels.values() for value in row)
