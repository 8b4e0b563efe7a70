"""Cross-layer equalisation: it changes no output in FP32, and where it applies."""

from __future__ import annotations

import pytest
from _models import IMAGE, example, nn, seeded, tiny, torch

from edge_sdk.pipeline.capture import capture
from edge_sdk.quantization.base import Data, make_quantizer

pytest.importorskip("torchao", reason="torchao is not installed: pip install 'edge-sdk[onnxruntime]'")
from edge_sdk.quantization._equalize import equalize, find_pairs  # noqa: E402


def uneven(*layers: nn.Module) -> nn.Module:
    """Layers one after another, each output channel of another size."""
    network = nn.Sequential(*layers)
    for layer in network:
        weight = getattr(layer, "weight", None)
        if weight is not None and weight.dim() > 1:
            with torch.no_grad():
                weight *= torch.logspace(-1, 1, len(weight)).reshape(-1, *[1] * (weight.dim() - 1))
                layer.bias.uniform_(-1, 1)
    return network


def graph_of(build, *shape):
    return capture(tiny(seeded(build), example(*shape))).graphs[0].torch


def conv(inputs, outputs, size=3, **options):
    return nn.Conv2d(inputs, outputs, size, **options)


NETWORKS = [
    pytest.param(lambda: uneven(conv(3, 8), nn.ReLU(), conv(8, 4)), IMAGE, 1, id="convolutions"),
    pytest.param(lambda: uneven(conv(3, 8), nn.ReLU(True), conv(8, 4, bias=True)), IMAGE, 1, id="relu in place"),
    pytest.param(lambda: uneven(conv(3, 8), conv(8, 4)), IMAGE, 1, id="nothing between"),
    pytest.param(
        lambda: uneven(conv(3, 8, 1), nn.ReLU(), conv(8, 8, groups=8), nn.ReLU(), conv(8, 4, 1)),
        IMAGE,
        2,
        id="depthwise",
    ),
    pytest.param(lambda: uneven(conv(3, 8), nn.ReLU(), conv(8, 6, groups=2)), IMAGE, 1, id="groups"),
    pytest.param(
        lambda: uneven(conv(3, 8), nn.ReLU(), nn.MaxPool2d(2), nn.ZeroPad2d(1), conv(8, 4)), IMAGE, 1, id="pool and pad"
    ),
    pytest.param(lambda: uneven(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Conv1d(8, 4, 3, dilation=2)), (1, 3, 32), 1, id="1d"),
    pytest.param(lambda: uneven(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 8)), (4, 16), 1, id="linear"),
    pytest.param(lambda: uneven(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)), (1, 5, 16), 1, id="linear of tokens"),
]


@pytest.mark.parametrize(("build", "shape", "pairs"), NETWORKS)
def test_the_function_stays(build, shape, pairs):
    graph = graph_of(build, *shape)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = graph(x)
        weights = [parameter.clone() for parameter in graph.parameters()]
        assert equalize(graph) == pairs
        after = graph(x)
    assert any(not torch.equal(old, new) for old, new in zip(weights, graph.parameters(), strict=True))
    assert (after - before).norm() <= 1e-4 * before.norm()


def test_both_layers_end_with_the_same_range_of_each_channel():
    graph = graph_of(lambda: uneven(conv(3, 8), nn.ReLU(), conv(8, 6, groups=2)), *IMAGE)
    equalize(graph)
    first, second = (parameter.detach() for parameter in graph.parameters() if parameter.dim() == 4)
    ranges = torch.cat([half.abs().amax((0, 2, 3)) for half in second.chunk(2)])
    torch.testing.assert_close(first.abs().amax((1, 2, 3)), ranges)


class Twice(nn.Module):
    """The first layer's output goes to two consumers."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x):
        x = torch.relu(self.a(x))
        return x + self.b(x)


class Shared(nn.Module):
    """Both layers have the same weight."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(16, 16)

    def forward(self, x):
        return self.a(torch.relu(self.a(x)))


class Both(nn.Module):
    """What is between the layers is an output as well."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x):
        x = torch.relu(self.a(x))
        return torch.cat([x, self.b(x)], 1)


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        pytest.param(lambda: uneven(conv(3, 8), nn.ReLU6(), conv(8, 4)), IMAGE, id="ReLU6 is cut off at the top"),
        pytest.param(lambda: uneven(conv(3, 8), nn.Sigmoid(), conv(8, 4)), IMAGE, id="sigmoid"),
        pytest.param(
            lambda: uneven(conv(3, 8), nn.ReLU(), nn.ConstantPad2d(1, 2.0), conv(8, 4)), IMAGE, id="padding with twos"
        ),
        pytest.param(
            lambda: uneven(conv(3, 4), nn.ReLU(), nn.Flatten(2), nn.Linear(196, 8)), IMAGE, id="channels flattened"
        ),
        pytest.param(Twice, (1, 16), id="two consumers"),
        pytest.param(Shared, (1, 16), id="one weight for both"),
        pytest.param(Both, (1, 16), id="an output"),
        pytest.param(lambda: nn.Linear(16, 16), (1, 16), id="one layer"),
    ],
)
def test_where_it_does_not_apply_nothing_changes(build, shape):
    graph = graph_of(build, *shape)
    weights = [parameter.clone() for parameter in graph.parameters()]
    assert find_pairs(graph) == [] and equalize(graph) == 0
    assert all(torch.equal(old, new) for old, new in zip(weights, graph.parameters(), strict=True))


def test_a_dead_channel_stays_dead_and_disturbs_nothing():
    def build():
        network = uneven(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))
        with torch.no_grad():
            network[0].weight[0], network[2].weight[:, 1] = 0.0, 0.0
        return network

    graph = graph_of(build, 1, 16)
    x = torch.randn(1, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = graph(x)
        equalize(graph)
        torch.testing.assert_close(graph(x), before)
    assert all(parameter.isfinite().all() for parameter in graph.parameters())


def test_it_helps_where_channels_differ_and_spares_the_graph_it_is_given():
    """The first layer's largest channels, which the second hardly looks at, take the whole range."""

    def build():
        network = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 8))
        factors = torch.logspace(-2, 2, 64)
        with torch.no_grad():
            network[0].weight *= factors[:, None]
            network[0].bias *= factors
            network[2].weight /= factors
        return network

    model = tiny(seeded(build), example(1, 16))
    captured = capture(model)
    x = torch.stack([torch.from_numpy(sample["forward"]["x"]) for sample in model.samples("reference")])
    noise = {}
    for equalized in ("false", "true"):
        quantizer = make_quantizer("int8-static", {"equalize": equalized})
        done = quantizer.apply_torch(captured, Data(calibration=model.samples("calibration")))
        assert done.quantization.options["equalize"] is (equalized == "true")
        with torch.no_grad():
            exact = torch.stack([captured.graphs[0].torch(one) for one in x])
            found = torch.stack([done.graphs[0].torch(one) for one in x])
        torch.testing.assert_close(exact, torch.stack([model.parts()[0].module(one) for one in x]))
        noise[equalized] = float((found - exact).norm() / exact.norm())
    assert noise["true"] < 0.03 < 0.2 < noise["false"]
