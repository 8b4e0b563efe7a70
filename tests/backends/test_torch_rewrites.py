"""Graph rewrites on PyTorch graphs: where they apply, where they must not, and that no output moves."""

from __future__ import annotations

import pytest
from _models import Pooled, captioner, conv_model, example, nn, seeded, tiny, torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.backends.executorch import ExecuTorchBackend
from edge_sdk.backends.onnxruntime import OnnxRuntimeBackend
from edge_sdk.errors import ModelError
from edge_sdk.pipeline.capture import capture

F = nn.functional


class Lambda(nn.Module):
    """A network of layers by name, and what is done with them."""

    def __init__(self, forward, **layers) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def applied(module, shape, name: str, backend=None) -> int:
    """How often one rewrite applied to a network, all outputs staying where they were."""
    module = seeded(lambda: module)
    captured = capture(tiny(module, example(*shape)))
    rewritten = (backend or ExecuTorchBackend()).rewrite(captured, frozenset({name}))
    x = example(*shape) * 3 + 1
    with torch.no_grad():
        torch.testing.assert_close(rewritten.graphs[0].torch(x), module(x), rtol=1e-4, atol=1e-4)
    (found,) = rewritten.rewrites or (None,)
    assert found is None or (found.name == name and found.max_abs_err < 1e-3)
    return found.count if found else 0


def conv(*arguments, **options) -> nn.Module:
    return nn.Conv2d(*arguments, **options)


@pytest.mark.parametrize(
    ("module", "count"),
    [
        pytest.param(nn.Sequential(conv(3, 4, 1), nn.Dropout()), 1, id="dropout"),
        pytest.param(nn.Sequential(conv(3, 4, 1), nn.Dropout2d()), 1, id="dropout of channels"),
        pytest.param(Lambda(lambda m, x: m.c(x).permute(0, 2, 3, 1).contiguous(), c=conv(3, 4, 1)), 1, id="copy"),
        pytest.param(nn.Sequential(conv(3, 4, 1), nn.ReLU()), 0, id="nothing to drop"),
    ],
)
def test_drop_identities(module, count):
    assert applied(module, (1, 3, 4, 4), "drop_identities") == count


@pytest.mark.parametrize("dropout", [F.dropout, F.dropout2d])
def test_dropout_that_is_meant_to_stay_on_stays(dropout):
    captured = capture(tiny(Lambda(lambda m, x: dropout(x, 0.5, training=True)), example(1, 3, 4, 4)))
    assert not ExecuTorchBackend().rewrite(captured, frozenset({"drop_identities"})).rewrites


def test_dropping_everything_leaves_the_input():
    assert applied(nn.Dropout(), (1, 3, 4, 4), "drop_identities") == 1


@pytest.mark.parametrize(
    ("module", "shape", "count"),
    [
        pytest.param(conv(3, 4, 3, padding="same"), (1, 3, 6, 6), 1, id="same"),
        pytest.param(conv(3, 4, (3, 5), padding="same", dilation=2), (1, 3, 12, 12), 1, id="same, dilated"),
        pytest.param(conv(3, 4, (2, 3), padding="same", bias=False), (1, 3, 6, 6), 1, id="same, one side more"),
        pytest.param(conv(3, 4, 3, padding="valid", stride=(1, 2)), (1, 3, 7, 7), 1, id="valid"),
        pytest.param(nn.Conv1d(3, 4, 4, padding="same"), (1, 3, 9), 1, id="conv1d"),
        pytest.param(conv(3, 4, 3, padding=1), (1, 3, 6, 6), 0, id="in numbers already"),
    ],
)
def test_padding_in_numbers(module, shape, count):
    assert applied(module, shape, "padding_in_numbers") == count


def _shared_weight():
    first, second = conv(4, 4, 1, bias=False), conv(4, 4, 1, bias=False)
    second.weight = first.weight
    return nn.Sequential(first, nn.BatchNorm2d(4), nn.ReLU(), second, nn.BatchNorm2d(4))


@pytest.mark.parametrize(
    ("module", "shape", "count"),
    [
        pytest.param(nn.Sequential(conv(4, 8, 3), nn.BatchNorm2d(8)), (1, 4, 6, 6), 1, id="with bias"),
        pytest.param(nn.Sequential(conv(4, 8, 3, bias=False), nn.BatchNorm2d(8)), (1, 4, 6, 6), 1, id="no bias"),
        pytest.param(
            nn.Sequential(conv(4, 8, 3, groups=4), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 4, 1), nn.BatchNorm2d(4)),
            (1, 4, 6, 6),
            2,
            id="two, one grouped",
        ),
        pytest.param(nn.Sequential(nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8)), (1, 4, 6), 1, id="conv1d"),
        pytest.param(nn.Sequential(nn.BatchNorm2d(4), conv(4, 8, 3)), (1, 4, 6, 6), 0, id="before the convolution"),
        pytest.param(nn.Sequential(conv(4, 8, 3), nn.BatchNorm2d(8, affine=False)), (1, 4, 6, 6), 0, id="not affine"),
        pytest.param(
            Lambda(lambda m, x: (y := m.c(x)) * m.b(y), c=conv(4, 8, 3), b=nn.BatchNorm2d(8)),
            (1, 4, 6, 6),
            0,
            id="the convolution has another reader",
        ),
        pytest.param(
            Lambda(
                lambda m, x: m.b2(m.c(F.relu(m.b1(m.c(x))))),
                c=conv(4, 4, 1),
                b1=nn.BatchNorm2d(4),
                b2=nn.BatchNorm2d(4),
            ),
            (1, 4, 6, 6),
            0,
            id="one convolution called twice",
        ),
        pytest.param(_shared_weight(), (1, 4, 6, 6), 0, id="two convolutions share a weight"),
        pytest.param(
            nn.Sequential(conv(4, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)),
            (2, 4, 6, 6),
            0,
            id="statistics of the batch",
        ),
    ],
)
def test_fold_batch_norm(module, shape, count):
    assert applied(module, shape, "fold_batch_norm") == count


def mean(*dims, **options):
    return Lambda(lambda m, x: x.mean(dims, **options))


@pytest.mark.parametrize(
    ("module", "shape", "count"),
    [
        pytest.param(Pooled(), (1, 3, 4, 4), 1, id="height and width"),
        pytest.param(mean(2, 3, keepdim=True), (2, 3, 4, 4), 1, id="keeps dimensions"),
        pytest.param(mean(-1, -2), (1, 3, 4, 5), 1, id="negative, turned around"),
        pytest.param(mean(-2, -1, keepdim=True), (1, 3, 4, 5), 1, id="negative, keeps dimensions"),
        pytest.param(mean(1, 2), (1, 3, 4, 4), 0, id="channels and height"),
        pytest.param(mean(2), (1, 3, 4, 4), 0, id="height only"),
        pytest.param(mean(1, 2, 3), (1, 3, 4, 4), 0, id="all but the batch"),
        pytest.param(mean(-1, -2), (3, 4, 4), 0, id="no batch"),
        pytest.param(mean(2, 3, dtype=torch.float64), (1, 3, 4, 4), 0, id="another type"),
        pytest.param(Lambda(lambda m, x: x.mean()), (1, 3, 4, 4), 0, id="everything"),
    ],
)
def test_mean_to_average_pool(module, shape, count):
    if count == 0 and module._forward(module, example(*shape)).dtype is torch.float64:
        module = Lambda(lambda m, x: x.mean((2, 3), dtype=torch.float64).float())
    assert applied(module, shape, "mean_to_average_pool") == count


def padded(pads, value=0.0, mode="constant", **options):
    return Lambda(lambda m, x: m.c(F.pad(x, pads, mode, value)), c=conv(3, 4, 3, **options))


@pytest.mark.parametrize(
    ("module", "count"),
    [
        pytest.param(padded((1, 1, 2, 2)), 1, id="equal on both sides"),
        pytest.param(padded((1, 1, 2, 2), padding=1, stride=2, groups=1), 1, id="on top of the convolution's own"),
        pytest.param(nn.Sequential(nn.ZeroPad2d(1), conv(3, 6, 3, dilation=2)), 1, id="dilated"),
        pytest.param(padded((0, 1, 0, 1)), 0, id="one side only"),
        pytest.param(padded((1, 1, 2, 1)), 0, id="sides differ"),
        pytest.param(padded((-1, -1, 0, 0)), 0, id="negative"),
        pytest.param(padded((1, 1, 1, 1), value=1.0), 0, id="ones"),
        pytest.param(padded((1, 1, 1, 1), value=None, mode="reflect"), 0, id="reflected"),
        pytest.param(padded((1, 1)), 0, id="width only"),
        pytest.param(
            Lambda(
                lambda m, x: m.a(p := F.pad(x, (1, 1, 1, 1))) + m.b(p), a=conv(3, 4, 3), b=conv(3, 4, 3, dilation=1)
            ),
            1,
            id="two convolutions read it",
        ),
        pytest.param(
            Lambda(lambda m, x: m.c(p := F.pad(x, (1, 1, 1, 1))).sum() + p.sum(), c=conv(3, 4, 3)),
            0,
            id="something else reads it too",
        ),
        pytest.param(nn.Sequential(nn.ZeroPad2d(1), nn.MaxPool2d(2), conv(3, 4, 3)), 0, id="a pool behind it"),
        pytest.param(nn.Sequential(nn.ZeroPad2d(1)), 0, id="it is the output"),
    ],
)
def test_fold_symmetric_padding(module, count):
    assert applied(module, (1, 3, 8, 8), "fold_symmetric_padding") == count


@settings(max_examples=25, deadline=None)
@given(
    pads=st.lists(st.integers(-1, 2), min_size=4, max_size=4),
    value=st.sampled_from([0.0, 0.5]),
    padding=st.integers(0, 2),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
)
def test_any_padding_is_folded_rightly_or_left(pads, value, padding, stride, dilation):
    module = padded(tuple(pads), value, padding=padding, stride=stride, dilation=dilation)
    left, right, top, bottom = pads
    folds = left == right >= 0 and top == bottom >= 0 and value == 0.0
    assert applied(module, (1, 3, 9, 9), "fold_symmetric_padding") == folds


@pytest.mark.parametrize(
    ("module", "shape", "name", "count"),
    [
        pytest.param(
            Lambda(lambda m, x: F.scaled_dot_product_attention(x, x * 2, x + 1)),
            (1, 2, 5, 4),
            "attention_to_products",
            1,
            id="attention",
        ),
        pytest.param(
            Lambda(lambda m, x: F.scaled_dot_product_attention(x, x, x, scale=0.3)),
            (2, 5, 4),
            "attention_to_products",
            1,
            id="attention with a scale, no heads",
        ),
        pytest.param(
            Lambda(lambda m, x: F.scaled_dot_product_attention(x, x, x, is_causal=True)),
            (1, 2, 5, 4),
            "attention_to_products",
            0,
            id="causal attention",
        ),
        pytest.param(
            Lambda(lambda m, x: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.ones(5, 5).tril())),
            (1, 2, 5, 4),
            "attention_to_products",
            0,
            id="attention with a mask",
        ),
        pytest.param(nn.LayerNorm(8), (1, 5, 8), "layer_norm_to_products", 1, id="layer norm"),
        pytest.param(
            nn.LayerNorm(8, elementwise_affine=False, eps=0.1),
            (5, 8),
            "layer_norm_to_products",
            1,
            id="plain, large eps",
        ),
        pytest.param(nn.LayerNorm((5, 8)), (1, 5, 8), "layer_norm_to_products", 0, id="layer norm of two dimensions"),
        pytest.param(Lambda(lambda m, x: x[:, 0] + x[:, -1]), (1, 5, 8), "views_to_slices", 2, id="selections"),
        pytest.param(
            Lambda(lambda m, x: sum(x.unbind(1)) + x.select(1, 2)), (2, 3, 4), "views_to_slices", 5, id="unbind"
        ),
        pytest.param(Lambda(lambda m, x: x.squeeze(1) * 2), (2, 1, 4), "views_to_slices", 1, id="squeeze"),
        pytest.param(Lambda(lambda m, x: x.expand(2, 3, 4) * 2), (2, 3, 4), "views_to_slices", 1, id="expands nothing"),
        pytest.param(Lambda(lambda m, x: x.expand(2, 3, 4) * 2), (1, 3, 4), "views_to_slices", 0, id="expands"),
    ],
)
def test_rewrites_for_transformers(module, shape, name, count):
    assert applied(module, shape, name) == count


def test_every_rewrite_can_be_switched_off_and_is_described():
    captured = capture(conv_model())
    for backend in (ExecuTorchBackend(), OnnxRuntimeBackend()):
        assert all(text and not text.endswith(".") for text in backend.rewrites.values())
        assert backend.rewrite(captured, frozenset()).rewrites == ()
        for name in backend.rewrites:
            assert {found.name for found in backend.rewrite(captured, frozenset({name})).rewrites} <= {name}


def test_counts_of_several_parts_add_up_and_the_graph_that_came_in_is_not_touched():
    captured = capture(captioner())
    before = [str(graph.torch.graph) for graph in captured.graphs]
    found = ExecuTorchBackend().rewrite(captured, frozenset(ExecuTorchBackend.rewrites))
    assert [(one.name, one.count) for one in found.rewrites] == [("mean_to_average_pool", 1)]
    assert [str(graph.torch.graph) for graph in captured.graphs] == before


def test_a_rewrite_that_moves_an_output_is_refused():
    """Numbers so large that single precision cannot hold the folded ones."""

    class Vast(nn.Module):
        def __init__(self):
            super().__init__()
            self.c, self.b = conv(1, 1, 1), nn.BatchNorm2d(1, eps=0.0)
            nn.init.constant_(self.c.weight, 1e30)
            nn.init.constant_(self.c.bias, 0.0)
            nn.init.constant_(self.b.running_var, 1e-30)

        def forward(self, x):
            return self.b(self.c(x) * 1e-30)

    class Worse(Vast):
        def forward(self, x):
            return self.b(self.c(x))

    assert ExecuTorchBackend().rewrite(capture(tiny(Vast().eval(), example(1, 1, 2, 2))), frozenset())
    with pytest.raises(ModelError) as caught:
        model = tiny(Worse().eval(), example(1, 1, 2, 2) * 1e-35)
        ExecuTorchBackend().rewrite(capture(model), frozenset({"fold_batch_norm"}))
    message = str(caught.value)
    assert message.startswith("the graph rewrite 'fold_batch_norm' moved an output of part 'forward' by ")
    assert message.endswith("compile with --no-rewrites and report the model.")
