"""INT8 models whose last linear layer gives its results in float: no two inputs get the same score by rounding."""

from __future__ import annotations

import numpy as np
import pytest
from _models import conv_model, flat, run, torch

import edge_sdk
from edge_sdk.errors import UnsupportedError

pytest.importorskip("torchao", reason="torchao is not installed: pip install 'edge-sdk[onnxruntime]'")


def compiled(runtime: str, outputs: str, target: str = "desktop-cpu"):
    settings = {"quantize.outputs": outputs}
    return edge_sdk.compile(conv_model(), target, runtime=runtime, quantize="int8-static", settings=settings)


@pytest.mark.parametrize("runtime", ["executorch", "onnxruntime"])
def test_results_lie_on_no_grid_and_are_as_right(runtime: str):
    samples = conv_model().samples("calibration")
    (part,) = conv_model().parts()
    exact = np.concatenate([part.module(torch.from_numpy(one["forward"]["x"])).detach().numpy() for one in samples])
    found = {how: flat(run(compiled(runtime, how), samples)).reshape(exact.shape) for how in ("int8", "float")}
    levels = {how: len(np.unique(values)) for how, values in found.items()}
    assert levels["int8"] <= 256 and levels["float"] > 0.95 * exact.size > levels["int8"]
    errors = {how: float(np.abs(values - exact).mean()) for how, values in found.items()}
    assert errors["float"] < 1.5 * errors["int8"]


def test_xnnpack_takes_the_layer_whole():
    partition = compiled("executorch", "float").manifest.partition
    assert partition.pieces == 1 and not partition.fallback


def test_a_delegate_of_integers_alone_refuses():
    with pytest.raises(UnsupportedError, match="nnapi gives the results of an INT8 layer in INT8: take outputs=int8"):
        compiled("auto", "float", "galaxy-s24-npu")
