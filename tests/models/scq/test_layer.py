"""Quantizer layers: mixtures of codes, how codes are learned, and the deployed forms."""

from __future__ import annotations

import copy

import pytest

from edge_sdk.errors import ModelError

torch = pytest.importorskip("torch")

from edge_sdk.models.scq import codebook as codebooks  # noqa: E402
from edge_sdk.models.scq.codebook import Codebook  # noqa: E402
from edge_sdk.models.scq.layer import SCQLayer  # noqa: E402
from edge_sdk.models.scq.nearest import PassThrough, VQLayer  # noqa: E402

STATS = {"entropy", "perplexity", "utilisation", "support_size", "usage", "weight_entropy", "bits_per_vector"}
STATS |= {"error", "gap", "converged"}


def latents(count: int = 96, width: int = 6, seed: int = 0):
    draw = torch.Generator().manual_seed(100 + seed)
    return torch.randn(count, width, generator=draw) / width**0.5


def maps(seed: int = 0):
    return latents(2 * 4 * 6, seed=seed).reshape(2, 4, 6, 6).permute(0, 3, 1, 2)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


LAYERS = {
    "scq": lambda: SCQLayer(16, 6, 1e-3),
    "vq": lambda: VQLayer(16, 6),
    "none": PassThrough,
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_shapes_and_statistics_are_the_same_for_all(kind: str, training: bool):
    layer = LAYERS[kind]().train(training)
    z = maps()
    z_q, weights, stats = layer(z)
    assert z_q.shape == z.shape
    assert weights.shape == (48, 0 if kind == "none" else 16)
    assert set(stats) == STATS
    assert all(value.ndim == 0 and value.isfinite() for value in stats.values())
    flat, _, _ = layer.eval()(z.permute(0, 2, 3, 1).reshape(-1, 6))
    again, _, _ = layer(z)
    assert torch.allclose(flat.reshape(2, 4, 6, 6).permute(0, 3, 1, 2), again, atol=1e-6)


@pytest.mark.parametrize("kind", ["scq", "vq"])
def test_what_comes_out_is_the_weights_times_the_codes(kind: str):
    layer = LAYERS[kind]().eval()
    z_q, weights, _ = layer(latents())
    assert torch.allclose(weights.sum(1), torch.ones(96), atol=1e-5)
    assert (weights >= 0).all()
    assert torch.allclose(weights @ layer.codebook.codes, z_q, atol=1e-5)


def test_mixtures_are_nearer_than_the_nearest_code_and_cost_more_bits():
    scq, vq = SCQLayer(16, 6), VQLayer(16, 6).eval()
    vq.codebook.codes.copy_(scq.codebook.codes)
    mixed, single = scq.eval()(latents())[2], vq(latents())[2]
    assert mixed["error"] < 0.7 * single["error"]
    assert mixed["support_size"] > 1.5
    assert single["bits_per_vector"] <= 4 < mixed["bits_per_vector"]


@pytest.mark.parametrize("kind", ["scq", "vq"])
def test_evaluation_changes_nothing_and_training_does(kind: str):
    layer = LAYERS[kind]().eval()
    before = copy.deepcopy(layer.state_dict())
    layer(latents())
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    layer.train()(latents())
    assert not torch.equal(before["codebook.codes"], layer.codebook.codes)


@pytest.mark.parametrize("kind", ["scq", "vq"])
def test_codes_start_at_k_means_once_and_a_loaded_layer_does_not_start_again(kind: str):
    pytest.importorskip("sklearn")
    corners = 4 * torch.eye(6)[:4]
    z = corners.repeat_interleave(12, dim=0) + 0.01 * latents(48)
    layer = SCQLayer(4, 6) if kind == "scq" else VQLayer(4, 6)
    layer(z)
    assert torch.cdist(corners, layer.codebook.codes).amin(1).max() < 0.05
    assert layer.codebook.started
    loaded = SCQLayer(4, 6) if kind == "scq" else VQLayer(4, 6)
    loaded.load_state_dict(layer.state_dict())
    loaded(latents(48, seed=5))  # far from the corners
    assert torch.cdist(corners, loaded.codebook.codes).amin(1).max() < 1


def test_fewer_latents_than_codes_are_enough_to_start():
    layer = SCQLayer(64, 6)
    layer(latents(3))
    assert layer.codebook.codes.unique(dim=0).shape == (64, 6)


def test_the_update_of_mixtures_lowers_the_error_where_averaging_by_weight_raises_it():
    z = latents(200)
    layer = SCQLayer(8, 6, ema_decay=0.5)
    first = layer(z)[2]["error"]
    for _ in range(15):
        last = layer(z)[2]["error"]
    assert last < 0.8 * first
    averaged = SCQLayer(8, 6).eval()
    averaged.codebook.codes.copy_(layer.codebook.codes)
    for _ in range(15):
        _, weights, stats = averaged(z)
        averaged.codebook.codes.copy_(weights.T @ z / weights.sum(0)[:, None])
    assert stats["error"] > last


def test_the_update_of_single_codes_is_the_moving_average_of_vq_vae():
    z = latents()
    codebook = Codebook(4, 6, 0.9, mixes=False)
    codebook.start(z)
    counts, sums = torch.full((4,), 1 / 4), codebook.codes / 4
    for _ in range(3):
        nearest = torch.cdist(z, codebook.codes).argmin(1)
        weights = torch.eye(4)[nearest]
        for code in range(4):
            mine = z[nearest == code]
            counts[code] = 0.9 * counts[code] + 0.1 * len(mine) / len(z)
            sums[code] = 0.9 * sums[code] + 0.1 * mine.sum(0) / len(z)
        codebook.follow(z, weights)
        assert torch.allclose(codebook.codes, sums / counts[:, None], atol=0.02)


@pytest.mark.parametrize("mixes", [True, False])
def test_dead_codes_come_back_at_latents_that_are_badly_met(mixes: bool):
    codebook = Codebook(4, 6, 0.5, mixes=mixes)
    near, far = 0.01 * latents(40), 5 + 0.01 * latents(8)
    z = torch.cat([near, far])
    codebook.start(near)
    weights = torch.eye(4)[torch.zeros(48, dtype=torch.long)]
    for _ in range(6):
        codebook.follow(z, weights)
    assert torch.cdist(far, codebook.codes).amin() < 0.1


@pytest.mark.parametrize("kind", ["scq", "vq"])
def test_codes_are_learned_by_gradient_where_there_is_no_moving_average(kind: str):
    layer = SCQLayer(16, 6, ema_decay=None) if kind == "scq" else VQLayer(16, 6, ema_decay=None)
    assert [name for name, _ in layer.named_parameters()] == ["codebook.codes"]
    optimizer = torch.optim.SGD(layer.parameters(), 0.5)
    layer(latents())
    moved = latents() + 0.5
    errors = []
    for _ in range(8):
        error = layer(moved)[2]["error"]
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.7 * errors[0]
    assert not list(LAYERS[kind]().parameters())


def test_gradients_reach_the_latents_after_the_codes_have_moved():
    for layer, expected in ((SCQLayer(16, 6), None), (VQLayer(16, 6), torch.ones(96, 6))):
        z = latents().requires_grad_()
        layer(z)
        z_q, _, _ = layer(z)
        z_q.sum().backward()
        assert z.grad.isfinite().all()
        assert z.grad.abs().sum() > 0
        if expected is not None:
            assert torch.equal(z.grad, expected)


def test_latents_in_half_precision_are_quantized_in_float32():
    with torch.autocast("cpu", torch.bfloat16):
        z_q, weights, _ = SCQLayer(16, 6).eval()(latents().bfloat16())
    assert z_q.dtype == weights.dtype == torch.float32


def test_the_penalty_and_the_anchor_travel_with_the_weights():
    layer = SCQLayer(16, 6, 0.5, anchor="none")
    loaded = SCQLayer(16, 6, 1e-3)
    loaded.load_state_dict(layer.state_dict())
    assert (loaded.scq_lambda, loaded.anchor) == (0.5, "none")
    assert torch.equal(loaded.eval()(latents())[1], layer.eval()(latents())[1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SCQLayer(16, 6, 0.0), "scq_lambda is 0: give a finite number above 0, such as 1e-3."),
        (lambda: SCQLayer(16, 6, -1.0), "scq_lambda is -1"),
        (lambda: SCQLayer(16, 6, float("nan")), "scq_lambda is nan"),
        (lambda: SCQLayer(0, 6), "a codebook of 0 codes that are 6 wide"),
        (lambda: SCQLayer(16, 6, solver="exakt"), "unknown solver 'exakt'. Did you mean 'exact'?"),
        (lambda: SCQLayer(16, 6, anchor="vqq"), "unknown anchor 'vqq'. Did you mean 'vq'?"),
        (lambda: VQLayer(16, 6, ema_decay=1.0), "ema_decay is 1: give a number between 0 and 1, or None"),
        (lambda: SCQLayer(16, 6)(latents(4, 5)), "the latents have the shape [4, 5] and the codes are 6 wide"),
        (lambda: VQLayer(16, 6)(latents(4, 6)[None]), "the latents have the shape [1, 4, 6]"),
        (lambda: SCQLayer(16, 6)(latents()[:0]), "there are no latents to quantize (shape [0, 6])"),
        (lambda: VQLayer(16, 6).eval()(latents() / 0), "96 of 96 latents hold NaN or infinity"),
        (lambda: SCQLayer(16, 6)(latents() * float("nan")), "96 of 96 latents hold NaN or infinity"),
    ],
)
def test_what_does_not_fit_is_refused(make, message: str):
    with pytest.raises(ModelError) as caught:
        make()
    assert message in str(caught.value)


def test_starting_without_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.cluster", None)
    with pytest.raises(codebooks.MissingDependencyError, match=r"codes start at k-means.*edge-sdk\[train\]"):
        SCQLayer(16, 6)(latents())


def test_the_deployed_nearest_code_is_the_nearest_code():
    layer = VQLayer(16, 6).eval()
    z = maps()
    program = torch.export.export(layer.deployed(), (z,)).module()
    assert torch.allclose(program(z), layer(z)[0], atol=1e-6)
    assert layer.distance(latents(2000))["mean"] < 1e-4  # two codes that are as near as float32 tells are mixed


@pytest.mark.parametrize("anchor", ["vq", "none"])
def test_the_deployed_mixture_comes_nearer_to_the_optimum_with_iterations(anchor: str):
    layer = SCQLayer(16, 6, anchor=anchor).eval()
    step = layer.best_step(latents(), 100, (10.0, 1.0, 0.1, 0.01))
    few, many = (layer.distance(latents(), iterations, step) for iterations in (5, 200))
    assert many["mean"] < 0.1 * few["mean"]
    assert many["mean"] <= many["max"] < 0.01
    z = maps()
    assert torch.allclose(layer.deployed(200, step)(z), layer(z)[0], atol=0.01)
    few_of_them = layer.deployed(5, step)
    assert torch.allclose(torch.export.export(few_of_them, (z,)).module()(z), few_of_them(z), atol=1e-6)


def test_the_best_step_is_the_one_with_the_least_distance():
    layer = SCQLayer(16, 6).eval()
    steps = (10.0, 1.0, 0.1, 0.001)
    found = {step: layer.distance(latents(), 20, step)["mean"] for step in steps}
    assert layer.best_step(latents(), 20, steps) == min(found, key=found.__getitem__)


def _follow(rank: int, folder: str, parts: list[torch.Tensor], weights: list[torch.Tensor]) -> None:
    """One of two processes that train together."""
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(rank)
    codebook = _started()
    codebook.follow(parts[rank], weights[rank])
    torch.save(codebook.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def _started() -> Codebook:
    codebook = Codebook(4, 6, 0.5)
    codebook.codes.copy_(torch.arange(24.0).reshape(4, 6) / 24)
    codebook.sums.copy_(codebook.codes / 4)
    codebook.products.copy_(torch.eye(4) / 4)
    codebook.started.fill_(True)
    return codebook


def test_processes_that_train_together_move_the_codes_as_one_does_with_all_latents(tmp_path):
    draw = torch.Generator().manual_seed(0)
    rows = [torch.rand(8, 6, generator=draw) for _ in range(2)]
    weights = [torch.softmax(torch.randn(8, 4, generator=draw), 1) for _ in range(2)]
    torch.multiprocessing.spawn(_follow, (str(tmp_path), rows, weights), nprocs=2)
    whole = _started()
    whole.follow(torch.cat(rows), torch.cat(weights))
    for rank in range(2):
        for name, value in torch.load(tmp_path / f"{rank}.pt", weights_only=True).items():
            torch.testing.assert_close(value, whole.state_dict()[name])
