"""SVQ as a model to compile: its parts, its data, its score, the checkpoint that decides, and what is refused."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.errors import ModelError
from edge_sdk.models import load_model
from edge_sdk.models.svq.plugin import Svq

torch = pytest.importorskip("torch")

TINY = {
    "input_size": "16",
    "num_slots": "3",
    "num_iterations": "2",
    "slot_size": "16",
    "hidden_dim": "16",
    "num_codebooks": "2",
    "codebook_size": "8",
    "code_dim": "8",
    "eval_images": "6",
    "calibration_images": "5",
}


def svq(**settings: str) -> Svq:
    model = load_model("svq", settings)
    assert isinstance(model, Svq)
    return model


@pytest.fixture(scope="module")
def model() -> Svq:
    return svq(**TINY)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a size of their own, as training writes them."""
    from edge_sdk.models.svq.network import SVQ

    network = SVQ(image_size=16, num_slots=2, slot_size=16, hidden_dim=16, num_codebooks=2, codebook_size=4, code_dim=8)
    data = {"dataset_name": "dsprites", "image_size": 16, "max_shapes": 2, "seed": 3, "root": ""}
    path = tmp_path_factory.mktemp("svq") / "best.pt"
    torch.save({**network.checkpoint(), "data": data}, path)
    return path


def by_name(model) -> dict:
    return {part.name: part for part in model.parts()}


def forward(part, arrays):
    with torch.no_grad():
        outputs = part.module(*(torch.from_numpy(arrays[name]) for name in part.input_names))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return {name: value.numpy() for name, value in zip(part.output_names, outputs, strict=True)}


def test_importing_the_plugin_imports_no_torch():
    probe = "import sys, edge_sdk.models.svq.plugin, edge_sdk.models.svq._system\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_parts_in_a_row_do_what_the_network_does(model):
    parts = by_name(model)
    assert list(parts) == ["features", "slots", "decoder", "prior_step"]
    assert [bool(part.keeps_float) for part in parts.values()] == [False, True, False, True]
    (sample, *_) = model.samples("reference")
    image = sample["features"]
    features = forward(parts["features"], image)
    codes = forward(parts["slots"], features)
    drawn = forward(parts["decoder"], codes)
    with torch.no_grad():
        whole = model.network(torch.from_numpy(image["image"]))
    assert np.array_equal(codes["codes"], whole["indices"].numpy())
    assert np.allclose(drawn["image"], whole["recon"].numpy(), atol=1e-6)
    assert np.allclose(drawn["masks"], whole["masks"].numpy(), atol=1e-6)


def test_every_example_input_is_contiguous(model):
    """A runtime's kernels refuse tensors whose dimensions lie in another order than they say."""
    assert all(value.is_contiguous() for part in model.parts() for value in part.example_inputs)


def test_a_step_of_the_prior_goes_on_from_what_came_before(model):
    step = by_name(model)["prior_step"]
    samples = model.samples("evaluation")
    codes = torch.from_numpy(np.concatenate([one["decoder"]["codes"] for one in samples]))
    with torch.no_grad():
        logits = model.network.prior(codes).flatten(1, 2)
    assert [int(one["prior_step"]["position"][0]) for one in samples] == [0, 1, 2, 3, 4, 5]
    for place, sample in enumerate(samples):
        found = forward(step, sample["prior_step"])
        assert np.allclose(found["logits"][0], logits[place, place].numpy(), atol=1e-5)


def test_calibration_and_evaluation_share_no_image(model):
    counts = {purpose: len(model.samples(purpose)) for purpose in ("calibration", "evaluation", "reference")}
    assert counts == {"calibration": 5, "evaluation": 6, "reference": 4}
    seen = {one["features"]["image"].tobytes() for one in model.samples("calibration")}
    assert not seen & {one["features"]["image"].tobytes() for one in model.samples("evaluation")}


def test_the_score_counts_slots_whose_codes_changed_here_or_would_further_on():
    model = svq(**TINY)
    parts = by_name(model)
    samples = model.samples("evaluation")
    # One step of training puts the codes on slots of these images; untrained, all images have the same codes.
    torch.manual_seed(0)
    with torch.no_grad():
        model.network.train()(torch.from_numpy(np.concatenate([one["features"]["image"] for one in samples])))
        model.network.eval()
    exact = [{name: forward(parts[name], one[name]) for name in parts} for one in samples]
    found = model.score(exact, exact)
    assert found["same_codes"] == 1 and found["psnr_drop"] == 0
    assert -1 <= found["fg_ari"] <= 1 and -1 <= found["fg_ari_all"] <= 1
    assert next(iter(found)) == "same_codes", "an accuracy budget goes by the first"
    codes = torch.tensor([one["decoder"]["codes"].ravel()[place] for place, one in enumerate(samples)])
    logits = torch.from_numpy(np.concatenate([one["prior_step"]["logits"] for one in exact]))
    bits = torch.nn.functional.cross_entropy(logits, codes) / np.log(2)
    assert found["bits_per_code"] == found["bits_per_code_fp32"] == pytest.approx(float(bits), rel=1e-5)
    other = {"codes": exact[0]["slots"]["codes"].copy()}
    other["codes"][0, 0, 0] += 1
    changed = [{**exact[0], "slots": other}, *exact[1:]]
    assert model.score(changed, exact)["same_codes"] == pytest.approx(1 - 1 / 18)
    noise = 100 * np.random.default_rng(0).standard_normal(exact[0]["features"]["features"].shape).astype(np.float32)
    moved = [{**one, "features": {"features": noise}} for one in exact]
    assert model.score(moved, exact)["same_codes"] < 1


def test_a_checkpoint_decides_sizes_and_data(checkpoint: Path):
    model = svq(checkpoint=str(checkpoint), eval_images="3", calibration_images="2")
    assert [part.name for part in model.parts()] == ["features", "slots", "decoder"], "it has no prior"
    (sample, *_) = model.samples("evaluation")
    assert sample["features"]["image"].shape == (1, 3, 16, 16) and sample["decoder"]["codes"].shape == (1, 2, 2)
    assert model._splits[1].attribute_table[-1].name == "angle", "the sprites that it was trained on"
    assert model.facts()["bits_per_image"] == 2 * 2 * 2
    other = svq(checkpoint=str(checkpoint), data="shapes", eval_images="3")
    assert other._splits[1].attribute_table[1].name == "colour"


def test_random_weights_follow_the_seed_and_leave_torch_alone(caplog: pytest.LogCaptureFixture):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    with caplog.at_level(logging.WARNING, "edge_sdk.models.svq"):
        first, again, other = (svq(**TINY, seed=seed).network.encoder.mean for seed in "334")
    assert torch.rand(1) == expected
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert "svq has random weights: its codes mean nothing" in caplog.text


def test_the_fingerprint_tells_checkpoints_data_and_sizes_apart(checkpoint: Path):
    settings = ({}, {"num_slots": "6"}, {"data": "dsprites"}, {"checkpoint": str(checkpoint)}, {"prior": "false"})
    found = [str(svq(**some).fingerprint()) for some in settings]
    assert len(set(found)) == len(found) and found[0] == str(svq().fingerprint())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"slots": "3"}, "unknown setting 'slots'"),
        ({"num_slots": "0"}, "num_slots is '0'; expected a whole number from 1 to 64"),
        ({"decoder": "cn"}, "unknown decoder 'cn'. Did you mean 'cnn'?"),
        ({"data": "shape"}, "unknown data 'shape'. Did you mean 'shapes'?"),
        ({"data": "folder"}, "give --set data=folder --set root=PATH together, or neither"),
        ({"root": "x"}, "give --set data=folder --set root=PATH together, or neither"),
        ({"checkpoint": "nowhere.pt"}, "there is no checkpoint at nowhere.pt"),
        ({"input_size": "20"}, "image_size is 20; expected a multiple of 8"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, str], message: str, refusal):
    assert message in refusal("svq", **settings)


def test_checkpoints_that_do_not_fit(checkpoint: Path, tmp_path: Path, refusal):
    said = refusal("svq", checkpoint=str(checkpoint), num_slots="5")
    assert "num_slots is 5, and checkpoint " in said and "has 2. Leave num_slots out: the checkpoint decides." in said
    content = torch.load(checkpoint, weights_only=True)
    torch.save(content["state_dict"], tmp_path / "weights.pt")
    assert "has no 'state_dict'" in refusal("svq", checkpoint=str(tmp_path / "weights.pt"))
    torch.save([1], tmp_path / "list.pt")
    assert "holds a list; expected what edge-sdk train svq wrote" in refusal(
        "svq", checkpoint=str(tmp_path / "list.pt")
    )
    from edge_sdk.models.svq.network import SVQ

    torch.save(SVQ(image_size=16, quantize="none").checkpoint(), tmp_path / "none.pt")
    assert "has no codes" in refusal("svq", checkpoint=str(tmp_path / "none.pt"))


def test_photos_are_cut_to_the_networks_size(model, tmp_path: Path):
    from PIL import Image

    Image.new("RGB", (40, 30), (255, 0, 0)).save(tmp_path / "red.png")
    sample = model.preprocess(tmp_path / "red.png")
    assert sample["features"]["image"].shape == (1, 3, 16, 16) and sample["features"]["image"][0, 0].min() == 1
    with pytest.raises(ModelError, match="there is no photo at"):
        model.preprocess(tmp_path / "nothing.png")


def test_a_folders_images_decide_the_fingerprint(tmp_path: Path):
    from PIL import Image

    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        Image.new("L", (32, 32)).save(tmp_path / folder / "1.png")
    model = {"data": "folder", "root": str(tmp_path)}
    before = svq(**model).fingerprint()
    assert svq(**model).fingerprint() == before
    Image.new("L", (32, 32), 9).save(tmp_path / "images" / "2.png")
    assert svq(**model).fingerprint() != before
    assert svq(eval_images="3").fingerprint() != svq(eval_images="4").fingerprint()


def test_a_prior_is_not_asked_for_beside_a_checkpoint(checkpoint: Path):
    with pytest.raises(ModelError, match="leave prior out"):
        svq(checkpoint=str(checkpoint), prior="false")
