"""What reading image tokens costs a language model at the least, against sizes and sums derived by hand."""

from __future__ import annotations

import pytest

from edge_sdk import load_target
from edge_sdk.errors import ModelError
from edge_sdk.profiling.language_model import LANGUAGE_MODELS, LanguageModel, readings
from edge_sdk.schema.report import Unavailable

SMALL = LanguageModel("small", layers=2, width=8, key_value_width=4, hidden=16, vocabulary=10)


def test_macs_and_bytes_are_those_counted_by_hand():
    # A layer: queries and output 8 x 8, keys and values 8 x 4, three matrices of 8 x 16.
    layer = 2 * 64 + 2 * 32 + 3 * 128
    assert SMALL.layer_weights == 2 * layer
    cost = SMALL.reading(3, "fp16")
    attention = 2 * 2 * 8 * (1 + 2 + 3)  # layers, keys and values, width, and what each token looks back on
    assert cost.macs == 3 * 2 * layer + attention + 8 * 10
    assert cost.weight_bytes == 2 * (2 * layer + 8 * 10)
    assert cost.activation_bytes == 3 * 2 * (8 + 2 * 2 * 4)
    assert SMALL.reading(3, "fp32").activation_bytes == 2 * cost.activation_bytes
    assert SMALL.reading(3, "int8").weight_bytes == cost.weight_bytes // 2


@pytest.mark.parametrize(("model", "parameters"), zip(LANGUAGE_MODELS, (1.1e9, 6.74e9), strict=True))
def test_the_models_have_as_many_parameters_as_their_names_say(model, parameters):
    with_tables = model.layer_weights + 2 * model.width * model.vocabulary
    assert with_tables == pytest.approx(parameters, rel=0.01)


def test_fewer_tokens_are_read_sooner_and_never_before_the_weights_are():
    target = load_target("jetson-agx-orin")
    gpu = target.unit("gpu")
    for found, model in zip(readings(target, gpu, "fp16", 576, 36, 64), LANGUAGE_MODELS, strict=True):
        assert isinstance(found.without_ms, float) and isinstance(found.with_ms, float)
        assert found.with_ms < found.without_ms
        weights_ms = 1e3 * model.reading(1, "fp16").weight_bytes / 204.8e9
        assert found.with_ms > weights_ms
        computing_ms = 1e3 * 2 * model.reading(640, "fp16").macs / 42.5e12
        assert found.without_ms == pytest.approx(computing_ms)


def test_a_target_without_peaks_gives_the_reason():
    target = load_target("desktop-cpu")
    (first, *_) = readings(target, target.units[0], "fp32", 576, 36, 64)
    assert isinstance(first.with_ms, Unavailable) and "desktop-cpu" in first.with_ms.unavailable


def test_no_tokens_are_refused():
    with pytest.raises(ModelError, match="to read 0 tokens; expected 1 or more"):
        SMALL.reading(0, "fp16")
