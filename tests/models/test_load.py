"""Which model a word on the command line names, and what is said where it names none."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from edge_sdk.errors import MissingDependencyError, ModelError
from edge_sdk.models import MODELS, load_model
from edge_sdk.models.base import Model, Part


class Minimal(Model):
    """A third party's model."""

    name = "minimal"

    def __init__(self, size: str = "1") -> None:
        self.size = int(size)

    def parts(self) -> list[Part]:
        return []


def test_the_models_that_come_with_the_sdk():
    assert {"efficientnet_lite0", "photo_tagging"} <= set(MODELS)
    assert all(issubclass(MODELS.load(name), Model) for name in MODELS)


def test_a_model_itself_is_taken_as_it_is():
    model = Minimal()
    assert load_model(model, {}) is model
    with pytest.raises(ModelError, match=r"'minimal' was built already and takes no settings \(size\)"):
        load_model(model, {"size": "2"})


def test_listing_and_loading_import_nothing_heavy():
    code = (
        "import sys; from edge_sdk.models import MODELS, load_model; list(MODELS); load_model('photo_tagging', {});"
        "print([m for m in ('torch', 'numpy', 'PIL', 'onnx', 'pydantic') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("efficientnet-lite0", "unknown model 'efficientnet-lite0'. Did you mean 'efficientnet_lite0'? Known:"),
        ("no/such.py:build", "there is no model file no/such.py (there is no folder no either)."),
        ("no_such.onnx", "there is no model file no_such.onnx."),
        ("no_such.pt2", "there is no model file no_such.pt2."),
        ("photos/model", "model 'photos/model' is no plugin and no file. Expected a plugin's name, FILE.py:FUNCTION"),
    ],
)
def test_a_name_that_is_nowhere(refusal, spec: str, message: str):
    assert message in refusal(spec)


def test_files_of_other_kinds(tmp_path: Path, refusal):
    for name in ("weights.pth", "model.tflite", "bare"):
        (tmp_path / name).write_bytes(b"")
    assert "holds weights without a network: write a function" in refusal(tmp_path / "weights.pth")
    assert "is a file of a kind that the SDK does not read ('.tflite')" in refusal(tmp_path / "model.tflite")
    assert "is a file of a kind that the SDK does not read ('bare')" in refusal(tmp_path / "bare")
    assert "is a folder. Expected" in refusal(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    assert "folder.onnx is a folder" in refusal(tmp_path / "folder.onnx")


def test_a_mistyped_file_names_the_nearest(tmp_path: Path, refusal):
    (tmp_path / "network.py").write_text("")
    assert f"Did you mean {tmp_path / 'network.py'}?" in refusal(tmp_path / "netwrok.py:build")


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch):
    """Registers a third party's entry point."""

    def register(value: str, name: str = "theirs") -> None:
        points = EntryPoints([EntryPoint(name, value, "edge_sdk.models")])
        monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: points)
        monkeypatch.setattr(MODELS, "_table", None)

    return register


def test_a_third_partys_model_is_found(plugin):
    plugin(f"{__name__}:Minimal")
    assert load_model("theirs", {"size": "3"}).size == 3  # type: ignore[attr-defined]


def test_a_third_partys_constructor_that_fails_is_told(plugin):
    plugin(f"{__name__}:Minimal")
    with pytest.raises(ModelError, match="model 'theirs' refuses its settings: ValueError: invalid literal"):
        load_model("theirs", {"size": "big"})
    with pytest.raises(ModelError, match="refuses its settings: TypeError: .*unexpected keyword argument 'depth'"):
        load_model("theirs", {"depth": "1"})


def test_a_third_partys_model_that_is_none_or_cannot_be_imported(plugin):
    plugin("builtins:dict")
    with pytest.raises(ModelError, match="model 'theirs' is a dict; expected an edge_sdk.models.base.Model"):
        load_model("theirs", {})
    plugin("no_such_package:Model")
    with pytest.raises(MissingDependencyError, match="model 'theirs' cannot be imported: No module named"):
        load_model("theirs", {})


def test_a_name_that_is_taken_is_refused(plugin):
    plugin("builtins:dict", name="photo_tagging")
    with pytest.raises(ModelError, match="model 'photo_tagging' is defined twice"):
        load_model("photo_tagging", {})
