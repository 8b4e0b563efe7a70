"""Photo tagging: the networks' sizes, random weights that behave, checkpoints that fit or are refused, and its data."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_coco

from edge_sdk.errors import ModelError
from edge_sdk.models import load_model

torch = pytest.importorskip("torch")

MODULE = "edge_sdk.models.photo_tagging"


def network(**settings: str):
    (part,) = load_model("photo_tagging", settings).parts()
    return part.module


@pytest.mark.parametrize(
    ("variant", "parameters"), [("resnet18", 11_217_552), ("resnet34", 21_325_712), ("resnet50", 23_671_952)]
)
def test_sizes_and_shapes(variant: str, parameters: int):
    (part,) = load_model("photo_tagging", {"variant": variant}).parts()
    assert sum(parameter.numel() for parameter in part.module.parameters()) == parameters
    assert (part.input_names, part.output_names) == (("image",), ("logits",))
    assert part.example_inputs[0].shape == (1, 3, 224, 224)
    with torch.no_grad():
        assert part.module(*part.example_inputs).shape == (1, 80)


def test_resnet50_strides_in_the_3x3_convolution():
    block = network(variant="resnet50").layer2[0]
    assert (block.conv1.stride, block.conv2.stride) == ((1, 1), (2, 2))


@pytest.mark.parametrize("variant", ["resnet18", "resnet50"])
def test_random_weights_keep_activations_in_range_and_tell_photos_apart(variant: str):
    pytest.importorskip("skimage")
    model = load_model("photo_tagging", {"variant": variant})
    photos = torch.cat([torch.from_numpy(sample["forward"]["image"]) for sample in model.samples("reference")])
    (part,) = model.parts()
    with torch.no_grad():
        logits = part.module(photos)
    assert 0.1 < logits.std() < 2
    between = torch.nn.functional.cosine_similarity(logits[:1], logits[1:])
    assert between.max() < 0.97


def test_random_weights_follow_the_seed_and_leave_torch_alone(caplog: pytest.LogCaptureFixture):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    with caplog.at_level(logging.WARNING, MODULE):
        first, again, other = (network(seed=seed).fc.weight for seed in ("3", "3", "4"))
    assert torch.rand(1) == expected
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert "random weights: its tags mean nothing" in caplog.text


def test_other_class_counts_and_sizes():
    model = load_model("photo_tagging", {"num_classes": "3", "input_size": "64"})
    (part,) = model.parts()
    assert part.example_inputs[0].shape == (1, 3, 64, 64)
    with torch.no_grad():
        assert part.module(*part.example_inputs).shape == (1, 3)
    assert model.labels == ["class 0", "class 1", "class 2"]


def test_tags_are_over_the_threshold_best_first_at_most_five():
    model = load_model("photo_tagging", {"threshold": "0.6"})
    logits = np.full((1, 80), -10, dtype=np.float32)
    logits[0, [0, 2, 79]] = (1, 0, 900)
    tags = model.postprocess({"forward": {"logits": logits}})
    assert [tag.label for tag in tags] == ["toothbrush", "person"]
    assert tags[0].score == 1
    assert tags[1].score == pytest.approx(1 / (1 + np.exp(-1)))
    assert len(model.postprocess({"forward": {"logits": logits + 50}})) == 5


def test_photos_are_normalised_as_imagenet_is(tmp_path: Path):
    Image = pytest.importorskip("PIL.Image")
    Image.new("RGB", (300, 400), (124, 116, 104)).save(tmp_path / "grey.png")
    array = load_model("photo_tagging", {}).preprocess(tmp_path / "grey.png")["forward"]["image"]
    assert array.shape == (1, 3, 224, 224)
    assert np.abs(array).max() < 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"varient": "resnet18"}, "unknown setting 'varient'. Did you mean 'variant'?"),
        ({"variant": "resnet51"}, "unknown variant 'resnet51'. Did you mean 'resnet50'?"),
        ({"num_classes": "many"}, "num_classes is 'many'; expected a whole number from 1 to 100000."),
        ({"num_classes": "0"}, "num_classes is '0'"),
        ({"input_size": "8"}, "input_size is '8'; expected a whole number from 32 to 2048."),
        ({"threshold": "2"}, "threshold is '2'; expected a number from 0 to 1."),
        ({"seed": "-1"}, "seed is '-1'"),
        ({"checkpoint": "/no/such.pth"}, "there is no checkpoint at /no/such.pth."),
        ({"self": "x"}, "unknown setting 'self'"),
    ],
)
def test_wrong_settings_are_refused(refusal, settings: dict[str, str], message: str):
    assert message in refusal("photo_tagging", **settings)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model."])
@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict"])
def test_checkpoints_of_the_usual_shapes_load(tmp_path: Path, prefix: str, key: str | None):
    source = network(seed="7").state_dict()
    state = {prefix + name: value for name, value in source.items()}
    torch.save({key: state, "epoch": 3} if key else state, tmp_path / "best.pth")
    loaded = network(checkpoint=str(tmp_path / "best.pth")).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in source.items())


def test_a_checkpoint_without_batch_counters_loads(tmp_path: Path):
    state = {name: value for name, value in network().state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "old.pth")
    network(checkpoint=str(tmp_path / "old.pth"))


def test_a_checkpoint_changes_the_fingerprint(tmp_path: Path):
    torch.save(network(seed="7").state_dict(), tmp_path / "a.pth")
    with_checkpoint = load_model("photo_tagging", {"checkpoint": str(tmp_path / "a.pth")}).fingerprint()
    without = load_model("photo_tagging", {}).fingerprint()
    seeded = load_model("photo_tagging", {"seed": "1"}).fingerprint()
    assert len({found["weights"] for found in (with_checkpoint, without, seeded)}) == 3


def test_another_class_count_is_explained(tmp_path: Path, refusal):
    torch.save(network(num_classes="20").state_dict(), tmp_path / "voc.pth")
    message = refusal("photo_tagging", checkpoint=str(tmp_path / "voc.pth"))
    assert "2 of another shape (fc.weight is [20, 512] instead of [80, 512]" in message
    assert "It holds a resnet18 with 20 classes: give --set num_classes=20." in message


def test_another_variant_is_explained(tmp_path: Path, refusal):
    torch.save(network(variant="resnet34").state_dict(), tmp_path / "34.pth")
    message = refusal("photo_tagging", checkpoint=str(tmp_path / "34.pth"))
    assert "unexpected (layer1.2.conv1.weight" in message
    assert "It holds a resnet34 with 80 classes: give --set variant=resnet34." in message
    assert len(message) < 600


def test_other_weights_are_listed_compactly(tmp_path: Path, refusal):
    torch.save({"backbone.weight": torch.ones(2)}, tmp_path / "other.pth")
    message = refusal("photo_tagging", checkpoint=str(tmp_path / "other.pth"))
    assert "missing (conv1.weight, bn1.weight, bn1.bias, ... 99 more)" in message
    assert "1 unexpected (backbone.weight)" in message
    assert "Expected the weights of resnet18" in message


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return (Path.touch, (self.proof,))


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path, refusal):
    torch.save({"state_dict": Hostile(tmp_path / "proof")}, tmp_path / "hostile.pth")
    message = refusal("photo_tagging", checkpoint=str(tmp_path / "hostile.pth"))
    assert "hostile.pth was refused" in message
    assert "anything else could run code" in message
    assert "torch.save(model.state_dict(), path)" in message
    assert not (tmp_path / "proof").exists()


def test_a_bare_pickle_is_refused(tmp_path: Path, refusal):
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Hostile(tmp_path / "proof"), protocol=2))
    assert "bare.pth was refused" in refusal("photo_tagging", checkpoint=str(tmp_path / "bare.pth"))
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"PK\x03\x04 half a zip"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, refusal, content: bytes):
    (tmp_path / "odd.pth").write_bytes(content)
    message = refusal("photo_tagging", checkpoint=str(tmp_path / "odd.pth"))
    assert "odd.pth" in message
    assert "torch.save(model.state_dict(), path)" in message


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, refusal):
    torch.save([1, 2], tmp_path / "list.pth")
    assert "holds a list, not weights by name" in refusal("photo_tagging", checkpoint=str(tmp_path / "list.pth"))
    torch.save({"epoch": 1}, tmp_path / "epoch.pth")
    message = refusal("photo_tagging", checkpoint=str(tmp_path / "epoch.pth"))
    assert "holds more than weights: 'epoch' is a int" in message


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    """A data set of four categories, 40 photos to train on and 48 to judge with."""
    return tiny_coco.write_coco(tmp_path_factory.mktemp("coco") / "coco")


def test_data_names_the_tags_and_sizes_the_network(coco):
    model = load_model("photo_tagging", {"data": str(coco), "input_size": "64"})
    assert list(model.labels or ()) == ["astronaut", "cat", "coffee", "rocket"]
    (part,) = model.parts()
    assert part.module.fc.out_features == 4
    tags = model.postprocess({"forward": {"logits": np.array([[9, -9, 2, -9]], np.float32)}})
    assert [tag.label for tag in tags] == ["astronaut", "coffee"]


def test_photos_of_the_train_split_calibrate_and_those_of_the_val_split_judge(coco):
    settings = {"data": str(coco), "input_size": "64", "calibration_images": "10", "eval_images": "0"}
    model = load_model("photo_tagging", settings)
    calibration, evaluation = model.samples("calibration"), model.samples("evaluation")
    assert (len(calibration), len(evaluation)) == (10, 48)
    assert len(model.samples("reference")) <= 4
    every_fourth = [coco / "train2017" / f"{number:012d}.jpg" for number in range(1, 41, 4)]
    for sample, path in zip(calibration, every_fourth, strict=True):
        assert np.array_equal(sample["forward"]["image"], model.preprocess(path)["forward"]["image"])
    judge = {"data": str(coco), "eval_images": "12"}
    assert len(load_model("photo_tagging", judge).samples("evaluation")) == 12


def test_the_score_is_that_of_the_labels_beside_fp32(coco):
    from edge_sdk.models.photo_tagging.coco import read_index
    from edge_sdk.profiling.multilabel import metrics

    model = load_model("photo_tagging", {"data": str(coco), "input_size": "64", "threshold": "0.3"})
    model.samples("evaluation")
    labels = read_index(coco, "val").labels
    random = np.random.default_rng(0)
    exact = labels * 4.0 - 2 + random.standard_normal(labels.shape)
    worse = exact + 2 * random.standard_normal(labels.shape)

    def outputs(logits: np.ndarray) -> list:
        return [{"forward": {"logits": row[None].astype(np.float32)}} for row in logits]

    found = model.score(outputs(worse), outputs(exact))
    assert found is not None
    expected = metrics(1 / (1 + np.exp(-worse)), labels, 0.3)
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-6)
    assert found["map_drop"] == pytest.approx(found["map_fp32"] - found["map"]) and found["map_drop"] > 0.01
    assert next(iter(found)) == "map"  # what --max-drop goes by


def test_without_data_there_is_nothing_to_judge_with():
    model = load_model("photo_tagging", {})
    assert model.samples("evaluation") == [] and model.score([], []) is None
    assert "data" not in (model.fingerprint() or {})


def test_the_data_is_in_the_fingerprint(coco, tmp_path):
    def told(root: Path, **settings: str) -> str:
        return (load_model("photo_tagging", {"data": str(root), **settings}).fingerprint() or {})["data"]

    first = told(coco)
    assert told(coco) == first
    assert told(coco, calibration_images="8") != first
    copy = Path(shutil.copytree(coco, tmp_path / "copy"))
    assert told(copy) == first
    photo = copy / "train2017" / "000000000001.jpg"
    shutil.copy(copy / "train2017" / "000000000002.jpg", photo)
    changed = told(copy)
    assert changed != first
    path = copy / "annotations" / "instances_val2017.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "annotations": document["annotations"][1:]}))
    assert told(copy) not in (first, changed)


def test_who_only_judges_needs_no_train_split(coco, tmp_path):
    copy = Path(shutil.copytree(coco, tmp_path / "copy"))
    shutil.rmtree(copy / "train2017")
    (copy / "annotations" / "instances_train2017.json").unlink()
    model = load_model("photo_tagging", {"data": str(copy)})
    assert model.fingerprint() and model.samples("evaluation")
    with pytest.raises(ModelError, match="is half there: it lacks annotations/instances_train2017.json"):
        model.samples("calibration")


def test_damaged_photos_are_left_out_with_their_labels(tmp_path, caplog):
    coco = tiny_coco.write_coco(tmp_path / "coco", train=2, val=110)
    (coco / "val2017" / "000000000003.jpg").write_bytes(b"\xff\xd8 half a photo")
    model = load_model("photo_tagging", {"data": str(coco), "input_size": "32"})
    with caplog.at_level(logging.WARNING, MODULE):
        samples = model.samples("evaluation")
    assert len(samples) == 109
    assert "an image is left out" in caplog.text and "000000000003.jpg" in caplog.text
    flat = [{"forward": {"logits": np.zeros((1, 4), np.float32)}}] * 109
    assert model.score(flat, flat)
    (coco / "val2017" / "000000000004.jpg").write_bytes(b"")
    with pytest.raises(ModelError, match=r"2 of 110 images cannot be read, which is more than 1% \(000000000003.jpg"):
        load_model("photo_tagging", {"data": str(coco), "input_size": "32"}).samples("evaluation")


def test_other_categories_in_the_train_split_are_refused(coco, tmp_path):
    copy = Path(shutil.copytree(coco, tmp_path / "copy"))
    path = copy / "annotations" / "instances_train2017.json"
    path.write_text(path.read_text().replace('"coffee"', '"tea"'))
    model = load_model("photo_tagging", {"data": str(copy)})
    with pytest.raises(ModelError, match="the train split has 4 categories and the val split 4, or others"):
        model.samples("calibration")


def test_wrong_settings_of_data_are_refused(coco, tmp_path, refusal):
    assert "num_classes is 80, and" in refusal("photo_tagging", data=str(coco), num_classes="80")
    assert "has 4 categories (astronaut, cat, coffee, ...). Leave num_classes out." in refusal(
        "photo_tagging", data=str(coco), num_classes="80"
    )
    assert "eval_images is 'all'; expected a whole number from 0" in refusal(
        "photo_tagging", data=str(coco), eval_images="all"
    )
    assert "eval_images counts images of data, and none was given" in refusal("photo_tagging", eval_images="3")
    assert "is not there: it needs annotations" in refusal("photo_tagging", data=str(tmp_path / "nothing"))


def test_a_checkpoint_of_other_classes_than_the_data_is_refused(coco, tmp_path, refusal):
    torch.save(network(num_classes="20").state_dict(), tmp_path / "voc.pth")
    message = refusal("photo_tagging", data=str(coco), checkpoint=str(tmp_path / "voc.pth"))
    assert "2 of another shape (fc.weight is [20, 512] instead of [4, 512], fc.bias is [20] instead of [4])" in message
    assert "It holds 20 classes, and" in message and "has 4 categories." in message
    torch.save(network(num_classes="4", variant="resnet34").state_dict(), tmp_path / "34.pth")
    message = refusal("photo_tagging", data=str(coco), checkpoint=str(tmp_path / "34.pth"))
    assert "give --set variant=resnet34" in message


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (("resnet18", "int8-static", "xnnpack", "model.pte"), "resnet18_multilabel_int8_xnnpack.pte"),
        (("resnet50", "int8-static", "nnapi", "forward.onnx"), "resnet50_multilabel_int8_nnapi.onnx"),
        (("resnet18", "int8-lsq", "xnnpack", "model.pte"), "resnet18_multilabel_qat_xnnpack.pte"),
        (("resnet34", "fp32", "xnnpack", "model.pte"), "resnet34_multilabel_fp32_xnnpack.pte"),
        (("resnet18", "int4-weight", "cpu", "forward.onnx"), "resnet18_multilabel_int4_weight_cpu.onnx"),
    ],
)
def test_program_names_follow_the_pattern(given, name):
    variant, *rest = given
    assert load_model("photo_tagging", {"variant": variant}).program_name(*rest) == name
