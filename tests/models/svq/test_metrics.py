"""Metrics of SVQ: equal to scikit-learn's where it has them, right at their ends, and strict about their input."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from sklearn.metrics import adjusted_rand_score, mutual_info_score  # noqa: E402

from edge_sdk.errors import ModelError  # noqa: E402
from edge_sdk.models.svq.metrics import (  # noqa: E402
    attribute_prediction,
    binned,
    fg_ari,
    match,
    mean_iou,
    mutual_information,
)


def label_maps(images: int = 12, side: int = 16, seed: int = 0):
    """Truth with 1 to 4 objects, and predictions of different quality."""
    draw = np.random.default_rng(seed)
    truth = np.stack([draw.integers(0, 2 + number % 4, (side, side)) for number in range(images)])
    noise = draw.integers(0, 6, truth.shape)
    predicted = np.where(draw.random(truth.shape) < np.linspace(0, 1, images)[:, None, None], truth, noise)
    return torch.from_numpy(truth), torch.from_numpy(predicted)


def test_fg_ari_equals_scikit_learns_on_the_foreground():
    truth, predicted = label_maps()
    expected = [adjusted_rand_score(a[a > 0], b[a > 0]) for a, b in zip(truth.numpy(), predicted.numpy(), strict=True)]
    assert fg_ari(truth, predicted).numpy() == pytest.approx(np.array(expected), abs=1e-12)


def test_fg_ari_at_its_ends():
    truth = torch.tensor([[[0, 1], [2, 2]]])
    assert fg_ari(truth, truth).item() == 1
    assert fg_ari(truth, torch.tensor([[[9, 7], [4, 4]]])).item() == 1, "the numbers of slots do not matter"
    assert fg_ari(truth, torch.tensor([[[3, 3], [3, 3]]])).item() == pytest.approx(0)
    alone = torch.tensor([[[0, 1], [1, 1]]])
    assert fg_ari(alone, torch.tensor([[[2, 5], [5, 5]]])).item() == 1, "one object in one slot"
    assert fg_ari(alone, torch.tensor([[[2, 5], [5, 4]]])).item() == 0, "one object in two slots"
    assert fg_ari(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 3]]])).item() == 1, "a single pixel"
    assert fg_ari(torch.zeros(1, 2, 2).long(), torch.ones(1, 2, 2).long()).isnan().item(), "no object"


def test_each_image_is_judged_on_its_own():
    truth, predicted = label_maps()
    for metric in (fg_ari, mean_iou):
        together = metric(truth, predicted)
        alone = torch.cat([metric(truth[[number]], predicted[[number]]) for number in range(len(truth))])
        assert torch.allclose(together, alone)


def test_mean_iou_by_hand():
    truth = torch.tensor([[[1, 1, 1, 1], [2, 2, 0, 0]]])
    predicted = torch.tensor([[[3, 3, 3, 0], [5, 5, 5, 5]]])
    assert mean_iou(truth, predicted).item() == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert mean_iou(truth, truth).item() == 1
    assert mean_iou(truth, torch.zeros_like(truth)).item() == pytest.approx(4 / 8 / 2), "one slot for two objects"
    assert mean_iou(torch.zeros(1, 2, 2).long(), torch.ones(1, 2, 2).long()).isnan().item()


def test_slots_are_matched_one_to_one():
    truth = torch.tensor([[[1, 1, 1, 1], [2, 2, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 3]]])
    predicted = torch.tensor([[[3, 3, 3, 0], [5, 5, 5, 5]], [[1, 1, 1, 1], [1, 1, 1, 2]]])
    assert match(truth, predicted).tolist() == [[3, 5, -1], [-1, -1, 2]]
    assert match(truth, predicted, objects=5).tolist() == [[3, 5, -1, -1, -1], [-1, -1, 2, -1, -1]]
    assert match(truth, torch.zeros_like(truth)).tolist() == [[0, -1, -1], [-1, -1, 0]], "a slot serves one object"
    with pytest.raises(ModelError, match="hold object 3: expected at most 2 objects"):
        match(truth, predicted, objects=2)


@pytest.mark.parametrize("metric", [fg_ari, mean_iou, match])
@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (
            torch.zeros(2, 4, 4),
            torch.zeros(2, 4, 4).long(),
            r"true_labels has shape \[2, 4, 4\] and type torch.float32",
        ),
        (torch.zeros(4, 4).long(), torch.zeros(4, 4).long(), r"true_labels has shape \[4, 4\]"),
        (torch.zeros(2, 4, 4).long(), torch.zeros(2, 1, 4, 4).long(), r"predicted has shape \[2, 1, 4, 4\]"),
        (torch.zeros(2, 4, 4).long(), torch.zeros(3, 4, 4).long(), "expected one shape"),
        (torch.zeros(1, 2, 2).long(), -torch.ones(1, 2, 2).long(), "predicted holds -1: expected labels from 0"),
        (torch.zeros(0, 2, 2).long(), torch.zeros(0, 2, 2).long(), r"true_labels has shape \[0, 2, 2\]"),
    ],
)
def test_wrong_label_maps_are_refused(metric, truth, predicted, message):
    with pytest.raises(ModelError, match=message):
        metric(truth, predicted)


def test_mutual_information_equals_scikit_learns():
    draw = np.random.default_rng(0)
    attributes = draw.integers(0, (3, 7), (400, 2))
    codes = np.stack([attributes[:, 0], draw.integers(0, 16, 400), (attributes.sum(1) + draw.integers(0, 2, 400))], 1)
    found = mutual_information(codes, torch.from_numpy(attributes))
    expected = np.array([[mutual_info_score(code, attribute) for attribute in attributes.T] for code in codes.T])
    assert found.bits == pytest.approx(expected / np.log(2), abs=1e-9)
    assert found.share[0, 0] == pytest.approx(1), "the block holds the whole attribute"
    assert found.share[1].max() < 0.12
    assert found.chance_bits[1] == pytest.approx(found.bits[1], abs=0.08), "a block without news is at chance"
    assert found.bits[2].min() > 2 * found.chance_bits[2].max()


def test_an_attribute_that_never_varies_shares_nothing():
    found = mutual_information(np.arange(8)[:, None], np.zeros((8, 1), int))
    assert found.bits == found.share == 0


def test_attributes_in_the_codes_are_predicted_and_others_are_not():
    draw = np.random.default_rng(0)
    attributes = np.stack([draw.integers(0, 4, 800), draw.choice(3, 800, p=(0.7, 0.2, 0.1)), np.ones(800, int)], 1)
    codes = np.stack(
        [draw.permutation(32)[attributes[:, 0] + 4 * draw.integers(0, 8, 800)], draw.integers(0, 8, 800)], 1
    )
    known, unknown, constant = attribute_prediction(codes, attributes)
    assert known.accuracy > 0.99 and known.majority < 0.4 and known.held_out == 200
    assert abs(unknown.accuracy - unknown.majority) < 0.08 and 0.6 < unknown.majority < 0.8
    assert constant.accuracy == constant.majority == 1


def test_codes_that_training_did_not_meet_are_no_error():
    codes = np.arange(40)[:, None]
    (found,) = attribute_prediction(codes, codes % 2)
    assert 0 <= found.accuracy <= 1


def test_values_are_sorted_into_equally_filled_classes():
    values = np.random.default_rng(0).normal(size=1000)
    classes = binned(torch.from_numpy(values), 4)
    assert np.bincount(classes).tolist() == [250] * 4
    assert values[classes == 0].max() < values[classes == 3].min()
    for given, bins in ((values, 1), (np.zeros((2, 2)), 4), (np.zeros(0), 4)):
        with pytest.raises(ModelError, match=r"cannot sort values \["):
            binned(given, bins)


@pytest.mark.parametrize(
    ("codes", "attributes", "message"),
    [
        (np.zeros((4, 2)) + 0.5, np.zeros((4, 1)), "codes has shape .* expected whole numbers from 0"),
        (np.zeros(4), np.zeros((4, 1)), r"codes has shape \[4\]"),
        (np.zeros((4, 2)), np.full((4, 1), np.nan), "attributes has shape"),
        (np.zeros((4, 2)), np.full((4, 1), "red"), "attributes has shape"),
        (np.zeros((4, 2)), -np.ones((4, 1)), "attributes has shape"),
        (np.zeros((0, 2)), np.zeros((0, 1)), r"codes has shape \[0, 2\]"),
        (np.zeros((4, 2)), np.zeros((5, 1)), "codes of 4 objects and attributes of 5"),
    ],
)
@pytest.mark.parametrize("metric", [mutual_information, attribute_prediction])
def test_wrong_codes_and_attributes_are_refused(metric, codes, attributes, message):
    with pytest.raises(ModelError, match=message):
        metric(codes, attributes)


def test_too_few_objects_to_predict_from_are_refused():
    with pytest.raises(ModelError, match="there are 4 objects: expected 8 or more"):
        attribute_prediction(np.zeros((4, 1)), np.zeros((4, 1)))
