"""Networks that are pruned: how small they become, what stays as it is, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning", reason="torch-pruning is not installed: pip install 'edge-sdk[train]'")

from torch import nn  # noqa: E402

from edge_sdk.errors import UnsupportedError  # noqa: E402
from edge_sdk.pruning import (  # noqa: E402
    Masks,
    NothingToPrune,
    prune,
    sensitivity,
    sensitivity_picture,
    take_shapes,
)


class Residual(nn.Module):
    """Two blocks with a shortcut, one of them depthwise, and a head."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(width, 2 * width, 1),
            nn.ReLU6(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width),
            nn.BatchNorm2d(2 * width),
            nn.ReLU6(),
            nn.Conv2d(2 * width, width, 1),
        )
        self.head = nn.Linear(width, 7)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images)
        return self.head((x + self.block(x)).mean((2, 3)))


class TwoDoors(nn.Module):
    """A state that comes in and goes out, as a decoder's step has it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer, self.look = nn.Linear(8, 64), nn.Linear(64, 16), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        state = state + self.outer(torch.relu(self.inner(x)))
        return self.look(state), state


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 8, 8)


@pytest.fixture
def network() -> Residual:
    return Residual().eval().requires_grad_(False)


def shapes(network: nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in network.named_parameters()}


@pytest.mark.parametrize("percent", [10, 30, 60])
def test_channels_go_until_the_share_of_parameters_has_gone(network: Residual, images, percent: int):
    found = prune(network, (images,), f"struct{percent}", round_to=1)
    assert found.parameters_before == sum(value.numel() for value in network.parameters())
    gone = 1 - found.parameters / found.parameters_before
    assert percent / 100 <= gone < percent / 100 + 0.06
    assert found.module(images).shape == (2, 7)


def test_the_network_itself_and_its_settings_stay(network: Residual, images):
    before = shapes(network)
    found = prune(network, (images,), "struct30+mag10")
    assert shapes(network) == before and not found.module.training
    assert not any(value.requires_grad for value in found.module.parameters())
    assert not any((value == 0).any() for value in network.parameters() if value.ndim > 1)


def test_layers_keep_a_multiple_of_eight_channels_and_shortcuts_the_same(network: Residual, images):
    found = shapes(prune(network, (images,), "struct40").module)
    assert all(found[name][0] % 8 == 0 for name in ("stem.0.weight", "block.0.weight", "block.5.weight"))
    assert found["stem.0.weight"][0] == found["block.5.weight"][0] == found["head.weight"][1]
    assert found["block.2.weight"] == [found["block.0.weight"][0], 1, 3, 3]
    assert found["head.weight"][0] == 7


def test_the_channels_with_the_least_norm_go(images):
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    with torch.no_grad():
        for layer, weight in ((network[0], network[0].weight), (network[2], network[2].weight.transpose(0, 1))):
            weight[2], weight[5] = 1e-3 * weight[2], 1e-3 * weight[5]
            layer.bias.zero_()
    found = prune(network, (images,), "struct20", round_to=1).module
    assert found[0].out_channels == 6
    assert torch.allclose(found(images), network(images), atol=1e-4)


def test_what_comes_in_and_goes_out_keeps_its_width():
    network, inputs = TwoDoors().eval(), (torch.randn(3, 8), torch.randn(3, 16))
    found = prune(network, inputs, "struct30").module
    assert found.inner.out_features < 64 and found.outer.out_features == found.look.in_features == 16
    scores, state = found(*inputs)
    assert scores.shape == (3, 5) and state.shape == (3, 16)


def test_feed_forward_layers_of_a_transformer_go_and_its_attention_stays():
    layer = nn.TransformerEncoderLayer(16, 2, 64, batch_first=True)
    network = nn.Sequential(layer, nn.Linear(16, 3)).eval()
    found = prune(network, (torch.randn(1, 5, 16),), "struct20").module
    assert found[0].linear1.out_features < 64 and found[0].self_attn.embed_dim == 16
    assert found(torch.randn(2, 5, 16)).shape == (2, 5, 3)


def test_what_cannot_go_is_told(images):
    with pytest.raises(NothingToPrune, match="Linear has no channels that can go"):
        prune(nn.Linear(4, 3), (torch.randn(1, 4),), "struct30")
    network = TwoDoors()
    with pytest.raises(UnsupportedError, match=r"at most 8\d% can go while inputs and outputs keep their widths"):
        prune(network, (torch.randn(1, 8), torch.randn(1, 16)), "struct85")
    with pytest.raises(UnsupportedError, match="magN works on any network"):
        prune(nn.Sequential(nn.Linear(4, 16), nn.GRU(16, 8, batch_first=True)), (torch.randn(1, 5, 4),), "struct30")


def test_the_smallest_weights_of_each_layer_are_zero(network: Residual, images):
    found = prune(network, (images,), "mag25")
    assert found.parameters == found.parameters_before
    zeros = 0
    for name, value in found.module.named_parameters():
        whole = network.get_parameter(name)
        if value.ndim > 1:
            assert int((value == 0).sum()) == value.numel() // 4
            assert whole[value == 0].abs().max() <= whole[value != 0].abs().min()
            zeros += value.numel() // 4
        else:
            assert torch.equal(value, whole)
    assert found.zeros == zeros


def test_masks_keep_zeros_while_training(network: Residual, images):
    found = prune(network, (images,), "mag25").module.requires_grad_(True)
    zero = {name: value == 0 for name, value in found.named_parameters() if value.ndim > 1}
    masks, optimizer = Masks(found), torch.optim.SGD(found.parameters(), 0.1)
    assert len(masks) == sum(int(places.sum()) for places in zero.values())
    for _ in range(3):
        optimizer.zero_grad()
        found(images).square().mean().backward()
        optimizer.step()
        masks.apply(found)
    for name, places in zero.items():
        value = found.get_parameter(name)
        assert not value[places].any() and not torch.equal(value, network.get_parameter(name))


def test_a_network_takes_the_shapes_of_a_pruned_ones_weights(network: Residual, images):
    pruned = prune(network, (images,), "struct50").module
    other = Residual().eval()
    take_shapes(other, pruned.state_dict())
    other.load_state_dict(pruned.state_dict())
    assert torch.equal(other(images), pruned(images))
    assert other.block[2].groups == other.block[2].in_channels == pruned.block[2].out_channels


def test_sensitivity_prunes_one_layer_at_a_time_and_takes_it_back(network: Residual, images, tmp_path: Path):
    exact = network(images)

    def judge(module: nn.Module) -> float:
        return float(torch.cosine_similarity(module(images), exact).mean())

    with torch.no_grad():
        found = sensitivity(network, (images,), judge, "cosine", shares=(0.1, 0.9))
    assert torch.equal(network(images), exact)
    assert list(found.channels) == ["stem.0", "block.0"]
    assert list(found.weights) == ["stem.0", "block.0", "block.2", "block.5", "head"]
    assert found.unpruned == pytest.approx(1)
    assert all(less > more for less, more in found.weights.values())
    assert found.document()["shares"] == (0.1, 0.9)
    sensitivity_picture(found, tmp_path / "it.png", "A title")
    assert (tmp_path / "it.png").stat().st_size > 10_000


def test_a_silenced_channel_changes_the_outputs_as_a_removed_one_does(network: Residual, images):
    from edge_sdk.pruning._structured import groups_of

    inner = {group.name: group for group in groups_of(network, (images,))}["block.0"]
    removed = prune(nn.Sequential(network.block), (torch.randn(1, 32, 8, 8),), "struct20").module[0]
    inner.silence(64 - removed[0].out_channels)
    x = torch.randn(1, 32, 8, 8)
    assert torch.allclose(network.block(x), removed(x), atol=1e-5)
