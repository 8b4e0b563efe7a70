"""SVQ as a whole: shapes, losses, codes, checkpoints, what a device gets, and what is refused."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from edge_sdk.errors import ModelError  # noqa: E402
from edge_sdk.models.svq.decoders import SVQDecoder, TransformerDecoder  # noqa: E402
from edge_sdk.models.svq.network import SVQ, DecoderFromCodes, EncoderToCodes, PriorStep  # noqa: E402
from edge_sdk.models.svq.slot_attention import BlockGru, SlotAttentionEncoder  # noqa: E402

CODED = ("inside", "after")
DECODERS = ("cnn", "transformer")


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("init", ["learned", "random"])
@pytest.mark.parametrize("quantize", [*CODED, "none"])
def test_outputs_and_gradients(small, images, quantize, init, decoder):
    model = small(quantize=quantize, init=init, decoder=decoder)
    found = model(images)
    assert found["recon"].shape == (4, 3, 16, 16)
    assert found["masks"].shape == (4, 3, 1, 16, 16)
    assert found["slots"].shape == (4, 3, 16)
    assert found["attention"].shape[:2] == (4, 3)
    torch.testing.assert_close(found["masks"].sum(dim=1), torch.ones(4, 1, 16, 16))
    assert ("indices" in found) == (quantize != "none")
    if "indices" in found:
        assert found["indices"].shape == (4, 3, 2) and found["indices"].dtype == torch.int64
        assert 0 < found["codebook_usage"] <= 1 <= found["perplexity"]
    loss, terms = model.compute_loss(images, found)
    loss.backward()
    assert set(terms) == {"loss", "recon_loss", "commitment_loss"}
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_weights_of_the_losses(small, images):
    model = small()
    found = model(images)
    loss, terms = model.compute_loss(images, found, recon_loss_weight=2.0, commitment_loss_weight=0.5)
    torch.testing.assert_close(terms["recon_loss"], (found["recon"] - images).square().mean().detach())
    torch.testing.assert_close(loss.detach(), 2 * terms["recon_loss"] + 0.5 * terms["commitment_loss"])


def test_the_sizes_of_the_paper_are_the_defaults():
    model = SVQ().eval()
    found = model(torch.rand(1, 3, 64, 64))
    assert found["recon"].shape == (1, 3, 64, 64) and found["indices"].shape == (1, 4, 4)
    assert SlotAttentionEncoder()(torch.rand(1, 3, 64, 64)).slots.shape == (1, 4, 64)
    for decoder in (SVQDecoder(), TransformerDecoder()):
        recon, masks = decoder(torch.randn(1, 4, 64))
        assert recon.shape == (1, 3, 64, 64) and masks.shape == (1, 4, 1, 64, 64)


@pytest.mark.parametrize("size", [16, 24, 40, 72])
def test_sizes_of_images(small, size):
    found = small(image_size=size)(torch.rand(1, 3, size, size))
    assert found["recon"].shape == (1, 3, size, size) and found["masks"].shape == (1, 3, 1, size, size)


@pytest.mark.parametrize("init", ["random", "learned"])
def test_an_image_has_one_answer_in_evaluation(small, images, init):
    model = small(init=init).eval()
    together, alone = model.encode(images), torch.cat([model.encode(images[place : place + 1]) for place in range(4)])
    assert torch.equal(together, alone)
    state = small(init=init)
    state.load_state_dict(model.state_dict())
    assert torch.equal(state.encode(images), together)
    assert state.training


def test_random_slots_differ_from_image_to_image_in_training_only(small):
    encoder = small(init="random").encoder
    assert not torch.equal(*encoder.initial_slots(2))
    assert torch.equal(*encoder.eval().initial_slots(2))


def test_learned_slots_are_distinct_and_the_same_in_training(small):
    encoder = small(init="learned").encoder
    first, second = encoder.initial_slots(2)
    assert torch.equal(first, second) and not torch.equal(first[0], first[1])


def test_the_gradient_of_learned_slots_is_that_of_what_the_last_iteration_starts_from(small, images):
    encoder = small(init="learned", num_iterations=3).encoder.double()
    images = images.double()
    found = encoder(images).slots
    (gradient,) = torch.autograd.grad(found.square().sum(), encoder.mean)
    with torch.no_grad():
        encoder.num_iterations = 2
        before = encoder(images).slots
    encoder.num_iterations, encoder.mean = 1, torch.nn.Parameter(before.detach())
    last = encoder(images).slots
    torch.testing.assert_close(last, found)
    (expected,) = torch.autograd.grad(last.square().sum(), encoder.mean)
    torch.testing.assert_close(gradient, expected.sum(0, keepdim=True))


def test_slots_share_each_position(small, images):
    attention = small()(images)["attention"]
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(4, attention.shape[2]))


def test_a_cell_of_one_block_is_a_gated_recurrent_unit():
    torch.manual_seed(0)
    ours, theirs = BlockGru(1, 6), torch.nn.GRUCell(6, 6)
    with torch.no_grad():
        for mine, weight, bias in (
            (ours.from_input, theirs.weight_ih, theirs.bias_ih),
            (ours.from_state, theirs.weight_hh, theirs.bias_hh),
        ):
            weight.copy_(mine.weight[0].T)
            bias.copy_(mine.bias)
    x, state = torch.randn(2, 3, 6), torch.randn(2, 3, 6)
    expected = theirs(x.flatten(0, 1), state.flatten(0, 1)).unflatten(0, (2, 3))
    torch.testing.assert_close(ours(x, state), expected)


def test_a_cell_keeps_blocks_apart():
    cell, x, state = BlockGru(3, 2), torch.randn(1, 4, 6), torch.randn(1, 4, 6)
    before = cell(x, state)
    x[..., 2:4] += 1
    changed = (cell(x, state) != before).any(dim=1)[0]
    assert changed.tolist() == [False, False, True, True, False, False]


@pytest.mark.parametrize("quantize", CODED)
def test_decode_gives_the_image_that_the_codes_were_read_off(small, images, quantize):
    model = small(quantize=quantize).eval()
    found, decoded = model(images), model.decode(model.encode(images))
    torch.testing.assert_close(decoded["recon"], found["recon"])
    torch.testing.assert_close(decoded["masks"], found["masks"])


@pytest.mark.parametrize(("quantize", "share"), [("none", 0.4), ("inside", 0.8)])
def test_training_tells_images_apart(small, quantize, share):
    model = small(quantize=quantize, num_slots=2, num_iterations=2, slot_size=32, code_dim=16, hidden_dim=16)
    images = torch.zeros(16, 3, 16, 16)
    images[:, :, 4:12, 4:12] = torch.rand(16, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(400):
        if model.quantizer is not None:
            model.quantizer.set_strength(min(1.0, max(0.0, step / 100 - 1)))
        loss, terms = model.compute_loss(images, model(images))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    of_the_mean_image = (images - images.mean(dim=0)).square().mean()
    assert terms["recon_loss"] < share * of_the_mean_image


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("quantize", CODED)
def test_a_checkpoint_brings_the_model_back(small, images, tmp_path, quantize, decoder):
    model = small(quantize=quantize, decoder=decoder, num_iterations=2)
    model(images)
    model.init_prior(16, 2, 1, 0.0)
    torch.save(model.checkpoint(), tmp_path / "svq.pt")
    back = SVQ.from_state(torch.load(tmp_path / "svq.pt", weights_only=True))
    assert back.settings == model.settings and not back.training
    assert torch.equal(back.encode(images), model.encode(images))
    ours, theirs = (one.generate(2, generator=torch.Generator().manual_seed(0)) for one in (model.eval(), back))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": None}, "my.pt has no 'settings'; expected a dict of state_dict and settings"),
        ({"settings": {"slots": 3}}, "my.pt holds settings that SVQ does not take: .*'slots'"),
        ({"state_dict": {}}, "my.pt does not fit the model: of .* missing"),
    ],
)
def test_a_broken_checkpoint(small, change, message):
    with pytest.raises(ModelError, match=message):
        SVQ.from_state({**small().checkpoint(), **change}, "my.pt")


@pytest.mark.parametrize("use_cache", [True, False])
def test_generated_images(small, use_cache):
    model = small()
    model.init_prior(16, 2, 1)
    found = model.generate(3, generator=torch.Generator().manual_seed(0), use_cache=use_cache)
    assert found.shape == (3, 3, 16, 16) and found.min() >= 0 and found.max() <= 1
    assert model.training


def test_without_a_prior_there_is_nothing_to_generate_with(small):
    for attempt in (lambda: small().generate(1), lambda: PriorStep(small())):
        with pytest.raises(ModelError, match=r"has no prior to .*: call init_prior\(...\), then train it"):
            attempt()


@pytest.mark.parametrize("quantize", CODED)
def test_what_a_device_gets_says_the_same_as_the_model(small, images, quantize):
    model = small(quantize=quantize)
    model(images)
    model.init_prior(16, 2, 1)
    model.eval()
    codes = model.encode(images)
    parts = (
        (EncoderToCodes(model), (images,), (codes,)),
        (DecoderFromCodes(model), (codes,), tuple(model.decode(codes).values())),
    )
    token, position, cache = codes[:, 0, 0], torch.tensor([1]), model.prior.empty_cache(4)
    parts += ((PriorStep(model), (token, position, cache), model.prior.step(token, position, cache)),)
    for module, inputs, expected in parts:
        with torch.no_grad():
            graph = torch.export.export(module.eval(), inputs, strict=False).module()
            found = graph(*inputs)
        torch.testing.assert_close(found if isinstance(found, tuple) else (found,), expected)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(2, 1, 16, 16), r"images are \[2, 1, 16, 16\]; expected \[batch, 3, 16, 16\]"),
        (torch.rand(2, 3, 16, 24), r"images are \[2, 3, 16, 24\]; expected"),
        (torch.rand(3, 16, 16), r"images are \[3, 16, 16\]; expected"),
        (torch.rand(0, 3, 16, 16), "a batch of 0 images came"),
        (torch.full((2, 3, 16, 16), float("nan")), "2 of 2 images hold NaN or infinity"),
    ],
)
def test_images_that_do_not_fit(small, images, message):
    for attempt in (small(), small().encode):
        with pytest.raises(ModelError, match=message):
            attempt(images)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(1, 3, 4, dtype=torch.int64), r"codes are \[1, 3, 4\]; expected \[batch, 3, 2\]"),
        (torch.full((1, 3, 2), 8), "codes go from 8 to 8; expected from 0 to 7"),
        (torch.zeros(1, 3, 2), "codes are of type float32; expected int64"),
    ],
)
def test_codes_that_do_not_fit(small, codes, message):
    with pytest.raises(ModelError, match=message):
        small().decode(codes)


def test_without_a_quantizer_there_are_no_codes(small, images):
    model = small(quantize="none")
    attempts = (
        lambda: model.encode(images),
        lambda: model.decode(torch.zeros(1, 3, 2, dtype=torch.int64)),
        model.init_prior,
        lambda: EncoderToCodes(model),
        lambda: DecoderFromCodes(model),
    )
    for attempt in attempts:
        with pytest.raises(ModelError, match="quantize='none' has no codes"):
            attempt()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_slots": 0}, "num_slots is 0; expected 1 or more"),
        ({"num_iterations": 0}, "num_iterations is 0; expected 1 or more"),
        ({"image_size": 20}, "image_size is 20; expected a multiple of 8 from 16 on"),
        ({"image_size": 8}, "image_size is 8; expected"),
        ({"num_codebooks": 3}, "a slot of 16 does not divide into 3 equal blocks"),
        ({"decoder": "cnns"}, "unknown decoder 'cnns'. Did you mean 'cnn'?"),
        ({"quantize": "outside"}, "unknown place to quantize 'outside'"),
        ({"init": "zero"}, "init is 'zero'; expected 'random' or 'learned'"),
        ({"decoder": "transformer", "hidden_dim": 6}, "hidden_dim 6 is no multiple of num_heads 4"),
    ],
)
def test_impossible_settings(small, change, message):
    with pytest.raises(ModelError, match=message.replace("?", r"\?")):
        small(**change)


def test_the_seeds_example_of_training_and_looking_runs_as_it_is(tmp_path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from edge_sdk.models.svq.data import get_data_loaders

    train_loader, val_loader = get_data_loaders(
        dataset_name="shapes", batch_size=4, num_workers=0, num_samples=8, image_size=32, max_shapes=4
    )
    model = SVQ(
        image_size=32,
        in_channels=3,
        num_slots=4,
        num_iterations=3,
        slot_size=64,
        num_codebooks=4,
        codebook_size=16,
        code_dim=16,
        hidden_dim=16,
        commitment_cost=0.25,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0001)
    for data in train_loader:
        outputs = model(data)
        loss, _ = model.compute_loss(data, outputs, recon_loss_weight=1.0, commitment_loss_weight=0.25)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.init_prior(embed_dim=16, num_heads=2, num_layers=1, dropout=0.1)
    assert model.generate(batch_size=2, temperature=1.0).shape == (2, 3, 32, 32)
    data = next(iter(val_loader))
    outputs = model(data)
    _, axes = plt.subplots(1, 3)
    axes[0].imshow(data[0].permute(1, 2, 0).numpy())
    axes[1].imshow(outputs["recon"][0].detach().permute(1, 2, 0).numpy())
    axes[2].imshow(outputs["masks"][0, 0, 0].detach().numpy(), cmap="viridis")
    plt.savefig(tmp_path / "visualization.png")
    plt.close()
