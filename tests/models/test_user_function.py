"""``file.py:function``: what it may give, how it is loaded, and what is said where it fails."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.models import load_model
from edge_sdk.pipeline.capture import capture

torch = pytest.importorskip("torch")

HEAD = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, left, right=None):
        return self.drop(self.layer(left if right is None else left + right))
"""


@pytest.fixture
def write(tmp_path: Path):
    """Writes ``net.py`` with the class ``Net`` and what a test adds."""

    def add(code: str, head: str = HEAD) -> Path:
        path = tmp_path / "net.py"
        path.write_text(head + textwrap.dedent(code))
        return path

    return add


BUILDERS = {
    "a module with a tensor": "net = Net(); net.example_inputs = torch.ones(1, 4); return net",
    "a module with a tuple": "net = Net(); net.example_inputs = (torch.ones(1, 4),); return net",
    "a pair with a tensor": "return Net(), torch.ones(1, 4)",
    "a pair with a list": "return Net(), [torch.ones(1, 4)]",
    "a pair with a dict": "return Net(), {'left': torch.ones(1, 4)}",
}


@pytest.mark.parametrize("body", BUILDERS.values(), ids=BUILDERS)
def test_every_form_gives_one_part(write, body: str):
    model = load_model(f"{write(f'def build(): {body}')}:build", {})
    (part,) = model.parts()
    assert model.name == "build"
    assert (part.name, part.input_names, part.output_names) == ("forward", ("left",), ("output",))
    assert not part.module.training
    assert torch.equal(part.example_inputs[0], torch.ones(1, 4))
    (sample,) = model.samples("reference")
    assert np.array_equal(sample["forward"]["left"], np.ones((1, 4), dtype=np.float32))
    assert model.samples("calibration") == model.samples("evaluation") == []
    assert model.fingerprint() is None
    assert capture(model).graphs[0].inputs[0].shape == [1, 4]


def test_a_dict_follows_the_order_of_forward(write):
    path = write("def build(): return Net(), {'right': torch.zeros(1, 4), 'left': torch.ones(1, 4)}")
    (part,) = load_model(f"{path}:build", {}).parts()
    assert part.input_names == ("left", "right")
    assert torch.equal(part.example_inputs[0], torch.ones(1, 4))


def test_outputs_are_named(write):
    path = write(
        """
        class Two(torch.nn.Module):
            def forward(self, *xs): return {"sum": xs[0] + xs[1], "first": xs[0]}

        class Nested(torch.nn.Module):
            def forward(self, x): return x, [x + 1]

        def two(): return Two(), (torch.ones(2), torch.ones(2))
        def nested(): return Nested(), torch.ones(2)
        """
    )
    (part,) = load_model(f"{path}:two", {}).parts()
    assert (part.input_names, part.output_names) == (("xs_0", "xs_1"), ("sum", "first"))
    (part,) = load_model(f"{path}:nested", {}).parts()
    assert part.output_names == ("output_0", "output_1")


def test_a_function_may_give_a_whole_plugin(write):
    path = write(
        """
        from edge_sdk import Model, Part

        class Mine(Model):
            name = "mine"
            def parts(self): return [Part("forward", Net().eval(), (torch.ones(1, 4),))]

        def build(): return Mine()
        """
    )
    assert load_model(f"{path}:build", {}).name == "mine"


def test_neighbours_can_be_imported_and_the_path_is_left_alone(write, tmp_path: Path):
    (tmp_path / "neighbour_of_net.py").write_text("WIDTH = 4\n")
    path = write(
        """
        def build():
            from neighbour_of_net import WIDTH
            return Net(), torch.ones(1, WIDTH)
        """
    )
    before = list(sys.path)
    load_model(f"{path}:build", {})
    assert sys.path == before


def test_settings_go_to_the_function_and_name_to_the_model(write):
    path = write("def build(width, depth='1'): return Net(), torch.ones(int(depth), int(width))")
    model = load_model(f"{path}:build", {"width": "4", "name": "wide-4"})
    assert model.name == "wide-4"
    assert model.parts()[0].example_inputs[0].shape == (1, 4)


def test_names_are_made_fit_for_files(write):
    path = write("def Build_Net(): return Net(), torch.ones(1, 4)")
    assert load_model(f"{path}:Build_Net", {}).name == "build_net"


GOOD = "def build(): return Net(), torch.ones(1, 4)\n"

FAULTS = {
    "another name": ("build_net", GOOD, "unknown function 'build_net'. Did you mean 'build'? Known: Net, build."),
    "a failure": (
        "build",
        "def build():\n    helper()\ndef helper():\n    raise KeyError('width')\n",
        "function 'build' of {path} failed: KeyError: 'width' (net.py:15).",
    ),
    "an exit": ("build", "def build():\n    raise SystemExit(3)\n", "failed: SystemExit: 3 (net.py:13)."),
    "nothing": ("build", "def build(): pass\n", "gives nothing (None). Expected a torch.nn.Module with an attribute"),
    "a wrong type": ("build", "def build(): return [1]\n", "gives a list of int. Expected"),
    "three things": ("build", "def build(): return Net(), 1, 2\n", "gives a tuple of Net, int, int. Expected"),
    "no inputs": ("build", "def build(): return Net()\n", "gives a Net without example inputs. Expected"),
    "inputs of a wrong type": ("build", "def build(): return Net(), 3\n", "example_inputs is a int; expected a tensor"),
    "inputs that are no tensors": ("build", "def build(): return Net(), (3,)\n", "example input 0 is a int"),
    "too many inputs": (
        "build",
        "def build(): return Net(), (torch.ones(1),) * 3\n",
        "example_inputs do not fit Net.forward(left, right): too many positional arguments.",
    ),
    "an unknown input": (
        "build",
        "def build(): return Net(), {'lft': torch.ones(1)}\n",
        "example_inputs do not fit Net.forward(left, right): missing a required argument: 'left'.",
    ),
    "inputs of a wrong shape": (
        "build",
        "def build(): return Net(), torch.ones(1, 5)\n",
        "the module fails on its example inputs: RuntimeError: mat1 and mat2 shapes cannot be multiplied",
    ),
    "an output that is no tensor": (
        "build",
        "class Odd(torch.nn.Module):\n    def forward(self, x): return x, 1\n"
        "def build(): return Odd(), torch.ones(1)\n",
        "the module returns a int; only tensors can leave a compiled program.",
    ),
    "a keyword-only input": (
        "build",
        "class Odd(torch.nn.Module):\n    def forward(self, *, x): return x\n"
        "def build(): return Odd(), {'x': torch.ones(1)}\n",
        "forward can take x by keyword only",
    ),
    "a missing setting": ("build", "def build(width): pass\n", "needs width: give --set width=VALUE."),
    "no function": ("", GOOD, "say which of its functions builds the model. Try {path}:build. It has: build, Net."),
    "a broken file": ("build", "def build(:\n", "cannot be imported: SyntaxError: invalid syntax (net.py:12)."),
    "a failing import": (
        "build",
        "import no_such_module\n",
        "{path} cannot be imported: ModuleNotFoundError: No module named 'no_such_module' (net.py:12).",
    ),
}


@pytest.mark.parametrize(("function", "code", "message"), FAULTS.values(), ids=FAULTS)
def test_faults_are_told_with_their_place(write, refusal, function: str, code: str, message: str):
    path = write(code)
    found = refusal(f"{path}:{function}" if function else path)
    assert message.format(path=path) in found
    assert "\n" not in found


def test_a_broken_file_is_told_before_a_function_is_chosen(write, refusal):
    assert "SyntaxError" in refusal(write("def build(:\n"))


def test_wrong_settings_are_refused(write, refusal):
    path = write("def build(width='4'): return Net(), torch.ones(1, 4)\n")
    assert "unknown setting 'widht'. Did you mean 'width'? Known: name, width." in refusal(f"{path}:build", widht="4")
    assert "name is 'A B'; expected 1 to 64 of a-z" in refusal(f"{path}:build", name="A B")


def test_a_failed_file_leaves_nothing_behind(write, refusal):
    path = write("raise ValueError('no')\n")
    before = list(sys.path)
    assert "ValueError: no (net.py:12)" in refusal(f"{path}:build")
    assert sys.path == before
    assert "edge_sdk_user_net" not in sys.modules
