"""The decoder against PyTorch's own LSTM, its attention, and its sizes from a checkpoint."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from edge_sdk.errors import ModelError  # noqa: E402
from edge_sdk.models.captioning.decoder import AttentionDecoder, LstmCell, State  # noqa: E402


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    return AttentionDecoder(11, 6, embed_dim=5, attention_dim=7, decoder_dim=8).eval()


def test_a_step_is_that_of_torchs_cell():
    torch.manual_seed(0)
    ours, theirs = LstmCell(5, 8), torch.nn.LSTMCell(5, 8)
    ours.load_state_dict(theirs.state_dict())
    x, hidden, cell = torch.randn(3, 5), torch.randn(3, 8), torch.randn(3, 8)
    for mine, other in zip(ours(x, State(hidden, cell)), theirs(x, (hidden, cell)), strict=True):
        assert torch.allclose(mine, other, atol=1e-6)


def test_attention_shares_itself_out_and_follows_the_place_that_answers(decoder):
    places = torch.randn(2, 4, 6)
    mixture, shares = decoder.attention(decoder.look(places), torch.randn(2, 8))
    assert torch.allclose(shares.sum(1), torch.ones(2))
    assert torch.allclose(mixture, torch.einsum("bp,bpc->bc", shares, places), atol=1e-6)


def test_words_given_at_once_are_words_given_one_by_one(decoder):
    places, captions = torch.randn(2, 4, 6), torch.randint(11, (2, 5))
    scores, shares = decoder(places, captions)
    assert scores.shape == (2, 4, 11) and shares.shape == (2, 4, 4)
    state = decoder.start(places)
    for at in range(4):
        score, state, share = decoder.step(captions[:, at], state, decoder.look(places))
        assert torch.equal(score, scores[:, at]) and torch.equal(share, shares[:, at])


def test_a_later_word_changes_no_earlier_score(decoder):
    places, captions = torch.randn(1, 4, 6), torch.randint(11, (1, 6))
    other = captions.clone()
    other[0, 4] = (other[0, 4] + 1) % 11
    ours, theirs = decoder(places, captions)[0], decoder(places, other)[0]
    assert torch.equal(ours[:, :4], theirs[:, :4]) and not torch.equal(ours[:, 4], theirs[:, 4])


def test_a_checkpoint_tells_its_sizes(decoder):
    state = {f"decoder.{name}": value for name, value in decoder.state_dict().items()}
    found = AttentionDecoder.sized_for(state)
    assert {name: value.shape for name, value in found.state_dict().items()} == {
        name: value.shape for name, value in decoder.state_dict().items()
    }
    with pytest.raises(ModelError, match=r"no captioner's: it lacks decoder.embedding.weight"):
        AttentionDecoder.sized_for({"fc.weight": torch.zeros(2, 2)})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: AttentionDecoder(0, 6), "vocab_size is 0"),
        (lambda: AttentionDecoder(5, 6, decoder_dim=-1), "decoder_dim is -1"),
        (lambda: AttentionDecoder(5, 6, dropout=1.0), "dropout is 1"),
        (lambda: AttentionDecoder(5, 6)(torch.zeros(1, 4, 6), torch.zeros(1, 1, dtype=torch.long)), "captions are"),
    ],
)
def test_wrong_sizes_are_refused(make, said: str):
    with pytest.raises(ModelError, match=said):
        make()
