"""Capture: names, types and shapes, what is counted, and what is refused with the line that is at fault."""

from __future__ import annotations

import subprocess
import sys

import pytest
from _models import Tiny, captioner, example, nn, tiny, torch

from edge_sdk.errors import ModelError
from edge_sdk.models.base import Part
from edge_sdk.pipeline.capture import capture


def refusal(model) -> str:
    with pytest.raises(ModelError) as caught:
        capture(model)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 1000
    return message


class Flow(nn.Module):
    def forward(self, x):
        y = torch.relu(x)
        if y.sum() > 0:
            return y
        return -y


class Size(nn.Module):
    def forward(self, x):
        if torch.nonzero(x).shape[0] > 3:
            return x + 1
        return x


class Numpy(nn.Module):
    def forward(self, x):
        return torch.from_numpy(x.numpy() + 1)


class Text(nn.Module):
    def forward(self, x):
        return x, "text"


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        return x + self.calls


class Halved(nn.Module):
    def forward(self, x):
        x[:, 0].mul_(0.5)
        return x


class Attention(nn.Module):
    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(x, x, x)


def test_names_types_and_shapes():
    encoder, step = capture(captioner()).graphs
    assert encoder.name == "encoder"
    assert [(spec.name, spec.dtype, spec.shape) for spec in encoder.inputs] == [("image", "float32", [1, 3, 16, 16])]
    assert [(spec.name, spec.dtype, spec.shape) for spec in encoder.outputs] == [("features", "float32", [1, 32])]
    assert [(spec.name, spec.dtype, spec.shape) for spec in step.inputs] == [
        ("token", "int64", [1]),
        ("state", "float32", [1, 32]),
    ]
    assert [spec.name for spec in step.outputs] == ["logits", "next_state"]


def test_sizes_that_vary_are_none_and_stay_open_in_the_graph():
    model = tiny(nn.Linear(3, 8), example(2, 3), dynamic={"x": {0: (1, 8)}})
    (graph,) = capture(model).graphs
    assert graph.inputs[0].shape == [None, 3] and graph.outputs[0].shape == [None, 8]
    assert graph.torch(example(5, 3)).shape == (5, 8)


def test_an_output_whose_size_the_data_decides_varies():
    class Where(nn.Module):
        def forward(self, x):
            return torch.nonzero(x)

    (graph,) = capture(tiny(Where(), example(2, 3))).graphs
    assert graph.outputs[0].shape == [None, 2] and graph.outputs[0].dtype == "int64"


@pytest.mark.parametrize(
    ("module", "shape", "macs"),
    [
        pytest.param(nn.Conv2d(3, 8, 3, padding=1), (1, 3, 10, 10), 10 * 10 * 8 * 3 * 9, id="conv"),
        pytest.param(nn.Conv2d(4, 8, 3, groups=4), (1, 4, 10, 10), 8 * 8 * 8 * 9, id="depthwise"),
        pytest.param(nn.Linear(16, 4), (2, 16), 2 * 16 * 4, id="linear"),
        pytest.param(Attention(), (1, 2, 5, 4), 2 * 2 * 5 * 5 * 4, id="attention"),
    ],
)
def test_multiply_accumulates_are_counted(module, shape, macs):
    assert capture(tiny(module, example(*shape))).macs == macs


def test_multiply_accumulates_of_an_lstm_are_counted():
    model = tiny(nn.LSTM(3, 8), example(5, 1, 3), outputs=("y", "h", "c"))
    assert capture(model).macs == 5 * 4 * 8 * (3 + 8)


@pytest.mark.parametrize(
    ("module", "operator", "line", "advice"),
    [
        (Flow(), "operator aten.item.default", "`if y.sum() > 0:`", "use torch.where or torch.cond"),
        (Size(), "operator aten.nonzero.default", "`if torch.nonzero(x).shape[0] > 3:`", "use torch.where"),
        (Numpy(), "test_capture.py:", "`return torch.from_numpy(x.numpy() + 1)`", "write this with PyTorch's own"),
        (nn.Linear(5, 5), "operator aten.mm.default", "In operator", "write this with PyTorch's own operators"),
    ],
)
def test_a_failing_export_names_operator_and_source_line(module, operator, line, advice):
    message = refusal(tiny(module, example(2, 3)))
    assert message.startswith("part 'forward' cannot be exported: ")
    assert operator in message and line in message and advice in message


def test_a_size_that_cannot_vary_is_told():
    class Fixed(nn.Module):
        def forward(self, x):
            return x.view(2, 3)

    message = refusal(tiny(Fixed(), example(2, 3), dynamic={"x": {0: (1, 8)}}))
    assert "The module cannot take every size that Part.dynamic names" in message


def test_a_failing_export_prints_nothing():
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from pipeline.test_capture import Flow, ModelError, capture, example, nn, tiny\n"
        "for module in (Flow(), nn.Linear(5, 5)):\n"
        "    try: capture(tiny(module, example(2, 3)))\n"
        "    except ModelError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "refused\nrefused\n", done.stderr
    assert "Traceback" not in done.stderr and "def forward" not in done.stderr


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            Part("forward", nn.Linear(3, 3), (example(1, 3),), ("a", "b")),
            "part 'forward' has 1 example inputs but names 2: ['a', 'b']. Give one name for each.",
        ),
        (
            Part("forward", nn.Linear(3, 3), (example(1, 3),), output_names=("a", "b")),
            "part 'forward' gives 1 outputs but names 2: ['a', 'b']. Give one name for each.",
        ),
        (
            Part("forward", nn.Linear(3, 3), (example(1, 3),), dynamic={"image": {0: (1, 2)}}),
            "part 'forward': dynamic names inputs that it does not have: ['image']",
        ),
        (Part("forward", nn.Linear(3, 3), (3,)), "part 'forward': example input 0 is a int; give a torch.Tensor."),
        (Part("forward", Text(), (example(1, 3),)), "only tensors can leave a compiled program"),
        (
            Part("forward", nn.Linear(3, 3).double(), (example(1, 3).double(),)),
            "tensor 'input' is of type float64; the runtimes take float32, float16, int64",
        ),
        (
            Part("forward", Counter(), (example(1, 3),)),
            "part 'forward' changes its buffer 'calls' in place (aten.add_.Tensor); a compiled program keeps no state "
            "between two calls. Take the state as an input and return the new one.",
        ),
        (
            Part("forward", Halved(), (example(1, 3),)),
            "part 'forward' changes its input 'x' in place (aten.mul_.Tensor); a compiled program keeps no state "
            "between two calls. Change a copy: x = x.clone().",
        ),
    ],
)
def test_a_part_that_no_program_can_be_made_of_is_refused(part, message):
    assert message in refusal(Tiny(part))


def test_a_model_without_parts_and_one_with_two_of_a_name():
    assert "model 'tiny' has no parts" in refusal(Tiny())
    part = Part("forward", nn.Linear(3, 3), (example(1, 3),))
    assert "model 'tiny' has two parts of one name: ['forward', 'forward']" in refusal(Tiny(part, part))


def test_in_place_operators_on_results_are_no_state():
    model = tiny(nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True)), example(1, 3))
    assert capture(model).graphs


def test_outputs_of_a_dict_keep_their_order():
    class Named(nn.Module):
        def forward(self, x):
            return {"b": x + 1, "a": x * 0}

    (graph,) = capture(tiny(Named(), example(2, 3), outputs=("b", "a"))).graphs
    found = dict(zip([spec.name for spec in graph.outputs], graph.torch(example(2, 3)).values(), strict=True))
    assert torch.equal(found["b"], example(2, 3) + 1) and not found["a"].any()
