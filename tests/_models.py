"""Networks small enough to compile in a test, as models, and bundles of them run in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from edge_sdk.bundle import Bundle
from edge_sdk.models.base import Model, Part, Purpose, Sample

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'edge-sdk[executorch]'")
nn = torch.nn
torch.set_num_threads(1)  # more than one would only wait for each other on networks this small

_SEEDS = {"calibration": 1, "reference": 2, "evaluation": 3}


class Tiny(Model):
    """A model of given parts whose samples are random, and the same each time.

    Args:
        parts: The parts.
        name: The model's name.
        counts: Purpose to number of samples; none of a purpose that is not named.
        score: What `Model.score` gives, from outputs and FP32 outputs.
    """

    def __init__(
        self,
        *parts: Part,
        name: str = "tiny",
        counts: Mapping[str, int] | None = None,
        score: Callable[[Sequence[Sample], Sequence[Sample]], dict[str, float]] | None = None,
    ) -> None:
        self.name = name
        self._parts = list(parts)
        self._counts = {"calibration": 16, "reference": 4} if counts is None else counts
        self._score = score

    def parts(self) -> list[Part]:
        return self._parts

    def samples(self, purpose: Purpose) -> list[Sample]:
        random = np.random.default_rng(_SEEDS[purpose])
        return [
            {part.name: {name: _like(value, random) for name, value in named(part)} for part in self._parts}
            for _ in range(self._counts.get(purpose, 0))
        ]

    def score(self, outputs: Sequence[Sample], fp32: Sequence[Sample]) -> dict[str, float] | None:
        return None if self._score is None else self._score(outputs, fp32)


def named(part: Part) -> list[tuple[str, Any]]:
    """Input names with their example tensors."""
    return list(zip(part.input_names, part.example_inputs, strict=True))


def _like(value: torch.Tensor, random: np.random.Generator) -> np.ndarray:
    if value.is_floating_point():
        return random.standard_normal(tuple(value.shape)).astype(np.float32)
    return random.integers(0, 4, tuple(value.shape)).astype(str(value.dtype).removeprefix("torch."))


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """A network whose random weights are the same each time, with batch normalisation that does something."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build().eval()
        for layer in module.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                values = (layer.running_mean, layer.bias, layer.running_var, layer.weight)
                for value, low in zip(values, (-0.1, -0.1, 0.5, 0.5), strict=True):
                    if value is not None:
                        nn.init.uniform_(value, low, abs(low) + (1.0 if low > 0 else 0.0))
    return module


def example(*shape: int) -> torch.Tensor:
    """Normal values, the same each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(4))


def tiny(module: nn.Module, *inputs: torch.Tensor, outputs: Sequence[str] = ("y",), **options: Any) -> Tiny:
    """A model of one part. ``dynamic`` goes to the part, other options to `Tiny`."""
    names = ("x",) if len(inputs) == 1 else tuple(f"x{index}" for index in range(len(inputs)))
    dynamic = options.pop("dynamic", {})
    return Tiny(Part("forward", module, inputs, names, tuple(outputs), dynamic), **options)


class Pooled(nn.Module):
    """The mean over height and width, as most networks write it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def conv_net() -> nn.Module:
    """What convolutional classifiers are made of: ``[1, 3, 16, 16]`` to ``[1, 10]``."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU6(),
        nn.ZeroPad2d(1),
        nn.Conv2d(16, 16, 3, groups=16, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 1),
        Pooled(),
        nn.Dropout(0.2),
        nn.Linear(32, 10),
    )


IMAGE = (1, 3, 16, 16)


def conv_model(**options: Any) -> Tiny:
    """`conv_net` as a model."""
    return tiny(seeded(conv_net), example(*IMAGE), name="convnet", **options)


def mlp_model(**options: Any) -> Tiny:
    """Two linear layers, ``[1, 64]`` to ``[1, 16]``, as a model."""
    module = seeded(lambda: nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 16)))
    return tiny(module, example(1, 64), name="mlp", **options)


class Step(nn.Module):
    """One step of a decoder: a token and a state to logits and the next state."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(32, 16)
        self.mix = nn.Linear(16 + 32, 32)
        self.logits = nn.Linear(32, 32)

    def forward(self, token: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        state = torch.tanh(self.mix(torch.cat([self.embed(token), state], 1)))
        return self.logits(state), state


def captioner() -> Tiny:
    """A model of two parts: an encoder of an image, and a step of a decoder."""
    encoder = seeded(lambda: nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), Pooled(), nn.Linear(16, 32)))
    return Tiny(
        Part("encoder", encoder, (example(*IMAGE),), ("image",), ("features",)),
        Part(
            "step",
            seeded(Step),
            (torch.tensor([3]), example(1, 32)),
            ("token", "state"),
            ("logits", "next_state"),
        ),
        name="captioner",
    )


def run(bundle: Bundle, samples: Sequence[Sample]) -> list[Sample]:
    """The outputs of a bundle's programs, run by their runtime in this process."""
    start = {"executorch": _methods, "onnxruntime": _sessions}[bundle.manifest.runtime.name]
    programs = start(bundle)
    return [
        {
            part.name: dict(
                zip(
                    [spec.name for spec in part.outputs],
                    programs[part.name]({spec.name: sample[part.name][spec.name] for spec in part.inputs}),
                    strict=True,
                )
            )
            for part in bundle.manifest.parts
        }
        for sample in samples
    ]


Program = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]


def _methods(bundle: Bundle) -> dict[str, Program]:
    from executorch.runtime import Runtime

    def load(part) -> Program:
        program = Runtime.get().load_program(bundle.path / part.program)
        method = program.load_method(part.entry)

        def call(inputs: Mapping[str, np.ndarray], kept=program) -> list[np.ndarray]:
            del kept  # the method lives as long as its program
            results = method.execute([torch.from_numpy(array) for array in inputs.values()])
            return [np.array(result.numpy()) for result in results]

        return call

    return {part.name: load(part) for part in bundle.manifest.parts}


def _sessions(bundle: Bundle) -> dict[str, Program]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3

    def load(part) -> Program:
        session = onnxruntime.InferenceSession(
            str(bundle.path / part.program), options, providers=["CPUExecutionProvider"]
        )
        return lambda inputs: session.run(None, dict(inputs))

    return {part.name: load(part) for part in bundle.manifest.parts}


def exact(model: Model, samples: Sequence[Sample]) -> list[Sample]:
    """The outputs of a model's modules in FP32."""
    outputs = []
    for sample in samples:
        found = {}
        for part in model.parts():
            with torch.no_grad():
                result = part.module(*(torch.from_numpy(sample[part.name][name]) for name in part.input_names))
            tensors = result if isinstance(result, tuple) else (result,)
            found[part.name] = {n: t.numpy() for n, t in zip(part.output_names, tensors, strict=True)}
        outputs.append(found)
    return outputs


def flat(samples: Sequence[Sample]) -> np.ndarray:
    """All values of some outputs, one after the other."""
    return np.concatenate([a.ravel() for sample in samples for part in sample.values() for a in part.values()])


def cosine(one: Sequence[Sample], other: Sequence[Sample]) -> float:
    """The cosine between two runs' outputs."""
    a, b = flat(one).astype(np.float64), flat(other).astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
