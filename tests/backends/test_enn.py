"""Samsung's ENN delegate: what it says where its SDK is not installed, and what can be told without it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from _models import mlp_model

from edge_sdk.backends.executorch import ExecuTorchBackend, _enn
from edge_sdk.errors import MissingDependencyError, UnsupportedError
from edge_sdk.pipeline.plan import plans
from edge_sdk.quantization.base import make_quantizer
from edge_sdk.schema import load_target
from edge_sdk.schema.target import RuntimeRule

pytest.importorskip("executorch", reason="executorch is not installed: pip install 'edge-sdk[executorch]'")

PAGE = Path(__file__).parents[2] / "docs" / "nnapi.md"
PROFILE = """
name: my-exynos-2500
extends: galaxy-s24-cpu
title: A device with an Exynos 2500, NPU by ENN
soc: Samsung Exynos 2500 (s5e9955)
device_models: []
units:
  - name: npu
    kind: npu
    description: The NPU, reached through ENN
    cores: {value: null, source: "Not looked up for this example."}
    clock_mhz: {value: null, source: "Samsung publishes no NPU clock."}
    peak_gops: {}
runtimes:
  - name: executorch
    delegate: enn
    unit: npu
    precisions: [fp32, fp16, int8]
    shapes: static
    options: {chipset: CHIP}
"""


@pytest.fixture
def target(tmp_path):
    def load(chip="E9955"):
        path = tmp_path / "my-exynos-2500.yaml"
        path.write_text(PROFILE.replace("CHIP", chip))
        return load_target(path)

    return load


def test_without_the_sdk_its_absence_is_said(target):
    if _enn.problem() is None:
        pytest.skip("Samsung's SDK is installed here")
    with pytest.raises(MissingDependencyError) as caught:
        plans(target(), mlp_model(), make_quantizer("fp32"), "auto")
    message = str(caught.value)
    assert message.startswith("target 'my-exynos-2500' cannot take model 'mlp' as fp32: executorch (enn): ")
    assert "needs the Exynos AI LiteCore SDK (Exynos 2500 and 2600 only)" in message
    assert "lacks executorch.backends.samsung.python.PyEnnWrapperAdaptor" in message


@pytest.mark.parametrize(
    ("quantizer", "reason"),
    [
        ("int8-static", "ENN reads a weight's scale from a quantizer before it, and this one leaves none; use fp32"),
        ("fp16", "ENN chooses the arithmetic of float graphs itself; use fp32"),
    ],
)
def test_quantizers_that_were_never_tried_on_it_are_refused(target, quantizer, reason):
    with pytest.raises(UnsupportedError) as caught:
        plans(target(), mlp_model(), make_quantizer(quantizer), "auto")
    assert reason in str(caught.value)


def test_a_chip_that_executorch_does_not_know():
    rule = RuntimeRule(
        name="executorch",
        delegate="enn",
        unit="npu",
        precisions=["fp32"],
        shapes="static",
        options={"chipset": "E9945"},
    )
    with pytest.raises(UnsupportedError) as caught:
        _enn.lower({}, load_target("galaxy-s24-cpu"), rule)
    message = str(caught.value)
    assert message.startswith("target 'galaxy-s24-cpu', option 'chipset' of executorch (enn): unknown chipset 'E9945'.")
    assert message.endswith("Known: E9955, E9965.")


def test_the_samsung_delegate_needs_no_other_than_its_own_rewrites():
    ours = ExecuTorchBackend.rewrites_for("enn")
    assert ours < ExecuTorchBackend.rewrites_for("xnnpack") and "layer_norm_to_products" not in ours


def test_nothing_is_missing_for_xnnpack():
    assert ExecuTorchBackend.delegate_problem("xnnpack") is None


def test_the_profile_in_the_documentation_loads(tmp_path):
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    path = tmp_path / "my-exynos-2500.yaml"
    path.write_text(block)
    (rule,) = load_target(path).runtimes
    assert (rule.name, rule.delegate, rule.options) == ("executorch", "enn", {"chipset": "E9955"})
