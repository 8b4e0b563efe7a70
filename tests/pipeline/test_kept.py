"""Parts that the model keeps in FP32: no quantizer changes them, and their layers are listed with the reason."""

from __future__ import annotations

import numpy as np
import pytest
from _models import Tiny, conv_net, example, nn, run, seeded, torch

import edge_sdk
from edge_sdk.errors import UnsupportedError
from edge_sdk.models.base import Part

pytest.importorskip("torchao", reason="torchao is not installed: pip install 'edge-sdk[onnxruntime]'")

WHY = "it counts on every digit"
ENCODER = Part("encoder", seeded(conv_net), (example(1, 3, 16, 16),), ("image",), ("features",))
SOLVER = Part("solver", seeded(lambda: nn.Linear(10, 10)), (example(1, 10),), ("z",), ("p",), keeps_float=WHY)


def compiled(quantizer: str, runtime: str, *parts: Part, **options):
    return edge_sdk.compile(Tiny(*parts, **options), "desktop-cpu", runtime=runtime, quantize=quantizer)


@pytest.mark.parametrize(
    ("quantizer", "runtime"),
    [("int8-static", "executorch"), ("int8-static", "onnxruntime"), ("int8-dynamic", "onnxruntime")],
)
def test_a_kept_part_gives_what_fp32_gives_and_is_listed(quantizer: str, runtime: str):
    bundle = compiled(quantizer, runtime, ENCODER, SOLVER)
    listed = {one.layer: one.reason for one in bundle.manifest.quantization.skipped if one.reason == WHY}
    assert len(listed) == 1 and next(iter(listed)).startswith("solver")
    assert not any(one.op in ("MatMul", "Gemm", "FusedGemm") for one in bundle.manifest.partition.fallback)
    samples = Tiny(ENCODER, SOLVER).samples("reference")
    for part, is_kept in ((ENCODER, False), (SOLVER, True)):
        with_torch = [part.module(*(torch.from_numpy(array) for array in one[part.name].values())) for one in samples]
        found = [next(iter(one[part.name].values())) for one in run(bundle, samples)]
        errors = [np.abs(ours - theirs.detach().numpy()).max() for ours, theirs in zip(found, with_torch, strict=True)]
        assert (max(errors) < 1e-5) == is_kept, "the kept part alone keeps every digit"


def test_a_budget_judges_the_kept_part_by_its_fp32_outputs():
    seen = []

    def score(outputs, fp32):
        seen.append(all(np.array_equal(a["solver"]["p"], b["solver"]["p"]) for a, b in zip(outputs, fp32, strict=True)))
        return {"accuracy": 1.0}

    model = Tiny(ENCODER, SOLVER, counts={"calibration": 4, "reference": 1, "evaluation": 2}, score=score)
    edge_sdk.compile(model, "desktop-cpu", runtime="onnxruntime", quantize="int8-static", max_drop=0.5)
    assert seen and all(seen)


def test_a_model_of_kept_parts_alone_is_refused():
    with pytest.raises(
        UnsupportedError, match="every part stays in FP32 .'solver': it counts on every digit.. Use fp32"
    ):
        compiled("int8-static", "onnxruntime", SOLVER)


def test_an_option_for_all_parts_is_refused():
    model = Tiny(ENCODER, SOLVER)
    with pytest.raises(UnsupportedError, match="nnapi sets fp16 by its option nnapi_use_fp16 for all parts"):
        edge_sdk.compile(model, "galaxy-s24-npu", quantize="fp16")
