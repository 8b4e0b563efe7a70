"""The plan: what serves a target, and why everything else does not, before any work."""

from __future__ import annotations

import pytest
from _models import mlp_model

from edge_sdk.errors import UnsupportedError
from edge_sdk.pipeline.plan import plans
from edge_sdk.quantization.base import make_quantizer
from edge_sdk.schema import load_target, target_names


def planned(target: str, quantize="fp32", runtime="auto"):
    return plans(load_target(target), mlp_model(), make_quantizer(quantize), runtime)


def test_all_that_a_target_allows_in_its_order():
    found, refused = planned("desktop-cpu")
    assert [plan.label for plan in found] == ["onnxruntime (cpu)", "executorch (xnnpack)"] and refused == {}


def test_what_only_some_runtimes_can_do():
    found, refused = planned("desktop-cpu", "fp16")
    assert [plan.label for plan in found] == ["executorch (xnnpack)"]
    assert refused == {"onnxruntime (cpu)": "the target allows fp32, int8, int4 there, and fp16 is fp16"}


def test_one_runtime_by_name():
    found, refused = planned("desktop-cpu", runtime="executorch")
    assert [plan.label for plan in found] == ["executorch (xnnpack)"] and refused == {}


@pytest.mark.parametrize(
    ("target", "runtime", "message"),
    [
        ("desktop-cpu", "executorh", "unknown runtime 'executorh'. Did you mean 'executorch'?"),
        (
            "xnnpack-cpu",
            "onnxruntime",
            "target 'xnnpack-cpu' does not allow runtime 'onnxruntime'; it allows: executorch.",
        ),
    ],
)
def test_runtimes_that_are_not_there(target, runtime, message):
    with pytest.raises(UnsupportedError) as caught:
        planned(target, runtime=runtime)
    assert message in str(caught.value)


@pytest.mark.parametrize("target", target_names())
def test_every_target_is_served_or_says_why_not_for_each_of_its_runtimes(target):
    rules = load_target(target).runtimes
    try:
        found, refused = planned(target)
    except UnsupportedError as error:
        message = str(error)
        assert message.startswith(f"target '{target}' cannot take model 'mlp' as fp32: ")
        assert all(f"{rule.name} ({rule.delegate}): " in message for rule in rules)
    else:
        assert {*(plan.label for plan in found), *refused} == {f"{rule.name} ({rule.delegate})" for rule in rules}
