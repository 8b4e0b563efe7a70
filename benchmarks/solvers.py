"""Solvers of soft convex quantization: time and accuracy of ours beside other differentiable solvers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks._context import Context
from benchmarks._rows import Limit, Row
from benchmarks._turns import in_turns, median_s

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from edge_sdk.models.scq.solvers import Solution

TITLE = "Solvers of SCQ"
PENALTY = 1e-3
WIDTH, QUICK_WIDTH = 64, 4
CODES, QUICK_CODES = (64, 256, 1024), (16,)
LATENTS, QUICK_LATENTS = (64, 1024, 8192), (8, 16)
ROUNDS, QUICK_ROUNDS = 5, 2
FAST = ("exact", "relaxed", "unrolled")
ITERATIONS = 100
"""Of the unrolled solver."""
SLOW = {"cvxpylayers": 64 * 256, "proxsuite": 64 * 256}
"""Latents times codes up to which a solver that takes them one at a time is asked."""
GRAPH = 1 << 20
"""Latents times codes up to which the unrolled solver is differentiated: it keeps all iterations."""

FASTER = Limit(at_least=100.0)
OBJECTIVE, GRADIENT = Limit(at_most=1e-6), Limit(at_most=1e-4)
LARGE_S, INSIDE_S = Limit(at_most=2.0), Limit(at_most=0.3)
LINEAR = Limit(at_most=1.3)


def run(context: Context) -> Iterator[Row]:
    """The limits first: against cvxpylayers, and over the batch. Then every solver at every size."""
    yield from beside_cvxpylayers(context)
    yield from batches(context)
    for codes in QUICK_CODES if context.quick else CODES:
        for latents in QUICK_LATENTS if context.quick else LATENTS:
            yield from one_size(context, latents, codes)


def beside_cvxpylayers(context: Context) -> Iterator[Row]:
    """Exact and cvxpylayers in turns on one problem in float64."""
    import torch

    from edge_sdk.profiling.interleave import compare_rounds

    latents, codes, width = (8, 16, QUICK_WIDTH) if context.quick else (64, 256, WIDTH)
    z, codebook, upstream = _problem(latents, codes, width, torch.float64)
    names = ("exact", "cvxpylayers")
    found = {name: _timed(name, z, codebook, upstream) for name in names}  # the first time compiles the problem
    rounds = QUICK_ROUNDS if context.quick else ROUNDS
    sides = {name: partial(_times, name, z, codebook, upstream) for name in names}
    times = in_turns(sides, rounds, lambda line: context.say(f"solvers: {line}"))
    size = f"K={codes}, n={latents}, d={width}, float64, {torch.get_num_threads()} threads"
    for place, name in enumerate(("forward", "backward")):
        compared = compare_rounds([[[one[place] * 1e3] for one in times[side]] for side in names])
        ours_ms, theirs_ms = compared.medians_ms
        how = f"{size}, {rounds} rounds in turns; {theirs_ms:.0f} ms and {ours_ms:.1f} ms"
        ratio = compared.ratios[1]
        yield Row(f"cvxpylayers / exact, {name}", ratio.value, "ratio", how, ratio.ci95, FASTER)
    ours, theirs = (_objective(z, codebook, found[name].weights) for name in names)
    yield Row("exact's objective over cvxpylayers'", float((ours / theirs - 1).max()), "ratio", size, limit=OBJECTIVE)
    apart = _apart(found["exact"].gradients, found["cvxpylayers"].gradients)
    yield Row("exact's gradient from cvxpylayers'", apart, "ratio", f"{size}; norm of the difference", limit=GRADIENT)


def batches(context: Context) -> Iterator[Row]:
    """Large batches, their growth, and latents inside the hull of the codes, where most codes are active."""
    import torch

    codes, width = (16, QUICK_WIDTH) if context.quick else (256, WIDTH)
    small, large = (8, 64) if context.quick else (1024, 8192)
    rounds = QUICK_ROUNDS if context.quick else ROUNDS

    def side(latents: int, inside: bool) -> Callable[[], tuple[float, float]]:
        return partial(_times, "exact", *_problem(latents, codes, width, torch.float32, inside))

    sides = {"small": side(small, False), "large": side(large, False), "inside": side(small, True)}
    for one in sides.values():
        one()
    times = in_turns(sides, rounds, lambda line: context.say(f"solvers, batches: {line}"))
    for place, name in enumerate(("forward", "backward")):
        found = {key: median_s([one[place] for one in value]) for key, value in times.items()}
        how = f"K={codes}, d={width}, float32, {torch.get_num_threads()} threads, {rounds} rounds in turns"
        first = place == 0
        value, ci95 = found["large"]
        yield Row(f"exact, {name}, n={large}", value, "s", how, ci95, LARGE_S if first else None)
        growth = value / found["small"][0] * small / large
        told = f"{how}; {value:.3f} s and {found['small'][0]:.3f} s"
        yield Row(f"exact, {name}, time a latent, n={large} / n={small}", growth, "ratio", told, limit=LINEAR)
        value, ci95 = found["inside"]
        yield Row(f"exact, {name}, n={small} inside the hull", value, "s", how, ci95, INSIDE_S if first else None)


def one_size(context: Context, latents: int, codes: int) -> Iterator[Row]:
    """Every solver on the same latents: how long it takes, and how far it is from the best."""
    import torch

    width = QUICK_WIDTH if context.quick else WIDTH
    z, codebook, upstream = _problem(latents, codes, width, torch.float32)
    truth = _timed("exact", z.double(), codebook.double(), upstream.double())
    asked = [*FAST, *(name for name, most in SLOW.items() if latents * codes <= most)]
    label = f"K={codes}, n={latents}"
    if left_out := [name for name in SLOW if name not in asked]:
        context.say(f"{label}: left out, as they solve one latent at a time: {', '.join(left_out)}")
    context.say(f"{label}: {', '.join(asked)}")
    rounds = 1 if context.quick else 3
    found = {name: [_timed(name, z, codebook, upstream) for _ in range(rounds + 1)][1:] for name in asked}
    costs = {name: _objective(z, codebook, runs[0].weights) for name, runs in found.items()}
    best = torch.stack(list(costs.values())).amin(0)
    for name, runs in found.items():
        above = float((costs[name] / best - 1).max())
        how = f"float32; objective up to {above:.1e} above the best"
        value, ci95 = median_s([one.forward_s for one in runs])
        yield Row(f"{label}: {name}, forward", value, "s", how, ci95)
        if runs[0].gradients is None:
            context.say(f"{label}: the gradient of {name} is left out: its graph holds every iteration")
            continue
        how = f"float32; gradient {_apart(runs[0].gradients, truth.gradients):.1e} from the exact one"
        value, ci95 = median_s([one.backward_s for one in runs])
        yield Row(f"{label}: {name}, backward", value, "s", how, ci95)


@dataclass(frozen=True)
class _Timed:
    """One solution.

    Attributes:
        weights: The weights found.
        forward_s: How long that took.
        gradients: With respect to latents and codebook, None where they are not asked for.
        backward_s: How long the gradients took.
    """

    weights: Tensor
    forward_s: float
    gradients: tuple[Tensor, ...] | None = None
    backward_s: float = 0.0


def _timed(name: str, z: Tensor, codebook: Tensor, upstream: Tensor) -> _Timed:
    import torch

    differentiates = name != "unrolled" or upstream.numel() <= GRAPH
    z, codebook = (tensor.detach().requires_grad_(differentiates) for tensor in (z, codebook))
    begin = perf_counter()
    found = _solve(name, z, codebook)
    forward_s = perf_counter() - begin
    if not differentiates:
        return _Timed(found.weights, forward_s)
    total = (found.weights * upstream).sum()
    begin = perf_counter()
    gradients = torch.autograd.grad(total, (z, codebook))
    return _Timed(found.weights.detach(), forward_s, gradients, perf_counter() - begin)


def _times(name: str, z: Tensor, codebook: Tensor, upstream: Tensor) -> tuple[float, float]:
    found = _timed(name, z, codebook, upstream)
    return found.forward_s, found.backward_s


def _solve(name: str, z: Tensor, codebook: Tensor) -> Solution:
    from edge_sdk.models.scq.solvers import solve

    options = {"iterations": ITERATIONS} if name == "unrolled" else {}
    return solve(z, codebook, penalty=PENALTY, solver=name, **options)


def _problem(
    latents: int, codes: int, width: int, dtype: torch.dtype, inside: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, codes, and a gradient that comes from above."""
    import torch

    random = torch.Generator().manual_seed(0)
    codebook = torch.randn(codes, width, generator=random, dtype=torch.float64)
    z = torch.randn(latents, width, generator=random, dtype=torch.float64)
    if inside:
        mix = torch.rand(latents, codes, generator=random, dtype=torch.float64) ** 4
        z = mix / mix.sum(1, keepdim=True) @ codebook
    upstream = torch.randn(latents, codes, generator=random, dtype=torch.float64)
    return z.to(dtype), codebook.to(dtype), upstream.to(dtype)


def _objective(z: Tensor, codebook: Tensor, weights: Tensor) -> Tensor:
    import torch

    z, codebook, weights = z.double(), codebook.double(), weights.double()
    near = torch.nn.functional.one_hot(torch.cdist(z, codebook).argmin(1), len(codebook))
    return (z - weights @ codebook).square().sum(1) + PENALTY * (weights - near).square().sum(1)


def _apart(found: tuple[Tensor, ...] | None, truth: tuple[Tensor, ...] | None) -> float:
    """The larger relative distance of the two gradients."""
    if found is None or truth is None:
        raise ValueError("there are no gradients to compare")
    return max(float((a.double() - b.double()).norm() / b.double().norm()) for a, b in zip(found, truth, strict=True))
