"""Learned steps: the paper's gradients and first values, training, checkpoints, and conversion into INT8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from _models import Tiny, nn, run, tiny, torch

import edge_sdk
from edge_sdk.errors import ModelError, UnsupportedError
from edge_sdk.models.base import Part
from edge_sdk.quantization.lsq import LsqNetwork, Recipe, fake_quantize, load

RANGES = [(-8, 7), (0, 15), (-127, 127), (0, 255), (-2, 1)]


class Residual(nn.Module):
    """What photo tagging is made of, small, with everything that its layers give as outputs."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 16, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, classes)

    def layers(self, x):
        stem = torch.relu(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(stem))
        joined = torch.relu(stem + branch)
        wide = torch.relu(self.conv3(joined))
        return stem, branch, joined, wide, self.fc(torch.flatten(self.pool(wide), 1))

    def forward(self, x):
        return self.layers(x)[-1]


class EveryLayer(Residual):
    def forward(self, x):
        return self.layers(x)


def trained(kind: type[Residual] = Residual, seed: int = 0) -> Residual:
    """A network whose batch norms have seen something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = kind()
        for _ in range(10):
            network(torch.randn(8, 3, 16, 16))
    return network.eval()


def images(count: int = 8, seed: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def lsq(kind: type[Residual] = Residual, recipe: Recipe | None = None) -> LsqNetwork:
    network = LsqNetwork(trained(kind), images(1), recipe or Recipe())
    network.initialise(images())
    return network


def by_hand(v: np.ndarray, s: float, low: int, high: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Equations 1 to 3 of the paper: the quantized value, its derivative by v and by s."""
    x = v / s
    inside = (x > low) & (x < high)
    to_step = np.where(inside, np.round(x) - x, np.where(x <= low, low, high))
    return np.round(np.clip(x, low, high)) * s, inside.astype(float), to_step


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_values_and_gradients_are_those_of_the_paper(low: int, high: int) -> None:
    random = np.random.default_rng(high)
    v = random.normal(0, 1, (4, 5, 6)).astype(np.float32)
    above = random.normal(0, 1, v.shape).astype(np.float32)
    s, scale = 1.7 / high, 0.3
    value, to_v, to_s = by_hand(v.astype(float), s, low, high)
    values = torch.from_numpy(v).requires_grad_()
    step = torch.tensor([s], requires_grad=True)
    result = fake_quantize(values, step, low, high, scale)
    result.backward(torch.from_numpy(above))
    assert result.detach().numpy() == pytest.approx(value, abs=1e-5)
    assert values.grad.numpy() == pytest.approx(to_v * above, abs=1e-5)
    assert step.grad.item() == pytest.approx(float((to_s * above).sum()) * scale, rel=1e-3, abs=1e-3)


def test_a_step_for_each_channel_has_the_gradient_of_its_channel() -> None:
    random = np.random.default_rng(5)
    v = random.normal(0, 1, (3, 4, 3, 3)).astype(np.float32)
    steps = np.array([0.02, 0.1, 0.3], np.float32)
    values, step = torch.from_numpy(v).requires_grad_(), torch.from_numpy(steps).requires_grad_()
    fake_quantize(values, step, -8, 7).square().sum().backward()
    for channel, s in enumerate(steps):
        value, to_v, to_s = by_hand(v[channel].astype(float), float(s), -8, 7)
        assert values.grad[channel].numpy() == pytest.approx(2 * value * to_v, abs=1e-4)
        assert step.grad[channel].item() == pytest.approx(float((2 * value * to_s).sum()), rel=1e-3)


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_gradients_agree_with_numerical_differentiation_of_the_surrogate(low: int, high: int) -> None:
    """The surrogate keeps each value's rounding error as it is, which is what passing rounding by means."""
    random = np.random.default_rng(high)
    v, s, delta = random.normal(0, 1, 200), 1.3 / high, 1e-6
    clipped = np.clip(v / s, low, high)
    error = np.round(clipped) - clipped

    def surrogate(values: np.ndarray, step: float) -> np.ndarray:
        return (np.clip(values / step, low, high) + error) * step

    to_v = (surrogate(v + delta, s) - surrogate(v - delta, s)) / (2 * delta)
    to_s = (surrogate(v, s + delta * s) - surrogate(v, s - delta * s)) / (2 * delta * s)
    values = torch.tensor(v, dtype=torch.float32, requires_grad=True)
    for index in range(0, 200, 40):
        step = torch.tensor([s], dtype=torch.float32, requires_grad=True)
        values.grad = None
        fake_quantize(values[index : index + 40], step, low, high).sum().backward()
        assert values.grad[index : index + 40].numpy() == pytest.approx(to_v[index : index + 40], abs=1e-3)
        assert step.grad.item() == pytest.approx(to_s[index : index + 40].sum(), rel=1e-3, abs=2e-3)


def test_first_step_and_gradient_scale_are_those_of_the_paper() -> None:
    network = LsqNetwork(trained(), images(1), Recipe(weight_bits=4, activation_bits=4, start="paper"))
    network.initialise(images())
    prepared = network.prepared
    weight = prepared.weights["conv2"].detach()
    step = prepared.weight_steps["conv2"]
    assert step.step.detach().numpy() == pytest.approx(2 * weight.abs().mean((1, 2, 3)).numpy() / 7**0.5, rel=1e-5)
    # The gradient that arrives is the paper's g = 1 / sqrt(N * Q_P) times that of the bare quantizer.
    bare = step.step.detach().clone().requires_grad_()
    fake_quantize(weight, bare, -8, 7).sum().backward()
    step(weight).sum().backward()
    assert step.step.grad.numpy() == pytest.approx(bare.grad.numpy() * (8 * 9 * 7) ** -0.5, rel=1e-4, abs=1e-5)
    stem = torch.relu(trained().layers(images())[0]).detach()
    activation = prepared.activation_steps["relu"]
    assert activation.range == (0, 15)
    assert activation.step.item() == pytest.approx(2 * stem.mean().item() / 15**0.5, rel=1e-3)
    # N of an activation counts the features of one image, not those of the batch.
    bare = activation.step.detach().clone().requires_grad_()
    fake_quantize(stem, bare, 0, 15).sum().backward()
    activation(stem).sum().backward()
    features = stem[0].numel()
    assert activation.step.grad.item() == pytest.approx(bare.grad.item() * (features * 15) ** -0.5, rel=1e-3)


def test_bits_and_the_first_and_the_last_layer() -> None:
    four = lsq(recipe=Recipe(4, 4)).prepared
    assert {name: step.bits for name, step in four.weight_steps.items()} == {
        "conv1": 8,
        "conv2": 4,
        "conv3": 4,
        "fc": 8,
    }
    assert four.activation_steps["relu"].bits == 4  # goes into conv2
    assert four.activation_steps["x"].bits == 8
    assert {step.bits for step in lsq(recipe=Recipe(4, 4, edges="same")).prepared.weight_steps.values()} == {4}
    assert set(lsq(recipe=Recipe(edges="fp32")).prepared.weight_steps) == {"conv2", "conv3"}
    whole = lsq(recipe=Recipe(per_channel=False)).prepared
    assert {tuple(step.step.shape) for step in whole.weight_steps.values()} == {(1,)}


def test_training_at_few_bits_learns_weights_and_steps() -> None:
    network = lsq(recipe=Recipe(3, 3))
    wanted = trained()(images(32, seed=9)).detach()
    steps = list(network.steps())
    before = [step.detach().clone() for step in steps]
    rest = [p for p in network.parameters() if not any(p is step for step in steps)]
    optimiser = torch.optim.SGD([{"params": rest}, {"params": steps}], lr=0.02, momentum=0.9)
    losses = []
    for _ in range(60):
        loss = (network(images(32, seed=9)) - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert all(not torch.equal(a, b.detach()) for a, b in zip(before, steps, strict=True))


def test_a_checkpoint_brings_everything_back(tmp_path: Path) -> None:
    network = lsq(recipe=Recipe(4, 8, per_channel=False))
    network.save(tmp_path / "best.lsq.pt", variant="tiny", epoch=3)
    found = load(tmp_path / "best.lsq.pt")
    assert (found.recipe, dict(found.facts)) == (network.recipe, {"variant": "tiny", "epoch": 3})
    again = LsqNetwork.restore(trained(seed=7), images(1), found)
    with torch.no_grad():
        assert torch.equal(again(images(5)), network(images(5)))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    lsq().save(tmp_path / "best.lsq.pt", variant="tiny")
    found = load(tmp_path / "best.lsq.pt")
    with pytest.raises(ModelError, match=r"does not fit the model: fc is \[5, 16\] instead of \[9, 16\].*variant tiny"):
        LsqNetwork.restore(Residual(9), images(1), found)
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with pytest.raises(
        ModelError, match=r"1 weights missing \(0\); 4 weights unexpected \(conv1, conv2, conv3, ...\)?"
    ):
        LsqNetwork.restore(other, images(1), found)


def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "fp32.pt")
    with pytest.raises(ModelError, match=r"fp32.pt is no LSQ checkpoint of this version. Train one: edge-sdk train"):
        load(tmp_path / "fp32.pt")
    network = lsq()
    network.save(tmp_path / "best.lsq.pt")
    content = torch.load(tmp_path / "best.lsq.pt", weights_only=True)
    content["recipe"]["weight_bits"] = 1
    torch.save(content, tmp_path / "worse.lsq.pt")
    with pytest.raises(ModelError, match=r"is damaged: UnsupportedError: LSQ: weight_bits is 1; expected"):
        load(tmp_path / "worse.lsq.pt")
    with pytest.raises(ModelError, match="saved after its steps have values"):
        LsqNetwork(trained(), images(1), Recipe()).save(tmp_path / "early.lsq.pt")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weight_bits": 9}, "LSQ: weight_bits is 9; expected a whole number from 2 to 8."),
        ({"activation_bits": 1}, "LSQ: activation_bits is 1; expected a whole number from 2 to 8."),
        ({"edges": "8bits"}, "LSQ: unknown edges '8bits'. Did you mean '8bit'"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(wrong, message) -> None:
    with pytest.raises(UnsupportedError, match=message):
        Recipe(**wrong)


@pytest.mark.parametrize("runtime", ["executorch", "onnxruntime"])
@pytest.mark.parametrize("recipe", [Recipe(), Recipe(4, 8), Recipe(per_channel=False)])
def test_the_program_equals_the_fake_quantized_network_at_every_layer(runtime: str, recipe, tmp_path: Path) -> None:
    network = lsq(EveryLayer, recipe).to(memory_format=torch.channels_last)  # as it is trained
    network.save(tmp_path / "q.pt")
    names = ("stem", "branch", "joined", "wide", "logits")
    model = Tiny(Part("forward", trained(EveryLayer), (images(1),), output_names=names))
    bundle = edge_sdk.compile(
        model,
        "desktop-cpu",
        runtime=runtime,
        quantize="int8-lsq",
        settings={"quantize.checkpoint": str(tmp_path / "q.pt")},
    )
    assert bundle.manifest.partition.fallback == []
    assert bundle.manifest.partition.pieces == 1
    steps = [float(step.positive_step().detach()) for step in _output_steps(network)]
    samples = [{"forward": {"input": images(1, seed=20 + place).numpy()}} for place in range(8)]
    with torch.no_grad():
        wanted = network(torch.cat([torch.from_numpy(sample["forward"]["input"]) for sample in samples]))
    found = run(bundle, samples)
    for name, step, values in zip(names, steps, wanted, strict=True):
        apart = np.abs(np.concatenate([one["forward"][name] for one in found]) - values.numpy())
        assert apart.max() <= 1.001 * step, name
        assert np.mean(apart < 0.01 * step) > 0.9, name  # nearly all are the very same integer


def _output_steps(network: LsqNetwork):
    """The quantizers of what the graph gives, in order."""
    graph = network.graph
    for node in next(n for n in graph.graph.nodes if n.op == "output").all_input_nodes:
        yield graph.get_submodule(str(node.target))


def test_what_int8_lsq_cannot_do_is_refused_before_work(tmp_path: Path) -> None:
    model = tiny(trained(), images(1))

    def compile_with(**settings: str):
        return edge_sdk.compile(
            model,
            "desktop-cpu",
            runtime="onnxruntime",
            quantize="int8-lsq",
            settings={f"quantize.{name}": value for name, value in settings.items()},
        )

    with pytest.raises(UnsupportedError, match=r"needs the checkpoint of an LSQ training: --set quantize.checkpoint="):
        compile_with()
    with pytest.raises(ModelError, match=r"quantizer 'int8-lsq': there is no checkpoint at .*nothing.pt"):
        compile_with(checkpoint=str(tmp_path / "nothing.pt"))
    lsq(recipe=Recipe(4, 4)).save(tmp_path / "four.pt")
    with pytest.raises(UnsupportedError, match=r"has activations of 4 bits, and no runtime here computes"):
        compile_with(checkpoint=str(tmp_path / "four.pt"))
