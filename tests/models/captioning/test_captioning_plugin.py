"""Captioning as a model to compile: its parts in a row say what the captioner says; its data, its score, refusals."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edge_sdk.errors import EdgeSdkError  # noqa: E402
from edge_sdk.models import _photos, load_model  # noqa: E402
from edge_sdk.models._images import read_photo  # noqa: E402
from edge_sdk.models.captioning.network import LONGEST  # noqa: E402
from edge_sdk.models.captioning.plugin import Captioning  # noqa: E402

COUNTS = {"eval_images": "6", "calibration_images": "5"}


@pytest.fixture(scope="module")
def model(tiny_checkpoint) -> Captioning:
    found = load_model("captioning", {"checkpoint": str(tiny_checkpoint), **COUNTS})
    assert isinstance(found, Captioning)
    return found


def forward(part, arrays):
    with torch.no_grad():
        outputs = part.module(*(torch.from_numpy(arrays[name]) for name in part.input_names))
    return {name: value.numpy() for name, value in zip(part.output_names, outputs, strict=True)}


def outputs_of(model, samples):
    parts = model.parts()
    return [{part.name: forward(part, sample[part.name]) for part in parts} for sample in samples]


def test_importing_the_plugin_imports_no_torch():
    probe = "import sys, edge_sdk.models.captioning.plugin\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_parts_word_by_word_say_what_the_captioner_says(model):
    encoder, step = model.parts()
    (sample, *_) = model.samples("reference")
    image = sample["encoder"]["image"]
    known = forward(encoder, {"image": image})
    word, said = np.array([model.captioner.vocabulary.start]), []
    for _ in range(LONGEST):
        found = forward(step, {"word": word, **known})
        word = found["scores"].argmax(1)
        known |= {"hidden": found["next_hidden"], "cell": found["next_cell"]}
        said.append(int(word[0]))
        assert found["shares"].sum() == pytest.approx(1, abs=1e-5)
    assert model.captioner.caption(torch.from_numpy(image)) == [model.captioner.vocabulary.decode(said)]


def test_the_parts_hold_each_weight_once(model):
    encoder, step = (sum(value.numel() for value in part.module.parameters()) for part in model.parts())
    whole = sum(value.numel() for value in model.captioner.parameters())
    gates = model.captioner.decoder.decode_step.bias_ih.numel()  # two biases became one
    assert encoder + step == whole - gates


def test_every_example_input_is_contiguous(model):
    assert all(value.is_contiguous() for part in model.parts() for value in part.example_inputs)


def test_the_words_and_what_begins_and_ends_a_caption_travel_with_the_bundle(model):
    facts, words = model.facts(), list(model.labels)
    assert words[facts["start_word"]] == "<start>" and words[facts["end_word"]] == "<end>"
    assert facts["trained"] and facts["encoder"] == "resnet18"
    assert facts["mean_r"] == pytest.approx(0.485) and facts["std_b"] == pytest.approx(0.225)


def test_calibration_shares_no_photo_with_what_judges(model):
    calibration, evaluation = ({view.path for view, _ in model._photos(one)} for one in ("calibration", "evaluation"))
    assert calibration and evaluation and not calibration & evaluation
    assert calibration <= set(_photos.installed("calibration"))
    assert len(model.samples("calibration")) == 5 and len(model.samples("evaluation")) == 6


def test_samples_show_the_steps_of_real_captions(model):
    encoder, step = model.parts()
    for place, sample in enumerate(model.samples("evaluation")):
        known = forward(encoder, sample["encoder"])
        given = sample["decoder_step"]
        assert np.allclose(known["places"], given["places"], atol=1e-5)
        is_first = bool(np.allclose(known["hidden"], given["hidden"], atol=1e-5))
        assert is_first == (given["word"][0] == model.captioner.vocabulary.start)
        if place == 0:
            assert is_first


def test_the_score_is_whole_for_fp32_and_falls_with_either_part(model):
    fp32 = outputs_of(model, model.samples("evaluation"))
    score = model.score(fp32, fp32)
    assert score["same_words"] == score["same_captions"] == 1 and score["cider"] == score["cider_fp32"]
    others = [
        {**one, "decoder_step": {**one["decoder_step"], "scores": -one["decoder_step"]["scores"]}} for one in fp32
    ]
    assert model.score(others, fp32)["same_words"] == 0 and model.score(others, fp32)["same_captions"] == 1
    noise = np.random.default_rng(0)
    others = [
        {
            **one,
            "encoder": {
                name: noise.normal(size=value.shape).astype(np.float32) * 9 for name, value in one["encoder"].items()
            },
        }
        for one in fp32
    ]
    assert model.score(others, fp32)["same_captions"] < 1


def test_a_photo_is_captioned(model):
    photo = _photos.calibration_photos()[0]
    read_photo(photo)
    sample = model.preprocess(photo)
    (tag,) = model.postprocess(outputs_of(model, [sample])[0])
    assert tag.label == model.captioner.caption(torch.from_numpy(sample["encoder"]["image"]))[0]
    assert 0 < tag.score <= 1


def test_a_fingerprint_tells_other_weights_and_photos_apart(model, tiny_checkpoint):
    before = model.fingerprint()
    assert before == load_model("captioning", {"checkpoint": str(tiny_checkpoint), **COUNTS}).fingerprint()
    assert before != load_model("captioning", {"checkpoint": str(tiny_checkpoint)}).fingerprint()
    assert before != load_model("captioning", COUNTS).fingerprint()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"checkpoint": "/nowhere.pt"}, "there is no checkpoint at /nowhere.pt"),
        ({"encoder": "vgg"}, "unknown encoder 'vgg'"),
        ({"decoder_dim": "0"}, "decoder_dim is '0'; expected a whole number from 1"),
        ({"image_size": "100"}, "expected a multiple of 32"),
        ({"words": "9"}, "unknown setting 'words'"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, str], said: str):
    with pytest.raises(EdgeSdkError, match=said):
        load_model("captioning", settings).parts()


def test_a_checkpoint_decides_all_sizes(tiny_checkpoint, tmp_path):
    with pytest.raises(EdgeSdkError, match="leave decoder_dim, encoder out: the checkpoint decides"):
        load_model("captioning", {"checkpoint": str(tiny_checkpoint), "decoder_dim": "8", "encoder": "resnet18"})
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(EdgeSdkError, match="holds a list; expected what 'edge-sdk train captioning' wrote"):
        load_model("captioning", {"checkpoint": str(tmp_path / "list.pt")}).parts()
