"""The plugin: settings, checkpoints that tell their sizes, parts, facts, samples, the score, and compiled bundles."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.errors import EdgeSdkError, ModelError
from edge_sdk.models import load_model

torch = pytest.importorskip("torch")
pytest.importorskip("skimage")

SMALL = {"latent_dim": "8", "num_codes": "16", "hidden": "8", "input_size": "32", "iterations": "20"}


def refused(**settings: str) -> str:
    with pytest.raises(EdgeSdkError) as caught:
        load_model("scq", settings).parts()
    return str(caught.value)


def saved(folder: Path, **settings) -> str:
    from edge_sdk.models.scq.autoencoder import randomly_initialised

    network = randomly_initialised(3, **{"latent_dim": 8, "num_codes": 16, "hidden": 8, **settings})
    torch.save(network.state_dict(), folder / "best.pt")
    return str(folder / "best.pt")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codes": "2"}, "unknown setting 'codes'. Did you mean 'num_codes'?"),
        ({"quantizer": "vqq"}, "unknown quantizer 'vqq'. Did you mean 'vq'?"),
        ({"anchor": "zero"}, "unknown anchor 'zero'."),
        ({"task": "nav"}, "unknown task 'nav'. Did you mean 'nav_ar'?"),
        ({"scq_lambda": "0"}, "scq_lambda is '0'; expected a finite number above 0."),
        ({"scq_lambda": "much"}, "scq_lambda is 'much'"),
        ({"num_codes": "1"}, "num_codes is '1'; expected a whole number from 2 to 65536."),
        ({"iterations": "0"}, "iterations is '0'"),
        ({"stride": "6"}, "the stride is 6: give a power of 2, such as 8."),
        ({"input_size": "60"}, "input_size is 60, and the network's stride is 8: give a multiple, such as 56."),
        ({"checkpoint": "/no/best.pt"}, "there is no checkpoint at /no/best.pt."),
        ({"data": "/no/photos", **SMALL}, "there is no folder of photos at /no/photos"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, str], message: str):
    assert message in refused(**settings)


def test_three_parts_for_one_image_the_middle_one_in_float():
    parts = load_model("scq", SMALL).parts()
    assert [(part.name, part.input_names, part.output_names) for part in parts] == [
        ("encoder", ("image",), ("z",)),
        ("quantizer", ("z",), ("z_q",)),
        ("decoder", ("z_q",), ("image",)),
    ]
    assert [list(part.example_inputs[0].shape) for part in parts] == [[1, 3, 32, 32], [1, 8, 4, 4], [1, 8, 4, 4]]
    assert [bool(part.keeps_float) for part in parts] == [False, True, False]
    value = parts[0].example_inputs[0]
    for part in parts:
        value = part.module(value)
    assert value.shape == (1, 3, 32, 32)
    assert 0 <= value.min() <= value.max() <= 1


def test_without_a_quantizer_there_are_two_parts():
    model = load_model("scq", {**SMALL, "quantizer": "none"})
    assert [part.name for part in model.parts()] == ["encoder", "decoder"]
    assert model.facts() == {"quantizer": "none"}
    assert [sorted(sample) for sample in model.samples("reference")] == [["decoder", "encoder"]] * 4


def test_random_weights_are_told(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        load_model("scq", {**SMALL, "quantizer": "vq"}).parts()
    assert "scq has random weights: its images mean nothing. Give it --set checkpoint=PATH." in caplog.text


@pytest.mark.parametrize("quantizer", ["scq", "vq", "none"])
def test_a_checkpoint_alone_is_enough(tmp_path: Path, quantizer: str):
    path = saved(tmp_path, quantizer=quantizer, stride=4, scq_lambda=0.02)
    model = load_model("scq", {"checkpoint": path, "input_size": "32"})
    parts = model.parts()
    assert parts[-1].example_inputs[0].shape == (1, 8, 8, 8)
    facts = model.facts()
    assert facts["quantizer"] == quantizer
    assert facts.get("penalty") == (0.02 if quantizer == "scq" else None)


def test_settings_that_contradict_a_checkpoint_are_refused(tmp_path: Path):
    path = saved(tmp_path)
    assert f"latent_dim is 16, and the checkpoint {path} has 8. Leave latent_dim out." in refused(
        checkpoint=path, latent_dim="16"
    )
    assert "quantizer is none, and the checkpoint" in refused(checkpoint=path, quantizer="none")
    load_model("scq", {"checkpoint": path, "latent_dim": "8", "input_size": "32"}).parts()


def test_weights_of_another_model_are_refused(tmp_path: Path):
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    message = refused(checkpoint=str(tmp_path / "other.pt"))
    assert "1 unexpected (fc.weight)" in message
    assert "Give one that 'edge-sdk train scq' wrote, such as RUN/best.pt." in message


def test_what_decides_a_bundle_is_in_the_fingerprint(tmp_path: Path):
    path = saved(tmp_path)
    settings = [{}, {"iterations": "61"}, {"num_codes": "32"}, {"seed": "1"}, {"task": "nav_ar"}, {"checkpoint": path}]
    found = [json.dumps(dict(load_model("scq", one).fingerprint()), sort_keys=True) for one in settings]
    assert len(set(found)) == len(settings)
    assert load_model("scq", {}).fingerprint() == load_model("scq", {}).fingerprint()


@pytest.mark.parametrize("quantizer", ["scq", "vq"])
def test_facts_say_how_far_the_deployed_form_is_from_the_optimum(quantizer: str):
    model = load_model("scq", {**SMALL, "iterations": "60", "quantizer": quantizer})
    model.parts()
    facts = model.facts()
    assert 0 <= facts["z_q_error_mean"] <= facts["z_q_error_max"] < 0.2
    assert facts["z_q_error_mean"] < 0.02
    assert facts["z_q_error_latents"] == 1024
    assert facts["num_codes"] == 16
    assert facts.get("solver_iterations") == (60 if quantizer == "scq" else None)


def test_samples_feed_every_part_with_what_the_one_before_gives():
    model = load_model("scq", SMALL)
    encoder, quantizer, _ = (part.module for part in model.parts())
    samples = {purpose: model.samples(purpose) for purpose in ("calibration", "reference", "evaluation")}
    assert {purpose: len(found) for purpose, found in samples.items()} == {
        "calibration": 64,
        "reference": 4,
        "evaluation": 64,
    }
    image = samples["calibration"][5]["encoder"]["image"]
    assert image.dtype == np.float32
    assert 0 <= image.min() < image.max() <= 1
    z = encoder(torch.from_numpy(image))
    assert np.allclose(samples["calibration"][5]["quantizer"]["z"], z.detach(), atol=1e-5)
    assert np.allclose(samples["calibration"][5]["decoder"]["z_q"], quantizer(z).detach(), atol=1e-5)
    assert not any(np.array_equal(image, one["encoder"]["image"]) for one in samples["evaluation"])


def run(model, samples):
    """What the parts give in FP32."""
    with torch.no_grad():
        return [
            {
                part.name: {part.output_names[0]: part.module(torch.from_numpy(array)).numpy()}
                for part in model.parts()
                for array in sample[part.name].values()
            }
            for sample in samples
        ]


def test_the_score_carries_the_errors_of_all_parts_to_the_image():
    pytest.importorskip("torchmetrics")
    model = load_model("scq", {**SMALL, "quantizer": "vq"})
    samples = model.samples("evaluation")
    exact = run(model, samples)
    best = model.score(exact, exact)
    assert set(best) == {"psnr", "ssim", "psnr_fp32", "psnr_drop"}
    assert best["psnr"] == best["psnr_fp32"] > 5
    assert best["psnr_drop"] == 0
    for part, name in (("encoder", "z"), ("quantizer", "z_q"), ("decoder", "image")):
        found = [{**one, part: {name: one[part][name] + np.float32(0.3)}} for one in exact]
        assert model.score(found, exact)["psnr"] != best["psnr"]
    with pytest.raises(ModelError, match=r"is judged on 64 patches, and 3 outputs came"):
        model.score(exact[:3], exact[:3])


def test_a_photo_becomes_inputs(tmp_path: Path):
    Image = pytest.importorskip("PIL.Image")
    Image.new("RGB", (50, 40), (255, 0, 0)).save(tmp_path / "red.png")
    sample = load_model("scq", {**SMALL, "quantizer": "vq"}).preprocess(tmp_path / "red.png")
    assert sample["encoder"]["image"].shape == (1, 3, 32, 32)
    assert sample["encoder"]["image"][0, :, 0, 0].tolist() == [1, 0, 0]
    assert sample["decoder"]["z_q"].shape == (1, 8, 4, 4)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "runtime"), [("xnnpack-cpu", "executorch"), ("desktop-cpu", "onnxruntime")])
def test_a_bundle_in_int8_runs_whole_on_the_delegate_and_agrees_with_eager(tmp_path: Path, target: str, runtime: str):
    pytest.importorskip(runtime)
    from edge_sdk import api

    report = api.deploy(
        "scq", target=target, runtime=runtime, quantize="int8-static", settings=SMALL, out=tmp_path, device="local"
    )
    assert report.partition.fallback == []
    assert {one.layer.partition(".")[0] for one in report.quantization.skipped} == {"quantizer"}
    assert report.numerics.cosine > 0.99
    assert report.accuracy["psnr_drop"] < 0.5


def test_the_photos_of_training_judge_unless_others_are_named(tmp_path: Path):
    bare = Path(saved(tmp_path))
    told = {"state_dict": torch.load(bare, weights_only=True), "trained_on": {"data": "embedded", "task": "nav_ar"}}
    torch.save(told, tmp_path / "told.pt")
    chosen = {"checkpoint": str(tmp_path / "told.pt")}
    assert load_model("scq", chosen).task == "nav_ar"
    assert load_model("scq", {**chosen, "task": "food_ar"}).task == "food_ar"
    model = load_model("scq", {"checkpoint": str(bare)})
    assert (model.data, model.task) == ("embedded", "food_ar")
