"""Photo tagging: the networks' sizes, random weights that behave, checkpoints that fit or are refused."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest

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
