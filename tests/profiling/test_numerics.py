"""Distances between outputs, against numpy, and outputs that cannot be compared."""

from __future__ import annotations

import numpy as np
import pytest

from edge_sdk.errors import DeviceError
from edge_sdk.profiling.numerics import compare
from edge_sdk.schema.manifest import PartSpec, TensorSpec


def part(name: str, *outputs: str) -> PartSpec:
    specs = [TensorSpec(name=output, dtype="float32", shape=[1, 4]) for output in outputs]
    return PartSpec(name=name, program="p", entry="e", inputs=[], outputs=specs)


ONE = [part("forward", "y")]
KEY = "forward/outputs/y"


def test_figures_over_all_samples_and_outputs_of_a_part():
    generator = np.random.default_rng(0)
    reference = {f"forward/outputs/{name}": generator.normal(size=(3, 1, 4)).astype("f") for name in "yz"}
    outputs = {key: value + generator.normal(size=value.shape).astype("f") / 10 for key, value in reference.items()}
    found = compare([part("forward", "y", "z")], reference, outputs)
    a = np.concatenate([reference[key].ravel() for key in reference]).astype(float)
    b = np.concatenate([outputs[key].ravel() for key in reference]).astype(float)
    assert found.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert found.max_abs_err == pytest.approx(np.abs(a - b).max())
    assert found.sqnr_db == pytest.approx(10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()))
    assert found.reference == "FP32 eager outputs of 3 samples in the bundle"


def test_equal_outputs():
    array = np.arange(8, dtype="f").reshape(2, 4)
    found = compare(ONE, {KEY: array}, {KEY: array.copy()})
    assert (found.cosine, found.max_abs_err, found.sqnr_db) == (pytest.approx(1), 0, None)


def test_each_figure_is_that_of_its_worst_part():
    reference = {"a/outputs/y": np.array([[1.0, 0.0]]), "b/outputs/y": np.array([[100.0, 0.0]])}
    outputs = {"a/outputs/y": np.array([[1.0, 0.5]]), "b/outputs/y": np.array([[102.0, 0.0]])}
    found = compare([part("a", "y"), part("b", "y")], reference, outputs)
    assert found.cosine == pytest.approx(1 / np.sqrt(1.25))
    assert found.max_abs_err == 2
    assert found.sqnr_db == pytest.approx(10 * np.log10(1 / 0.25))


def test_half_precision_is_compared_in_double():
    reference = {KEY: np.full((1, 4), 60000.0, dtype=np.float32)}
    found = compare(ONE, reference, {KEY: np.full((1, 4), 59000, dtype=np.float16)})
    assert found.max_abs_err == pytest.approx(1008, abs=20) and found.cosine == pytest.approx(1)


def test_a_reference_of_zeros():
    zeros = np.zeros((1, 4))
    assert compare(ONE, {KEY: zeros}, {KEY: zeros}).cosine == 1
    found = compare(ONE, {KEY: zeros}, {KEY: np.ones((1, 4))})
    assert (found.cosine, found.sqnr_db) == (0, -300)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_a_clear_failure(bad):
    output = np.array([[1.0, bad, 3.0, 4.0]])
    with pytest.raises(DeviceError, match="output 'forward/outputs/y' holds NaN or infinity in 1 of 4 values"):
        compare(ONE, {KEY: np.ones((1, 4))}, {KEY: output})


def test_a_mask_of_minus_infinity_must_be_the_same():
    masked = np.array([[1.0, -np.inf, 3.0, 4.0]])
    assert compare(ONE, {KEY: masked}, {KEY: masked.copy()}).max_abs_err == 0
    with pytest.raises(DeviceError, match="differs from the reference where that is infinite"):
        compare(ONE, {KEY: masked}, {KEY: np.ones((1, 4))})


def test_another_shape():
    with pytest.raises(DeviceError, match=r"has the shape \[1, 3\], the reference \[1, 4\]"):
        compare(ONE, {KEY: np.ones((1, 4))}, {KEY: np.ones((1, 3))})


def test_a_missing_output():
    with pytest.raises(DeviceError, match=r"wrote no output 'forward/outputs/y'; it wrote other\."):
        compare(ONE, {KEY: np.ones((1, 4))}, {"other": np.ones((1, 4))})


def test_text_instead_of_numbers():
    with pytest.raises(DeviceError, match="has the type <U1; expected numbers"):
        compare(ONE, {KEY: np.ones((1, 4))}, {KEY: np.array([["a"] * 4])})
