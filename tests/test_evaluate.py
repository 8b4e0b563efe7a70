"""Evaluation: the same figures whatever form a tagger has, and as other libraries compute them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_coco
from devices_remotes import BOARD, PHONE, remote
from tiny_coco import SIZE

import edge_sdk
from edge_sdk.errors import BundleError, DeviceError, EdgeSdkError, ModelError, UnsupportedError
from edge_sdk.evaluation.bootstrap import map_difference
from edge_sdk.profiling.multilabel import average_precisions, metrics

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'edge-sdk[executorch]'")
torch.set_num_threads(1)

SETTINGS = {"input_size": str(SIZE)}


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    return tiny_coco.write_coco(tmp_path_factory.mktemp("coco") / "coco")


@pytest.fixture(scope="module")
def checkpoint(coco, tmp_path_factory) -> Path:
    return tiny_coco.write_tagger(coco, tmp_path_factory.mktemp("tagger") / "best.pt")


@pytest.fixture(scope="module")
def onnx(coco, tmp_path_factory) -> tuple[Path, np.ndarray]:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'edge-sdk[onnxruntime]'")
    path = tmp_path_factory.mktemp("onnx") / "tagger.onnx"
    return path, tiny_coco.write_onnx(coco, path)


@pytest.fixture
def broken(coco, tmp_path) -> Path:
    """A copy of the data to damage."""
    return Path(shutil.copytree(coco, tmp_path / "broken"))


def labels_of(coco: Path) -> np.ndarray:
    from edge_sdk.models.photo_tagging.coco import read_index

    return read_index(coco, "val").labels


def refusal(*arguments, error: type[EdgeSdkError] = ModelError, **options) -> str:
    with pytest.raises(error) as caught:
        edge_sdk.evaluate(*arguments, **options)
    return str(caught.value)


def test_a_checkpoint_has_the_metrics_of_its_network(coco, checkpoint):
    model = edge_sdk.models.load_model("photo_tagging", {**SETTINGS, "data": str(coco), "checkpoint": str(checkpoint)})
    images = torch.cat([torch.from_numpy(one["forward"]["image"]) for one in model.samples("evaluation")])
    with torch.no_grad():
        expected = torch.sigmoid(model.network()(images)).numpy()
    result = edge_sdk.evaluate(checkpoint, coco, settings=SETTINGS)
    assert result.judged.metrics.model_dump() == pytest.approx(metrics(expected, labels_of(coco)), abs=1e-6)
    assert result.judged.metrics.map > 0.7  # it has learned something, so the figures can move
    assert (result.images, result.skipped, result.against, result.difference) == (48, [], None, None)
    assert (result.judged.kind, result.judged.device) == ("checkpoint", "local")
    assert result.judged.size_bytes == checkpoint.stat().st_size


def test_an_onnx_file_has_the_metrics_that_other_libraries_find(coco, onnx):
    sklearn = pytest.importorskip("sklearn.metrics")
    theirs = pytest.importorskip("torchmetrics.classification")
    path, logits = onnx
    result = edge_sdk.evaluate(path, coco, threshold=0.4)
    found, labels = result.judged.metrics, labels_of(coco)
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    areas = [sklearn.average_precision_score(labels[:, c], scores[:, c]) for c in range(4)]
    assert list(result.judged.average_precision.values()) == pytest.approx(areas, abs=1e-6)
    given = torch.from_numpy(scores), torch.from_numpy(labels).int()
    assert found.map == pytest.approx(float(theirs.MultilabelAveragePrecision(4)(*given)), abs=1e-6)
    for name in ("Precision", "Recall", "F1Score"):
        value = getattr(theirs, f"Multilabel{name}")(4, threshold=0.4)(*given)
        assert getattr(found, name.removesuffix("Score").lower()) == pytest.approx(float(value), abs=1e-6)
    assert result.judged.runtime.startswith("onnxruntime 1.")
    assert (result.judged.kind, result.judged.method, result.judged.input_size) == ("onnx", None, [SIZE, SIZE])


def test_two_taggers_are_judged_on_the_same_images(coco, checkpoint, onnx):
    path, _ = onnx
    result = edge_sdk.evaluate(path, coco, against=checkpoint)  # which takes images of the program's size
    assert result.against is not None and result.difference is not None
    assert result.against.input_size == [SIZE, SIZE]
    assert result.against.metrics == edge_sdk.evaluate(checkpoint, coco, settings=SETTINGS).judged.metrics
    difference = result.judged.metrics.map - result.against.metrics.map
    assert result.difference.value == pytest.approx(difference, abs=1e-12)
    assert result.difference.ci95[0] < difference < result.difference.ci95[1]


def test_images_pass_in_pieces(coco, onnx, monkeypatch):
    path, _ = onnx
    whole = edge_sdk.evaluate(path, coco)
    monkeypatch.setattr("edge_sdk.evaluation.evaluate._PIECE_BYTES", 20 * 3 * SIZE * SIZE * 4)
    said: list[str] = []
    assert edge_sdk.evaluate(path, coco, progress=said.append).judged.metrics == whole.judged.metrics
    assert [line for line in said if "images" in line] == [
        "tagger.onnx on local: 20 of 48 images",
        "tagger.onnx on local: 40 of 48 images",
        "tagger.onnx on local: 48 of 48 images",
    ]


@pytest.mark.parametrize("kind", [BOARD, PHONE])
def test_on_a_device_the_metrics_are_the_same(coco, onnx, kind, tmp_path, monkeypatch):
    path, _ = onnx
    here = edge_sdk.evaluate(path, coco, limit=16)
    with remote(kind, tmp_path, monkeypatch) as far:
        there = edge_sdk.evaluate(path, coco, limit=16, device=far.uri)
        assert far.left_behind() == []
    assert there.judged.device == far.uri and there.judged.runtime.startswith("onnxruntime 1.")
    assert there.judged.metrics == here.judged.metrics


def test_a_limit_takes_images_evenly(coco, checkpoint):
    result = edge_sdk.evaluate(checkpoint, coco, settings=SETTINGS, limit=12)
    assert result.images == 12
    assert edge_sdk.evaluate(checkpoint, coco, settings=SETTINGS, limit=1000).images == 48


@pytest.mark.slow
def test_a_pte_and_its_bundle_have_the_metrics_of_the_eager_network(coco, checkpoint, tmp_path):
    pytest.importorskip("executorch", reason="executorch is not installed: pip install 'edge-sdk[executorch]'")
    settings = {**SETTINGS, "data": str(coco), "checkpoint": str(checkpoint)}
    bundle = edge_sdk.compile("photo_tagging", "xnnpack-cpu", settings=settings, out=tmp_path)
    result = edge_sdk.evaluate(bundle.path, coco, against=checkpoint)
    assert result.against is not None
    assert result.judged.metrics.model_dump() == pytest.approx(result.against.metrics.model_dump(), abs=2e-3)
    assert (result.judged.name, result.judged.kind, result.judged.method) == ("fp32", "bundle", "fp32")
    bare = tmp_path / "resnet18_multilabel_fp32_xnnpack.pte"
    shutil.copy(bundle.path / "model.pte", bare)
    assert edge_sdk.evaluate(bare, coco, settings=SETTINGS).judged.metrics == result.judged.metrics

    message = refusal(bare, coco, error=DeviceError)
    assert "It was given images of 224 by 224 pixels; if it takes others, say so: --set input_size=PIXELS." in message
    assert "takes images of 64 pixels, and input_size is 32. Leave it out." in refusal(
        bundle.path, coco, settings={"input_size": "32"}
    )
    document = coco / "annotations" / "instances_val2017.json"
    other = Path(shutil.copytree(coco, tmp_path / "other"))
    (other / "annotations" / document.name).write_text(document.read_text().replace('"coffee"', '"tea"'))
    assert "has the tag 'coffee' at place 3, where the data has 'tea'" in refusal(bundle.path, other)


def test_an_lsq_checkpoint_is_judged_as_it_was_trained(coco, checkpoint, tmp_path):
    lsq = pytest.importorskip("edge_sdk.quantization.lsq")
    settings = {**SETTINGS, "data": str(coco), "checkpoint": str(checkpoint)}
    model = edge_sdk.models.load_model("photo_tagging", settings)
    images = torch.cat([torch.from_numpy(one["forward"]["image"]) for one in model.samples("calibration")])
    network = lsq.LsqNetwork(model.network(), images[:1], lsq.Recipe())
    network.initialise(images)
    network.save(tmp_path / "best.lsq.pt", variant="resnet18")
    result = edge_sdk.evaluate(tmp_path / "best.lsq.pt", coco, against=checkpoint, settings=SETTINGS)
    assert (result.judged.kind, result.judged.name) == ("lsq checkpoint", "LSQ 8-bit, fake-quantized")
    assert result.difference is not None and abs(result.difference.value) < 0.05


def test_a_corrupt_image_is_skipped_counted_and_named(tmp_path, checkpoint):
    coco = tiny_coco.write_coco(tmp_path / "coco", train=1, val=120)
    image = coco / "val2017" / "000000000007.jpg"
    image.write_bytes(image.read_bytes()[:500])
    result = edge_sdk.evaluate(checkpoint, coco, against=checkpoint, settings=SETTINGS)
    assert result.images == 119
    assert [one.file for one in result.skipped] == [image.name]
    assert f"{image} cannot be read" in result.skipped[0].reason
    assert result.difference is not None and result.difference.value == 0
    (coco / "val2017" / "000000000009.jpg").write_bytes(b"no image")
    message = refusal(checkpoint, coco, settings=SETTINGS)
    assert "2 of 120 images cannot be read, which is more than 1% (000000000007.jpg, 000000000009.jpg)" in message


def test_data_without_any_tag_is_refused(broken, checkpoint):
    path = broken / "annotations" / "instances_val2017.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "annotations": []}))
    assert "none of the 48 images to judge with has a category" in refusal(checkpoint, broken, settings=SETTINGS)


def test_a_class_that_no_image_has_has_no_figure(broken, checkpoint):
    path = broken / "annotations" / "instances_val2017.json"
    document = json.loads(path.read_text())
    kept = [one for one in document["annotations"] if one["category_id"] != 1]
    path.write_text(json.dumps({**document, "annotations": kept}))
    result = edge_sdk.evaluate(checkpoint, broken, settings=SETTINGS)
    assert result.judged.average_precision["astronaut"] is None
    others = [value for value in result.judged.average_precision.values() if value is not None]
    assert result.judged.metrics.map == pytest.approx(np.mean(others))


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("missing.pt", None, ModelError, "there is nothing to evaluate at"),
        ("notes.txt", b"x", ModelError, "its ending is '.txt'; expected a checkpoint (.pt, .pth), a bundle NAME.edge"),
        ("odd.pt", b"", ModelError, "is not a checkpoint that torch.load can read"),
        ("odd.edge", b"x", BundleError, "no bundle at"),
        ("odd.onnx", b"x", ModelError, "odd.onnx"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(tmp_path, coco, name, content, error, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert message in refusal(tmp_path / name, coco, settings=SETTINGS, error=error)


def test_a_checkpoint_of_other_categories_is_refused(coco, tmp_path):
    from edge_sdk.models.photo_tagging.resnet import ResNet

    torch.save(ResNet("resnet18", 20).state_dict(), tmp_path / "voc.pt")
    message = refusal(tmp_path / "voc.pt", coco, settings=SETTINGS)
    assert "fc.weight is [20, 512] instead of [4, 512]" in message
    assert f"It holds 20 classes, and {coco} has 4 categories." in message


def test_what_does_not_go_together_is_refused(coco, checkpoint, tmp_path):
    message = refusal(checkpoint, coco, device="ssh://board", error=UnsupportedError)
    assert "a checkpoint runs in PyTorch on this machine, not on ssh://board" in message
    message = refusal(checkpoint, coco, model="efficientnet_lite0", error=UnsupportedError)
    assert "model 'efficientnet_lite0' is no tagger of COCO's categories" in message
    assert "the COCO folder" in refusal(checkpoint, tmp_path / "nowhere")


def test_probabilities_and_nan_are_no_logits(coco, onnx, tmp_path):
    lib = pytest.importorskip("onnx")
    for op, message in (
        ("Sigmoid", "they are probabilities, and logits are expected"),
        ("Log", "gives NaN or infinity"),
    ):
        model = lib.load(onnx[0])
        model.graph.node[-1].output[0] = "before"
        model.graph.node.append(lib.helper.make_node(op, ["before"], ["scores"]))
        lib.save(model, tmp_path / f"{op}.onnx")
        assert message in refusal(tmp_path / f"{op}.onnx", coco)


def test_a_program_that_is_no_tagger_is_refused(coco, onnx, tmp_path):
    lib = pytest.importorskip("onnx")
    model = lib.load(onnx[0])
    model.graph.output.append(lib.helper.make_tensor_value_info("flat", lib.TensorProto.FLOAT, [1, 48]))
    lib.save(model, tmp_path / "two.onnx")
    assert "takes 'pixels' float32 [1, 3, 64, 64] and gives 2 outputs; expected one image" in refusal(
        tmp_path / "two.onnx", coco
    )
    weights = lib.numpy_helper.from_array(np.zeros((48, 3), np.float32), "w")
    model = lib.load(onnx[0])
    model.graph.initializer[0].CopyFrom(weights)
    model.graph.initializer[1].CopyFrom(lib.numpy_helper.from_array(np.zeros(3, np.float32), "b"))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 3
    lib.save(model, tmp_path / "three.onnx")
    assert "gives 3 values for an image, and the data has 4 categories" in refusal(tmp_path / "three.onnx", coco)


class TestBootstrap:
    """The interval of a difference of mean average precision."""

    @staticmethod
    def scores(seed: int, images: int = 300, noise: float = 0.1):
        random = np.random.default_rng(seed)
        labels = (random.random((images, 6)) < random.uniform(0.02, 0.3, 6)).astype(np.uint8)
        labels[0] = 1
        one = np.round(labels * 0.4 + random.random(labels.shape), 2)  # rounded, so that scores tie
        return one, np.round(one + noise * random.standard_normal(labels.shape), 2), labels

    def test_each_resample_has_the_metric_of_its_images(self):
        one, other, labels = self.scores(0)
        draw = np.random.default_rng(3)
        places = [draw.integers(300, size=300) for _ in range(200)]
        plain = [
            np.nanmean(average_precisions(one[p], labels[p])) - np.nanmean(average_precisions(other[p], labels[p]))
            for p in places
        ]
        value, ci95 = map_difference(one, other, labels, resamples=200, seed=3)
        assert ci95 == pytest.approx(np.percentile(plain, (2.5, 97.5)), abs=1e-12)
        exact = np.nanmean(average_precisions(one, labels)) - np.nanmean(average_precisions(other, labels))
        assert value == pytest.approx(exact, abs=1e-12)

    def test_the_same_seed_gives_the_same_interval(self):
        given = self.scores(1)
        assert map_difference(*given) == map_difference(*given)
        assert map_difference(*given)[1] != map_difference(*given, seed=1)[1]

    def test_equal_taggers_do_not_differ(self):
        one, _, labels = self.scores(2)
        assert map_difference(one, one, labels) == (0.0, (0.0, 0.0))

    def test_pairing_makes_the_interval_narrow(self):
        one, near, labels = self.scores(4, noise=0.02)
        _, (low, high) = map_difference(one, near, labels)
        rest = np.random.default_rng(0).permutation(len(one))
        _, (loose_low, loose_high) = map_difference(one, one[rest], labels)
        assert high - low < (loose_high - loose_low) / 4

    @pytest.mark.slow
    def test_the_interval_covers_the_true_difference_as_often_as_it_says(self):
        random = np.random.default_rng(5)
        whole = self.scores(6, images=20_000)
        one, other, labels = whole
        truth = np.nanmean(average_precisions(one, labels)) - np.nanmean(average_precisions(other, labels))
        covered = 0
        for _ in range(100):
            places = random.choice(len(labels), 400, replace=False)
            _, (low, high) = map_difference(one[places], other[places], labels[places], resamples=300)
            covered += low <= truth <= high
        assert covered >= 88
