"""A small data set in COCO's true layout, of real photos, and a tagger that knows something about it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

SUBJECTS = {"astronaut": "astronaut.png", "cat": "chelsea.png", "coffee": "coffee.png", "rocket": "rocket.jpg"}
SIDE = 96
SIZE = 64
"""Side of the images that the tagger takes."""


def write_coco(root: Path, train: int = 40, val: int = 48, seed: int = 0) -> Path:
    """Writes a data set: each image shows a piece of one photo, or of two side by side."""
    image = pytest.importorskip("PIL.Image")
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("scikit-image is not installed: pip install 'edge-sdk[demo]'")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    photos = [np.asarray(image.open(folder / file).convert("RGB")) for file in SUBJECTS.values()]
    draw = np.random.default_rng(seed)
    (root / "annotations").mkdir(parents=True)
    for split, count in (("train", train), ("val", val)):
        (root / f"{split}2017").mkdir()
        pictures, objects = [], []
        for number in range(1, count + 1):
            shown = draw.choice(len(photos), int(draw.integers(1, 3)), replace=False).tolist()
            width = SIDE // len(shown)
            pieces = np.concatenate([_piece(photos[one], width, draw) for one in shown], 1)
            name = f"{number:012d}.jpg"
            image.fromarray(pieces).save(root / f"{split}2017" / name, quality=90)
            pictures.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
            for one in shown:
                box = [0, 0, width, SIDE]
                objects.append({"id": len(objects) + 1, "image_id": number, "category_id": 10 * one + 1, "bbox": box})
        categories = [{"id": 10 * place + 1, "name": name} for place, name in enumerate(SUBJECTS)]
        document = {"images": pictures, "annotations": objects, "categories": categories}
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(document))
    return root


def _piece(photo: np.ndarray, width: int, draw: np.random.Generator) -> np.ndarray:
    """A piece out of the middle of a photo, scaled down by two."""
    top = int(draw.integers(photo.shape[0] // 2 - SIDE, photo.shape[0] - 2 * SIDE))
    left = int(draw.integers(photo.shape[1] // 2 - SIDE, photo.shape[1] - 2 * width))
    return photo[top : top + 2 * SIDE : 2, left : left + 2 * width : 2]


def write_tagger(root: Path, path: Path, seed: int = 0, train: int | None = None) -> Path:
    """Writes a checkpoint of ResNet-18 whose last layer is fitted to the train split, the rest being random."""
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'edge-sdk[executorch]'")
    from edge_sdk.models.photo_tagging.coco import read_index
    from edge_sdk.models.photo_tagging.plugin import PhotoTagging

    model = PhotoTagging(data=str(root), input_size=str(SIZE), seed=str(seed))
    network = model.network()
    index = read_index(root, "train")
    images = torch.cat(
        [torch.from_numpy(model.preprocess(file)["forward"]["image"]) for file in index.files[: train or None]]
    )
    seen = []
    hook = network.avgpool.register_forward_hook(lambda *arguments: seen.append(arguments[2].flatten(1)))
    with torch.no_grad():
        network(images)
    hook.remove()
    features = torch.nn.functional.pad(seen[0], (0, 1), value=1.0).double()
    wanted = torch.from_numpy(index.labels[: train or None]).double() * 6 - 3
    ridge = features.T @ features + 0.5 * torch.eye(features.shape[1], dtype=torch.float64)
    solved = torch.linalg.solve(ridge, features.T @ wanted).float()
    network.fc.weight.data, network.fc.bias.data = solved[:-1].T.contiguous(), solved[-1].contiguous()
    torch.save(network.state_dict(), path)
    return path


def write_onnx(root: Path, path: Path) -> np.ndarray:
    """Writes an ONNX tagger of one layer on a coarse image, fitted to the train split; gives its logits."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'edge-sdk[onnxruntime]'")
    weights = fitted_layer(root)
    spec, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [
            node("AveragePool", ["pixels"], ["coarse"], kernel_shape=[16, 16], strides=[16, 16]),
            node("Flatten", ["coarse"], ["flat"]),
            node("Gemm", ["flat", "w", "b"], ["scores"]),
        ],
        "tagger",
        [spec("pixels", onnx.TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [spec("scores", onnx.TensorProto.FLOAT, [1, len(SUBJECTS)])],
        [onnx.numpy_helper.from_array(weights[:-1], "w"), onnx.numpy_helper.from_array(weights[-1], "b")],
    )
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    return coarse(root, "val") @ weights


def fitted_layer(root: Path) -> np.ndarray:
    """Weights and, in the last row, biases: ``[features + 1, categories]``."""
    from edge_sdk.models.photo_tagging.coco import read_index

    features, labels = coarse(root, "train"), read_index(root, "train").labels
    ridge = features.T @ features + 20 * np.eye(features.shape[1])
    return np.linalg.solve(ridge, features.T @ (labels * 6.0 - 3)).astype(np.float32)


def coarse(root: Path, split) -> np.ndarray:
    """What the layer sees of each image, and a one: ``[images, features + 1]``."""
    from edge_sdk.models.photo_tagging.coco import read_index
    from edge_sdk.models.photo_tagging.plugin import PhotoTagging

    model = PhotoTagging(data=str(root), input_size=str(SIZE))
    images = [model.preprocess(file)["forward"]["image"] for file in read_index(root, split).files]
    blocks = np.concatenate(images).reshape(len(images), 3, SIZE // 16, 16, SIZE // 16, 16)
    features = blocks.mean((3, 5)).reshape(len(images), -1)
    return np.concatenate([features, np.ones((len(images), 1), np.float32)], 1)
