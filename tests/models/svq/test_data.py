"""Data sets of SVQ: the same at every time, their truth agrees with their images, and bad input is refused."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")

from PIL import Image  # noqa: E402

from edge_sdk.errors import MissingDependencyError, ModelError  # noqa: E402
from edge_sdk.models import _fashion  # noqa: E402
from edge_sdk.models.svq.data import (  # noqa: E402
    LabelledImages,
    MaskedFolder,
    MultiDspritesDataset,
    ScenesDataset,
    ShapesDataset,
    get_data_loaders,
    get_data_sets,
)

FASHION = pytest.mark.debian("dataset-fashion-mnist")
DRAWN = [
    ShapesDataset,
    MultiDspritesDataset,
    pytest.param(ScenesDataset, marks=FASHION),
]


@pytest.fixture(scope="module", autouse=True)
def read_once():
    """Fashion-MNIST and the photos are read once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("items", "background"):
            patch.setattr(_fashion, name, functools.cache(getattr(_fashion, name)))
        yield


def column(images: LabelledImages, name: str) -> np.ndarray:
    names = [attribute.name for attribute in images.attribute_table]
    return images.attributes[..., names.index(name)]


@pytest.mark.parametrize("make", DRAWN)
def test_an_image_depends_on_the_seed_and_its_number_alone(make):
    few, many, other = make(20, 32, 3, 5), make(40, 32, 3, 5), make(20, 32, 3, 6)
    for name in ("images", "labels", "attributes", "present"):
        assert np.array_equal(getattr(few, name), getattr(many, name)[:20])
    assert not any(
        np.array_equal(image, image_of_other) for image, image_of_other in zip(few.images, other.images, strict=True)
    )


@pytest.mark.parametrize("make", DRAWN)
def test_an_image_holds_one_to_the_most_objects_and_each_is_to_be_seen(make):
    images = make(60, 48, 4)
    assert set(images.present.sum(1)) == {1, 2, 3, 4}
    for labels, present, attributes in zip(images.labels, images.present, images.attributes, strict=True):
        assert set(np.unique(labels)) == {0, *(np.flatnonzero(present) + 1)}
        assert not attributes[~present].any()


@pytest.mark.parametrize("make", DRAWN)
def test_attributes_lie_in_their_ranges_and_all_classes_occur(make):
    images = make(200, 24)
    for number, attribute in enumerate(images.attribute_table):
        values = images.attributes[images.present][:, number]
        if attribute.classes:
            assert set(values) == set(range(attribute.classes)), attribute
        else:
            assert 0 <= values.min() < values.max() <= 1, attribute


@pytest.mark.parametrize("make", [ShapesDataset, MultiDspritesDataset])
def test_x_y_and_size_agree_with_the_mask(make):
    images = make(50, 64, 1)
    x, y, size = (column(images, name)[:, 0] for name in ("x", "y", "size"))
    for number, labels in enumerate(images.labels):
        down, across = (np.nonzero(labels)[axis] + 0.5 for axis in (0, 1))
        # A circle around the object has this middle and radius; the object fills it at least in one direction.
        furthest = np.hypot(across / 64 - x[number], down / 64 - y[number]).max()
        assert 0.75 * size[number] < furthest < size[number] + 1.5 / 64


def test_a_shapes_pixels_have_its_colour_and_its_form():
    images = ShapesDataset(60, 96, 1, seed=3)
    areas = {0: np.pi, 1: 2.0, 2: 3 * np.sqrt(3) / 4}  # circle, square and triangle in a circle of radius 1
    by_colour: dict[int, set] = {}
    for number, labels in enumerate(images.labels):
        shape, colour, _, _, size = images.attributes[number, 0]
        assert labels.sum() / (size * 96) ** 2 == pytest.approx(areas[int(shape)], rel=0.08)
        middle = np.median(images.images[number][labels == 1], 0)
        by_colour.setdefault(int(colour), set()).add(tuple(middle))
        assert (images.images[number][labels == 0].max(-1) < 150).all(), "the background is dark"
    assert all(len(seen) == 1 for seen in by_colour.values())
    assert len(set.union(*by_colour.values())) == len(by_colour) > 4


def test_shapes_of_an_image_differ_in_colour_and_stay_at_least_half_visible():
    images = ShapesDataset(200, 64, 4)
    colours, sizes = column(images, "colour"), column(images, "size")
    least = {0: np.pi, 1: 2.0, 2: 3 * np.sqrt(3) / 4}
    for number, present in enumerate(images.present):
        assert len(set(colours[number, present])) == present.sum()
        for place in np.flatnonzero(present):
            whole = least[int(images.attributes[number, place, 0])] * (sizes[number, place] * 64) ** 2
            assert (images.labels[number] == place + 1).sum() > 0.42 * whole


def test_dsprites_have_three_backgrounds():
    black, colour, texture = (MultiDspritesDataset(8, 32, background=name) for name in ("black", "colour", "texture"))
    assert np.array_equal(black.labels, texture.labels)
    pixels = (np.arange(32) + 0.5) / 32
    x, y, size = (column(black, name)[..., None, None] for name in ("x", "y", "size"))
    far = (np.hypot(pixels - x, pixels[:, None] - y) > size + 1 / 32).all(1)  # from every sprite, absent ones at 0, 0
    for number in range(8):
        inside = far[number]
        assert not black.images[number][inside].any()
        assert len(np.unique(colour.images[number][inside], axis=0)) == 1
        assert len(np.unique(texture.images[number][inside], axis=0)) > 100


@FASHION
def test_scenes_to_train_on_and_to_judge_with_share_no_item_and_no_photo():
    train, val = (ScenesDataset(4, 32, 1, split=split) for split in ("train", "val"))
    # With one seed the layout is one, so all that differs is what the scenes are made of.
    assert np.array_equal(column(train, "x"), column(val, "x"))
    for number in range(4):
        assert not np.array_equal(train.images[number], val.images[number])
        assert not np.array_equal(train.labels[number], val.labels[number])


def test_scenes_say_how_to_get_fashion_mnist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv(_fashion.VARIABLE, str(tmp_path))
    monkeypatch.setattr(_fashion, "items", _fashion.items.__wrapped__)
    with pytest.raises(MissingDependencyError, match="apt-get install dataset-fashion-mnist"):
        ScenesDataset(2)


def test_an_item_is_an_image_or_a_dict_with_the_truth():
    image = ShapesDataset(3, 32)[1]
    assert image.shape == (3, 32, 32) and image.dtype == torch.float32 and 0 <= image.min() < image.max() <= 1
    images = ShapesDataset(3, 32, with_labels=True)
    item = images[1]
    assert torch.equal(item["image"], image)
    assert item["labels"].shape == (32, 32) and item["labels"].dtype == torch.int64
    assert item["attributes"].shape == (4, 5) and item["attributes"].dtype == torch.float32
    assert item["present"].shape == (4,) and item["present"].dtype == torch.bool
    pixels, labels = images.as_arrays()
    assert pixels.shape == (3, 32, 32, 3) and labels.shape == (3, 32, 32) and pixels.dtype == labels.dtype == np.uint8
    assert torch.allclose(torch.from_numpy(pixels[1]).permute(2, 0, 1) / 255, image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "num_samples is 0: expected a whole number from 1"),
        ({"image_size": 8}, "image_size is 8: expected a whole number from 16 to 512"),
        ({"max_shapes": 0}, "max_shapes is 0: expected a whole number from 1"),
        ({"max_shapes": 11}, "max_shapes is 11"),
        ({"seed": -1}, "seed is -1"),
        ({"num_samples": 2.5}, "num_samples is 2.5"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    for make in (ShapesDataset, MultiDspritesDataset, ScenesDataset):
        with pytest.raises(ModelError, match=message):
            make(**{"num_samples": 2, **options})


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ModelError, match="unknown background 'textured'. Did you mean 'texture'"):
        MultiDspritesDataset(2, background="textured")
    with pytest.raises(ModelError, match="unknown data set 'shape'. Did you mean 'shapes'.*dsprites, folder, scenes"):
        get_data_loaders("shape")
    with pytest.raises(ModelError, match="unknown split 'test'"):
        ScenesDataset(2, split="test")  # type: ignore[arg-type]


def test_a_picture_of_samples_is_written(tmp_path: Path):
    pytest.importorskip("matplotlib")
    images = ShapesDataset(9, 32)
    images.visualize_samples(num_samples=9, save_path=str(tmp_path / "new" / "samples.png"))
    with Image.open(tmp_path / "new" / "samples.png") as picture:
        assert min(picture.size) > 300
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 20
    with pytest.raises(ModelError, match="num_samples is 10: expected a whole number from 1 to 9"):
        images.visualize_samples(10, tmp_path / "samples.png")
    with pytest.raises(ModelError, match="samples.abc is no kind of picture that Matplotlib writes"):
        images.visualize_samples(1, tmp_path / "samples.abc")


def test_loaders_are_called_as_the_readme_of_the_paper_does():
    train, val = get_data_loaders(
        dataset_name="shapes", batch_size=8, num_workers=0, num_samples=20, image_size=32, max_shapes=4
    )
    assert [len(batch) for batch in train] == [8, 8, 4]
    assert [tuple(batch.shape) for batch in val] == [(2, 3, 32, 32)]
    first, second = (torch.cat(list(train)) for _ in range(2))
    assert not torch.equal(first, second), "shuffled anew"
    assert sorted(first.sum((1, 2, 3)).tolist()) == pytest.approx(sorted(second.sum((1, 2, 3)).tolist()))


def test_loaders_repeat_with_their_seed_and_give_labels_when_asked():
    def first(seed: int):
        options = {"num_samples": 16, "val_samples": 8, "image_size": 32, "seed": seed, "with_labels": True}
        return [next(iter(loader)) for loader in get_data_loaders("dsprites", 8, **options)]

    train, val = first(1)
    assert torch.equal(train["image"], first(1)[0]["image"])
    assert not torch.equal(val["image"], first(2)[1]["image"])
    assert train["labels"].shape == (8, 32, 32) and train["attributes"].shape == (8, 4, 6)


def test_no_image_serves_training_and_judging_whatever_the_seeds():
    seen = [get_data_sets("shapes", 50, 50, 16, seed=seed) for seed in range(4)]
    images = [image.tobytes() for pair in seen for half in pair for image in half.images]
    assert len(set(images)) == len(images) == 400


def test_loaders_refuse_bad_numbers():
    with pytest.raises(ModelError, match="batch_size is 0"):
        get_data_loaders("shapes", 0)
    with pytest.raises(ModelError, match="num_workers is -1"):
        get_data_loaders("shapes", 4, -1)
    with pytest.raises(ModelError, match="val_samples is 0"):
        get_data_loaders("shapes", val_samples=0)
    with pytest.raises(ModelError, match="data set 'folder' has root ''"):
        get_data_loaders("folder")
    with pytest.raises(ModelError, match="data set 'shapes' has root 'here'"):
        get_data_loaders("shapes", root="here")


# ---------------------------------------------------------------------------------------------------------- folder


def scene(width: int = 48, height: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """A red box and a blue one that hides a part of it, on grey."""
    labels = np.zeros((height, width), np.uint8)
    labels[4:20, 12:24] = 1
    labels[12:28, 20:36] = 2
    return np.array([(90, 90, 90), (220, 0, 0), (0, 0, 220)], np.uint8)[labels], labels


def folder(root: Path, names: list[str], layout: str = "map") -> Path:
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    image, labels = scene()
    for name in names:
        Image.fromarray(image).save(root / "images" / f"{name}.png")
        if layout == "map":
            Image.fromarray(labels * 100).save(root / "masks" / f"{name}.png")
            continue
        one = np.zeros_like(labels)
        one[4:20, 12:24] = 255  # the whole box, although the other hides a part
        if layout == "folder":
            (root / "masks" / name).mkdir()
        pattern = f"{name}/{{}}.png" if layout == "folder" else f"{name}_{{}}.png"
        Image.fromarray(one).save(root / "masks" / pattern.format(2))
        Image.fromarray(np.uint8(labels == 2)).save(root / "masks" / pattern.format(10))
    return root


@pytest.mark.parametrize("layout", ["map", "folder", "files"])
def test_a_folder_is_cut_to_its_middle_whatever_the_layout_of_masks(tmp_path: Path, layout: str):
    images = MaskedFolder(folder(tmp_path, ["a", "a_1"], layout), 32, with_labels=True)
    assert len(images) == 2
    image, labels = scene()
    assert np.array_equal(images.labels[0], labels[:, 8:40])
    assert np.array_equal(images.images[1], image[:, 8:40])
    x, y, size = images[0]["attributes"][1]
    assert (x, y, size) == (pytest.approx(20 / 32), pytest.approx(20 / 32), pytest.approx(16 / 32))
    assert images.present.all()


def test_scaling_mixes_no_labels(tmp_path: Path):
    images = MaskedFolder(folder(tmp_path, ["a"]), 21)
    assert set(np.unique(images.labels)) == {0, 1, 2}


def test_a_flat_folder_is_split_by_name_and_a_sorted_one_by_folder(tmp_path: Path):
    flat = folder(tmp_path / "flat", [f"{number:03d}" for number in range(60)])
    train, val = get_data_sets("folder", 100, 100, 16, root=str(flat))
    assert len(train) + len(val) == len(MaskedFolder(flat, 16)) == 60 and 1 <= len(val) <= 15
    assert len(get_data_sets("folder", 10, 1, 16, root=str(flat))[0]) == 10
    for part, count in (("train", 3), ("val", 2)):
        folder(tmp_path / "sorted" / part, [str(number) for number in range(count)])
    train, val = get_data_loaders("folder", 8, image_size=16, root=str(tmp_path / "sorted"), with_labels=True)
    assert len(next(iter(train))["image"]) == 3 and len(next(iter(val))["image"]) == 2


def test_an_image_without_objects_is_allowed(tmp_path: Path):
    root = folder(tmp_path, ["a"])
    Image.new("L", (48, 32)).save(root / "masks" / "a.png")
    images = MaskedFolder(root, 16)
    assert not images.labels.any() and not images.present.any() and images.attributes.shape == (1, 1, 3)


def remove_images(root: Path) -> None:
    (root / "images" / "a.png").unlink()


def remove_mask(root: Path) -> None:
    (root / "masks" / "a.png").unlink()


def remove_masks(root: Path) -> None:
    remove_mask(root)
    (root / "masks").rmdir()


def shrink_mask(root: Path) -> None:
    Image.new("L", (24, 16)).save(root / "masks" / "a.png")


def colour_mask(root: Path) -> None:
    Image.new("RGB", (48, 32)).save(root / "masks" / "a.png")


def photo_as_mask(root: Path) -> None:
    Image.fromarray(np.arange(48 * 32, dtype=np.uint16).reshape(32, 48)).save(root / "masks" / "a.png")


def break_image(root: Path) -> None:
    (root / "images" / "a.png").write_bytes(b"no image")


def break_mask(root: Path) -> None:
    whole = (root / "masks" / "a.png").read_bytes()
    (root / "masks" / "a.png").write_bytes(whole[: len(whole) // 2])


def double(root: Path) -> None:
    Image.new("RGB", (48, 32)).save(root / "images" / "a.jpg")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (remove_images, "images is empty: found no PNG or JPEG file"),
        (remove_mask, r"a.png has no mask: expected .*masks/a.png, files in .*masks/a/, or a_1.png and so on"),
        (remove_masks, "there is no folder .*masks: expected images in"),
        (shrink_mask, "a.png is 24x16 pixels: expected 48x32, as its image"),
        (colour_mask, "a.png is of mode RGB: expected one channel of whole numbers"),
        (photo_as_mask, "hold 256 objects: expected at most 255"),
        (break_image, "a.png is not an image that Pillow can read"),
        (break_mask, "the mask .*a.png cannot be read as an image"),
        (double, "has 2 images named a, which would share a mask"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path: Path, harm, message: str):
    root = folder(tmp_path, ["a"])
    harm(root)
    with pytest.raises(ModelError, match=message):
        MaskedFolder(root, 16)


def test_a_folder_too_small_to_split_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match="none of the 1 images of .* belongs to (train|val): .*train and val"):
        get_data_sets("folder", root=str(folder(tmp_path, ["a"])))
    with pytest.raises(ModelError, match="there is no folder .*nowhere/images"):
        MaskedFolder(tmp_path / "nowhere")
