"""The solvers of SCQ: feasible, optimal, with the right gradients, and clear about bad input."""

from __future__ import annotations

import logging
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_sdk.errors import MissingDependencyError, ModelError
from edge_sdk.models.scq.solvers import SOLVERS, UnrolledSolver, solve

F64 = torch.float64


def draw(seed: int, n: int, k: int, d: int, where: str = "outside", repeats: int = 0) -> tuple[torch.Tensor, ...]:
    """Latents and codes in float64: latents outside the hull of the codes, inside it, or at codes."""
    random = torch.Generator().manual_seed(seed)
    codebook = torch.randn(k, d, generator=random, dtype=F64)
    if repeats:
        codebook[torch.randperm(k, generator=random)[:repeats]] = codebook[0].clone()
    if where == "outside":
        z = 2 * torch.randn(n, d, generator=random, dtype=F64)
    elif where == "inside":
        mix = torch.rand(n, k, generator=random, dtype=F64) ** 4
        z = mix / mix.sum(1, keepdim=True) @ codebook
    else:
        z = codebook[torch.randint(k, (n,), generator=random)] + 0.05 * torch.randn(n, d, generator=random, dtype=F64)
    return z, codebook


def anchor_of(z: torch.Tensor, codebook: torch.Tensor, anchor: str) -> torch.Tensor:
    if anchor == "none":
        return torch.zeros(len(z), len(codebook), dtype=z.dtype)
    return torch.nn.functional.one_hot(torch.cdist(z, codebook).argmin(1), len(codebook)).to(z.dtype)


def objective(z, codebook, weights, penalty, anchor):
    near = (weights - anchor_of(z, codebook, anchor)).square().sum(1)
    return (z - weights @ codebook).square().sum(1) + penalty * near


def kkt_violation(z, codebook, weights, penalty, anchor) -> float:
    """How far weights are from where a step down the gradient and back on the simplex leaves them."""
    step = 1 / (torch.linalg.matrix_norm(codebook, 2) ** 2 + penalty)
    down = (weights @ codebook - z) @ codebook.T + penalty * (weights - anchor_of(z, codebook, anchor))
    moved = weights - step * down
    ordered = moved.sort(1, descending=True).values
    sums = (ordered.cumsum(1) - 1) / torch.arange(1, moved.shape[1] + 1, dtype=F64)
    shift = sums.gather(1, (ordered > sums).sum(1, keepdim=True) - 1)
    return float(((moved - shift).clamp(min=0) - weights).abs().max())


problems = {
    "seed": st.integers(0, 2**31),
    "n": st.integers(1, 12),
    "k": st.integers(1, 40),
    "d": st.integers(1, 24),
    "where": st.sampled_from(["outside", "inside", "at"]),
    "anchor": st.sampled_from(["vq", "none"]),
}


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(**problems, penalty=st.sampled_from([1e-6, 1e-3, 0.1, 10.0, 1e4]), repeats=st.integers(0, 3))
def test_exact_is_feasible_and_optimal(seed, n, k, d, where, anchor, penalty, repeats):
    # Of repeated codes any may be the nearest one.
    z, codebook = draw(seed, n, k, d, where, min(repeats, k) if anchor == "none" else 0)

    found = solve(z, codebook, penalty=penalty, anchor=anchor)

    assert (found.weights >= 0).all()
    assert torch.allclose(found.weights.sum(1), torch.ones(n, dtype=F64), atol=1e-12)
    assert kkt_violation(z, codebook, found.weights, penalty, anchor) < 1e-9 + 1e-13 / penalty
    assert found.converged.all() and float(found.gap.max()) < 1e-9


@settings(max_examples=25, deadline=None, derandomize=True)
@given(**problems, penalty=st.sampled_from([1e-3, 0.1, 10.0]))
def test_the_gradient_is_that_of_finite_differences(seed, n, k, d, where, anchor, penalty):
    z, codebook = draw(seed, n, k, d, where)
    random = torch.Generator().manual_seed(seed)
    into_z, into_codes = (torch.randn(x.shape, generator=random, dtype=F64) for x in (z, codebook))
    upstream = torch.randn(n, k, generator=random, dtype=F64)
    eps = 1e-7

    def moved(by: float) -> torch.Tensor:
        return solve(z + by * into_z, codebook + by * into_codes, penalty=penalty, anchor=anchor).weights.detach()

    # A difference says nothing where an active code changes between its ends.
    behind, here, ahead = moved(-eps), moved(0), moved(eps)
    smooth = ((behind > 0) == (ahead > 0)).all(1) & ((behind > 0) == (here > 0)).all(1)
    numeric = ((ahead - behind) / (2 * eps) * upstream).sum(1)[smooth].sum()

    z, codebook = z.requires_grad_(), codebook.requires_grad_()
    weights = solve(z, codebook, penalty=penalty, anchor=anchor).weights
    to_z, to_codes = torch.autograd.grad((weights * upstream)[smooth].sum(), (z, codebook))
    analytic = (to_z * into_z).sum() + (to_codes * into_codes).sum()

    scale = (to_z.norm() * into_z.norm() + to_codes.norm() * into_codes.norm()).clamp(min=1)
    assert float((analytic - numeric).abs() / scale) < 1e-5


@pytest.mark.parametrize("where", ["outside", "inside"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_solves_many_latents_and_a_large_codebook(where, dtype):
    z, codebook = (x.to(dtype) for x in draw(0, 300, 256, 64, where))

    found = solve(z, codebook, penalty=1e-3)

    assert found.weights.dtype == dtype and found.gap.dtype == dtype
    assert found.converged.all() and float(found.gap.max()) < (1e-9 if dtype == F64 else 1e-7)
    active = (found.weights > 0).sum(1).double().mean()
    assert active > 64 if where == "inside" else active < 64


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_float32_has_the_gradient_of_float64(where):
    z, codebook = draw(1, 40, 128, 32, where)
    upstream = torch.randn(40, 128, dtype=F64, generator=torch.Generator().manual_seed(0))
    found = []
    for dtype in (torch.float32, torch.float64):
        given = [x.float().to(dtype).requires_grad_() for x in (z, codebook)]
        weights = solve(*given, penalty=1e-3).weights
        found.append(torch.autograd.grad((weights * upstream.to(dtype)).sum(), given))
    for single, double in zip(*found, strict=True):
        assert single.dtype == torch.float32
        assert float((single - double).norm() / double.norm()) < 1e-5


@pytest.mark.parametrize(("k", "d", "where"), [(2100, 24, "outside"), (2100, 4, "inside")])
def test_exact_solves_with_thousands_of_codes(k, d, where):
    z, codebook = draw(9, 6, k, d, where)
    found = solve(z, codebook, penalty=1e-3)
    assert kkt_violation(z, codebook, found.weights, 1e-3, "vq") < 1e-9
    assert found.converged.all() and float(found.gap.max()) < 1e-9


def test_where_latents_and_codes_lie_changes_nothing():
    z, codebook = draw(10, 40, 32, 16)
    here, far = (solve(z + by, codebook + by, penalty=1e-3).weights for by in (0.0, 1000.0))
    assert torch.allclose(here, far, atol=1e-7)


def test_codes_that_are_all_one_share_the_weight_evenly():
    found = solve(torch.ones(3, 4, dtype=F64), torch.full((5, 4), 0.5, dtype=F64), penalty=1e-3, anchor="none")
    assert torch.allclose(found.weights, torch.full((3, 5), 0.2, dtype=F64))


def test_latents_are_solved_alike_alone_and_together():
    z, codebook = draw(2, 64, 48, 16, "inside")
    together = solve(z, codebook, penalty=1e-3).weights
    alone = torch.cat([solve(row[None], codebook, penalty=1e-3).weights for row in z[:8]])
    assert torch.allclose(together[:8], alone, atol=1e-9)


def test_a_code_is_its_own_quantization():
    _, codebook = draw(3, 1, 20, 8)
    found = solve(codebook.clone(), codebook, penalty=1e-3)
    assert torch.allclose(found.weights, torch.eye(20, dtype=F64), atol=1e-9)


def test_memory_grows_with_the_batch_and_not_faster():
    """The largest tensor that a solution saves for its gradient is as large as the weights."""
    z, codebook = draw(4, 200, 32, 16)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        solve(z.requires_grad_(), codebook.requires_grad_(), penalty=1e-3)
    assert max(saved) == 200 * 32


@pytest.mark.parametrize("anchor", ["vq", "none"])
def test_exact_agrees_with_cvxpylayers(anchor):
    pytest.importorskip("cvxpylayers", reason="cvxpylayers is not installed: pip install 'edge-sdk[reference]'")
    _agrees_with("cvxpylayers", anchor, 1e-6, 1e-4)


@pytest.mark.parametrize("anchor", ["vq", "none"])
def test_exact_agrees_with_proxsuite(anchor):
    pytest.importorskip("proxsuite", reason="ProxSuite is not installed: pip install 'edge-sdk[reference]'")
    _agrees_with("proxsuite", anchor, 1e-6, 1e-3)


def _agrees_with(reference: str, anchor: str, objectives: float, gradients: float) -> None:
    z, codebook = draw(5, 6, 12, 5, "at")
    z, codebook = z.requires_grad_(), codebook.requires_grad_()
    upstream = torch.randn(6, 12, dtype=F64, generator=torch.Generator().manual_seed(1))
    ours, theirs = (solve(z, codebook, penalty=0.05, anchor=anchor, solver=name) for name in ("exact", reference))
    costs = [objective(z, codebook, found.weights, 0.05, anchor).detach() for found in (ours, theirs)]
    assert torch.allclose(costs[0], costs[1], rtol=objectives, atol=0)
    assert theirs.converged.all()
    grads = [torch.autograd.grad((found.weights * upstream).sum(), (z, codebook)) for found in (ours, theirs)]
    for mine, other in zip(*grads, strict=True):
        assert float((mine - other).norm() / mine.norm()) < gradients


@pytest.mark.parametrize("anchor", ["vq", "none"])
def test_relaxed_is_feasible_and_says_how_far_it_is(anchor):
    z, codebook = draw(6, 20, 24, 8)
    found = solve(z.requires_grad_(), codebook, penalty=0.1, anchor=anchor, solver="relaxed")
    best = solve(z, codebook, penalty=0.1, anchor=anchor)
    assert (found.weights >= 0).all() and torch.allclose(found.weights.sum(1), torch.ones(20, dtype=F64))
    costs = [objective(z, codebook, one.weights, 0.1, anchor) for one in (found, best)]
    assert (found.gap >= (costs[0] - costs[1]) / costs[0] - 1e-12).all() and (found.gap <= 1).all()
    assert not found.converged.all()
    assert torch.autograd.grad(found.weights[:, 0].sum(), z)[0].abs().sum() > 0


@pytest.mark.parametrize("anchor", ["vq", "none"])
def test_unrolled_comes_nearer_with_its_iterations(anchor):
    z, codebook = draw(7, 30, 24, 8)
    best = solve(z, codebook, penalty=0.01, anchor=anchor).weights
    errors = []
    for iterations in (10, 100, 1000):
        weights = UnrolledSolver(codebook, 0.01, iterations, anchor=anchor)(z)
        assert (weights >= 0).all() and torch.allclose(weights.sum(1), torch.ones(30, dtype=F64))
        errors.append(float(((weights - best) @ codebook).norm() / (best @ codebook).norm()))
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-6


def test_unrolled_has_the_exact_gradient_in_the_end():
    z, codebook = draw(8, 10, 12, 6)
    z, codebook = z.requires_grad_(), codebook.requires_grad_()
    upstream = torch.randn(10, 12, dtype=F64, generator=torch.Generator().manual_seed(1))
    grads = []
    for solver, options in (("exact", {}), ("unrolled", {"iterations": 1500, "step": 0.3})):
        weights = solve(z, codebook, penalty=0.05, solver=solver, **options).weights
        grads.append(torch.autograd.grad((weights * upstream).sum(), (z, codebook)))
    for exact, unrolled in zip(*grads, strict=True):
        assert torch.allclose(exact, unrolled, atol=1e-6)


def test_unrolled_exports_with_nothing_that_depends_on_the_data():
    z, codebook = (x.float() for x in draw(9, 4, 12, 6))
    solver = UnrolledSolver(codebook, 0.01, 3).eval()
    program = torch.export.export(solver, (z,))
    assert torch.equal(program.module()(z), solver(z))
    used = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not [name for name in used if any(word in name for word in ("sort", "scatter", "nonzero", "while", "cond"))]


def test_exact_stands_beside_torch_compile():
    """The solver is opaque to the compiler, and what is around it still compiles."""
    z, codebook = draw(10, 4, 8, 3)
    network = torch.compile(lambda x: solve(2 * x, codebook, penalty=0.1).weights @ codebook, backend="eager")
    assert torch.allclose(network(z), solve(2 * z, codebook, penalty=0.1).weights @ codebook)


@pytest.mark.gpu
@pytest.mark.parametrize("where", ["outside", "inside"])
def test_the_gpu_gives_what_the_cpu_gives(where):
    z, codebook = draw(11, 500, 256, 64, where)
    upstream = torch.randn(500, 256, dtype=F64, generator=torch.Generator().manual_seed(1))
    grads = []
    for device in ("cpu", "cuda"):
        given = [x.to(device).requires_grad_() for x in (z, codebook)]
        found = solve(*given, penalty=1e-3)
        assert found.converged.all() and found.weights.device.type == device
        grads.append([x.cpu() for x in torch.autograd.grad((found.weights * upstream.to(device)).sum(), given)])
    for here, there in zip(*grads, strict=True):
        assert float((here - there).norm() / here.norm()) < 1e-6


def test_the_solvers():
    assert SOLVERS == ("exact", "relaxed", "unrolled", "cvxpylayers", "proxsuite")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": torch.zeros(0, 3)}, "there are no latents to quantize (batch 0): give at least one."),
        ({"z": torch.zeros(2, 4)}, "the latents have the shape [2, 4] and the codes are 3 wide"),
        ({"z": torch.zeros(2, 3, 3)}, "give latents as [n, 3], or a codebook of the latents' width."),
        ({"z": torch.tensor([[0, 0, float("nan")], [0, 0, 0]])}, "1 of 2 latents hold NaN or infinity"),
        ({"codebook": torch.full((5, 3), float("inf"))}, "5 of 5 codes hold NaN or infinity"),
        ({"codebook": torch.zeros(5)}, "the codebook has the shape [5]: give codes as [codes, width]."),
        ({"z": torch.zeros(2, 3, dtype=F64)}, "the latents are torch.float64 and the codebook is torch.float32"),
        ({"z": torch.zeros(2, 3).half(), "codebook": torch.zeros(5, 3).half()}, "give both as float32"),
        ({"penalty": 0.0}, "the penalty (scq_lambda) is 0: give a finite number above 0, such as 1e-3."),
        ({"penalty": -1.0}, "the penalty (scq_lambda) is -1"),
        ({"penalty": float("nan")}, "the penalty (scq_lambda) is nan"),
        ({"anchor": "vg"}, "unknown anchor 'vg'. Did you mean 'vq'?"),
        ({"solver": "exakt"}, "unknown solver 'exakt'. Did you mean 'exact'?"),
        ({"iterations": 3}, "the solver 'exact' has no option 'iterations': it has none."),
        ({"solver": "unrolled", "rho": 3}, "the solver 'unrolled' has no option 'rho': it has iterations, step."),
        ({"solver": "unrolled", "iterations": 0}, "the unrolled solver was given 0 iterations: give at least 1"),
        ({"solver": "unrolled", "step": -1.0}, "the step of the unrolled solver is -1"),
    ],
)
def test_bad_input_is_refused(change, message):
    random = torch.Generator().manual_seed(0)
    given = {"z": torch.zeros(2, 3), "codebook": torch.randn(5, 3, generator=random), "penalty": 1e-3, **change}
    with pytest.raises(ModelError) as caught:
        solve(**given)
    assert message in str(caught.value)


def test_a_singular_codebook_is_solved_with_one_warning(caplog):
    z, codebook = draw(12, 5, 11, 4, repeats=3)
    with caplog.at_level(logging.WARNING, logger="edge_sdk"):
        found = [solve(z, codebook, penalty=1e-3) for _ in range(3)]
    assert found[0].converged.all()
    assert len(caplog.records) == 1
    assert caplog.records[0].message.startswith("the codebook is singular: ")
    assert "of its 11 codes repeat another one" in caplog.records[0].message


def test_a_penalty_too_small_for_float64_is_solved_with_a_warning(caplog):
    z, codebook = draw(13, 5, 13, 4, "inside")
    with caplog.at_level(logging.WARNING, logger="edge_sdk"):
        found = solve(z, codebook, penalty=1e-15)
    assert "singular beyond what the penalty of 1e-15 mends" in caplog.text
    assert torch.allclose(found.weights @ codebook, z, atol=1e-6)


@pytest.mark.parametrize(
    ("solver", "package"), [("cvxpylayers", "cvxpylayers.torch"), ("proxsuite", "proxsuite.torch")]
)
def test_a_reference_that_is_not_installed_names_the_extra(solver, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "proxsuite.torch.qplayer", raising=False)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edge-sdk\[reference\]'"):
        solve(torch.zeros(2, 3), torch.randn(7, 3), penalty=0.0123, solver=solver)
