"""Pruning before a model is captured: what the bundle tells of it, what its name and its key hold, what is refused."""

from __future__ import annotations

import pytest
from _models import IMAGE, Tiny, conv_model, conv_net, example, mlp_model, nn, seeded, tiny

pytest.importorskip("torch_pruning", reason="torch-pruning is not installed: pip install 'edge-sdk[train]'")

import edge_sdk  # noqa: E402
from edge_sdk.errors import EdgeSdkError, UnsupportedError  # noqa: E402
from edge_sdk.models.base import Part  # noqa: E402
from edge_sdk.pipeline.pruned import pruned_parts  # noqa: E402
from edge_sdk.pruning import Recipe  # noqa: E402
from edge_sdk.schema.request import Timing  # noqa: E402

BRIEFLY = Timing(warmup_max_s=0.1, min_runs=1, min_time_s=0.0, max_time_s=0.1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_SDK_CACHE", str(tmp_path / "cache"))


def compiled(model, prune: str | None = None, **options):
    return edge_sdk.compile(model, "desktop-cpu", runtime="onnxruntime", prune=prune, **options)


def test_a_bundle_of_a_pruned_model_is_smaller_and_says_so():
    whole, pruned = compiled(mlp_model()), compiled(mlp_model(), "struct30+mag10")
    about = pruned.manifest.pruning
    assert whole.manifest.pruning is None and about is not None
    assert (about.recipe, about.whole) == ("struct30+mag10", {})
    assert about.parameters_before == 64 * 128 + 128 + 128 * 16 + 16
    assert about.parameters <= 0.7 * about.parameters_before and about.zeros > 0.09 * about.parameters
    assert pruned.manifest.size_bytes < 0.75 * whole.manifest.size_bytes
    assert pruned.manifest.cost.macs < 0.75 * whole.manifest.cost.macs
    assert pruned.manifest.name == "mlp-struct30_mag10-desktop-cpu-fp32-onnxruntime"


def test_each_recipe_has_a_bundle_of_its_own():
    said: list[str] = []
    names = {compiled(conv_model(), prune).manifest.key for prune in (None, "struct20", "struct30", "mag20")}
    assert len(names) == 4
    compiled(conv_model(), "struct20", progress=said.append)
    assert any(line.startswith("found in the cache") for line in said)


def test_what_runs_is_compared_with_the_pruned_model_and_its_accuracy_with_the_whole_one():
    def score(outputs, fp32):
        errors = [abs(a["forward"]["y"] - b["forward"]["y"]).max() for a, b in zip(outputs, fp32, strict=True)]
        return {"error": float(max(errors))}

    def report(prune: str | None):
        model = tiny(seeded(conv_net), example(*IMAGE), score=score, counts={"evaluation": 2})
        options = {"runtime": "onnxruntime", "timing": BRIEFLY, "energy": False}
        return edge_sdk.deploy(model, "desktop-cpu", prune=prune, **options)

    whole, pruned = report(None), report("struct30")
    assert whole.accuracy is not None and pruned.accuracy is not None
    assert whole.pruning is None and pruned.pruning is not None
    assert pruned.numerics.cosine == pytest.approx(1, abs=1e-5)
    assert whole.accuracy["error"] < 1e-4 < pruned.accuracy["error"]


def test_a_part_where_no_channel_can_go_stays_whole_and_is_listed():
    parts = [*mlp_model().parts(), Part("head", nn.Linear(4, 3), (example(1, 4),))]
    done, about = pruned_parts(parts, Recipe(channels=30))
    assert done[1] is parts[1] and done[0].module[0].out_features < 128
    assert list(about.whole) == ["head"] and "no channels that can go" in about.whole["head"]
    assert about.parameters == sum(value.numel() for part in done for value in part.module.parameters())


def narrow_model() -> Tiny:
    """Most of its weights lead in or out."""
    return tiny(nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 64)), example(1, 64))


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (mlp_model, {"prune": "half"}, "'half' is no way to prune; expected structN"),
        (narrow_model, {"prune": "struct60"}, "part 'forward': pruning away 60% .* is not possible: at most 4"),
        (lambda: Tiny(Part("head", nn.Linear(4, 3), (example(1, 4),))), {"prune": "struct30"}, "nothing to prune"),
    ],
)
def test_what_cannot_be_pruned_is_refused(model, options: dict, said: str):
    with pytest.raises(EdgeSdkError, match=said):
        compiled(model(), **options)


def test_onnx_files_and_learned_integers_are_refused_before_any_work(tmp_path):
    path = tmp_path / "mlp.onnx"
    path.write_bytes((compiled(mlp_model()).path / "forward.onnx").read_bytes())
    with pytest.raises(UnsupportedError, match="takes PyTorch models, not ONNX files"):
        compiled(str(path), "struct30")
    lsq = tmp_path / "best.lsq.pt"
    lsq.write_bytes(b"")
    with pytest.raises(UnsupportedError, match="cannot go before int8-lsq"):
        compiled(mlp_model(), "struct30", quantize="int8-lsq", settings={"quantize.checkpoint": str(lsq)})
