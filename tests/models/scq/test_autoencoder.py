"""The autoencoder: the seed's call, shapes, the latents' scale, its loss, and what it refuses."""

from __future__ import annotations

import math

import pytest

from edge_sdk.errors import ModelError

torch = pytest.importorskip("torch")

from edge_sdk.models.scq.autoencoder import SCQAutoencoder, compute_loss, randomly_initialised, sizes  # noqa: E402
from edge_sdk.models.scq.networks import Decoder, Encoder, SubPixel  # noqa: E402

SMALL = {"latent_dim": 8, "num_codes": 16, "hidden": 8}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_the_call_of_the_seed_works_as_written_and_trains():
    model = SCQAutoencoder(input_channels=3, latent_dim=128, num_codes=256, scq_lambda=1e-3)
    x = torch.randn(1, 3, 64, 64)
    x_recon, z, z_q, stats = model(x)
    assert x_recon.shape == x.shape
    assert z.shape == z_q.shape == (1, 128, 8, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    loss, loss_dict = compute_loss(x_recon, x, z, z_q, stats)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    assert loss_dict["loss"] == loss
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("quantizer", ["scq", "vq", "none"])
def test_a_few_steps_lower_the_loss(quantizer: str):
    model = SCQAutoencoder(**SMALL, quantizer=quantizer)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x = torch.nn.functional.interpolate(torch.rand(4, 3, 4, 4), size=32, mode="bilinear")
    losses = []
    for _ in range(12):
        loss, _ = compute_loss(*(out := model(x))[:1], x, *out[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(("stride", "size"), [(2, (6, 4)), (4, (8, 12)), (8, (24, 16)), (16, (32, 64))])
def test_any_size_that_the_stride_divides(stride: int, size: tuple[int, int]):
    model = SCQAutoencoder(1, **SMALL, stride=stride, quantizer="vq").eval()
    x = torch.rand(2, 1, *size)
    x_recon, z, z_q, _ = model(x)
    assert x_recon.shape == x.shape
    assert z.shape == z_q.shape == (2, 8, size[0] // stride, size[1] // stride)


def test_encoding_quantizing_and_decoding_apart_is_the_same_as_all_at_once():
    model = randomly_initialised(0, **SMALL)
    x = torch.rand(2, 3, 32, 32)
    x_recon, z, z_q, stats = model(x)
    assert torch.equal(model.encode(x), z)
    found, again = model.quantize(z)
    assert torch.equal(found, z_q)
    assert all(torch.equal(again[name], value) for name, value in stats.items())
    assert torch.equal(model.decode(z_q), x_recon)


def test_latents_have_a_squared_length_near_1_whatever_the_width():
    for width in (4, 64):
        model = randomly_initialised(0, **{**SMALL, "latent_dim": width})
        x = torch.rand(4, 3, 64, 64)
        assert model.encode(x).square().sum(1).mean().item() == pytest.approx(1, rel=0.3)
        assert model.train().encode(x).square().sum(1).mean().item() == pytest.approx(1, rel=0.05)
        assert not any(parameter.requires_grad for parameter in model.encoder.scale.parameters())


def test_random_weights_follow_the_seed_and_leave_torch_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first, again, other = (randomly_initialised(seed, **SMALL).encoder.project.weight for seed in (3, 3, 4))
    assert torch.rand(1) == expected
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_sub_pixels_are_those_of_the_pixel_shuffle_and_start_without_checkerboards():
    layer = SubPixel(4, 3)
    x = torch.rand(2, 4, 5, 6)
    assert torch.equal(layer(x), torch.nn.functional.pixel_shuffle(layer.conv(x), 2))
    up = layer(x)
    assert torch.allclose(up[..., ::2, ::2], up[..., 1::2, 1::2], atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"quantizer": "scq", "scq_lambda": 0.02, "anchor": "none"},
        {"quantizer": "scq", "ema_decay": None},
        {"quantizer": "vq", "stride": 4},
        {"quantizer": "none", "stride": 16, "hidden": 12},
    ],
)
def test_a_state_dict_tells_the_sizes_that_it_needs(settings):
    model = SCQAutoencoder(**{**SMALL, **settings})
    rebuilt = SCQAutoencoder(**sizes(model.state_dict()))
    rebuilt.load_state_dict(model.state_dict())
    assert type(rebuilt.quantizer) is type(model.quantizer)
    assert rebuilt.stride == model.stride
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(rebuilt.eval()(x)[0], model.eval()(x)[0])


def test_sizes_of_other_weights_are_none():
    assert sizes({"fc.weight": torch.zeros(3, 3)}) == {}


def test_the_parts_of_the_loss_add_up():
    model = SCQAutoencoder(**SMALL, ema_decay=None)
    x = torch.rand(2, 3, 32, 32)
    x_recon, z, z_q, stats = model(x)
    loss, parts = compute_loss(x_recon, x, z, z_q, stats, commitment_weight=0.5, entropy_weight=0.1)
    expected = parts["reconstruction"] + 0.5 * parts["commitment"] + 0.1 * parts["entropy"] + parts["codebook"]
    assert float(loss.detach()) == pytest.approx(float(expected))
    assert float(parts["commitment"]) == pytest.approx(float(parts["codebook"]), rel=1e-4)
    assert not any(part.requires_grad for part in parts.values())
    loss.backward()
    assert model.quantizer.codebook.codes.grad.abs().sum() > 0
    followed = SCQAutoencoder(**SMALL)
    x_recon, z, z_q, stats = followed(x)
    loss, parts = compute_loss(x_recon, x, z, z_q, stats, commitment_weight=0.5)
    assert float(loss.detach()) == pytest.approx(float(parts["reconstruction"] + 0.5 * parts["commitment"]))


def test_the_entropy_term_makes_weights_sparser():
    model = SCQAutoencoder(**SMALL, anchor="none", ema_decay=None)
    x = torch.rand(4, 3, 32, 32)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    entropies = []
    for _ in range(20):
        x_recon, z, z_q, stats = model(x)
        loss, parts = compute_loss(x_recon, x, z, z_q, stats, commitment_weight=0.0, entropy_weight=1.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        entropies.append(float(parts["entropy"]))
    assert entropies[-1] < 0.8 * entropies[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SCQAutoencoder(quantizer="vqq"), "unknown quantizer 'vqq'. Did you mean 'vq'?"),
        (lambda: SCQAutoencoder(0), "an autoencoder of 0 input channels and latents that are 128 wide"),
        (lambda: SCQAutoencoder(scq_lambda=-1), "scq_lambda is -1: give a finite number above 0"),
        (lambda: SCQAutoencoder(stride=6), "the stride is 6: give a power of 2, such as 8."),
        (lambda: SCQAutoencoder(stride=1), "the stride is 1: give a power of 2"),
        (lambda: SCQAutoencoder(hidden=2), "hidden is 2: give at least 4 channels."),
    ],
)
def test_wrong_arguments_are_refused(make, message: str):
    with pytest.raises(ModelError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 4, 16, 16), "the images have the shape [1, 4, 16, 16]; expected [batch, 3, height, width]."),
        (torch.zeros(3, 16, 16), "the images have the shape [3, 16, 16]"),
        (torch.zeros(0, 3, 16, 16), "there are no images (batch 0): give at least one"),
        (torch.zeros(1, 3, 20, 16), "20 x 16 pixels, and the network's stride is 8: give sides that it divides"),
        (torch.zeros(1, 3, 20, 16), "such as 16 x 16."),
        (torch.zeros(1, 3, 0, 16), "the images have 0 x 16 pixels"),
        (torch.zeros(1, 3, 8, 8), "the images give a single latent in all, which has no variance to train with"),
        (torch.full((2, 3, 16, 16), math.nan), "2 of 2 images hold NaN: check how they were read and scaled."),
    ],
)
def test_wrong_images_are_refused(x, message: str):
    with pytest.raises(ModelError) as caught:
        SCQAutoencoder(**SMALL)(x)
    assert message in str(caught.value)


def test_a_loss_of_different_shapes_is_refused():
    with pytest.raises(ModelError, match=r"reconstructions have the shape \[1, 3, 8, 8\]; expected \[1, 3, 16, 16\]"):
        compute_loss(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 16, 16), torch.zeros(1), torch.zeros(1), {})


def test_channels_halve_at_most_twice_away_from_the_latents():
    encoder, decoder = Encoder(3, 8, 32, 16), Decoder(3, 8, 32, 16)
    assert [layer.out_channels for layer in encoder.layers if isinstance(layer, torch.nn.Conv2d)] == [8, 8, 16, 32]
    shapes = [tuple(layer.conv.weight.shape[:2]) for layer in decoder.layers if isinstance(layer, SubPixel)]
    assert shapes == [(64, 32), (32, 16), (32, 8), (12, 8)]
