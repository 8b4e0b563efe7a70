"""``.pt2`` files: what is read from them, and that none of them can run code."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_sdk.models import load_model
from edge_sdk.pipeline.capture import capture

torch = pytest.importorskip("torch")

MODEL = "models/model.json"
INPUTS = "data/sample_inputs/model.pt"
WEIGHTS = "data/weights/model_weights_config.json"


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(4)

    def forward(self, image, bias):
        x = torch.nn.functional.interpolate(self.norm(self.conv(image)), scale_factor=2, mode="bilinear")
        return {"map": x, "sum": torch.einsum("bchw,c->b", x, bias)}


def save(path: Path, dynamic: Any = None) -> Path:
    inputs = (torch.ones(2, 3, 8, 8), torch.ones(4))
    torch.export.save(torch.export.export(Net().eval(), inputs, dynamic_shapes=dynamic), path)
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("pt2") / "My Net.pt2")


def test_the_graph_becomes_a_part(good: Path):
    model = load_model(good, {})
    (part,) = model.parts()
    assert model.name == "my-net"
    assert (part.input_names, part.output_names) == (("image", "bias"), ("map", "sum"))
    assert part.dynamic == {}
    (sample,) = model.samples("reference")
    assert np.array_equal(sample["forward"]["bias"], np.ones(4, dtype=np.float32))
    graph = capture(model).graphs[0]
    assert [spec.shape for spec in graph.outputs] == [[2, 4, 16, 16], [2]]
    expected = torch.export.load(good).module()(*part.example_inputs)
    assert torch.equal(graph.torch(*part.example_inputs)["map"], expected["map"])


def test_the_fingerprint_is_the_files_hash_and_needs_no_loading(good: Path):
    assert load_model(good, {}).fingerprint() == load_model(str(good), {"name": "other"}).fingerprint()
    assert load_model(good, {"name": "other"}).name == "other"


def test_sizes_that_vary_keep_their_limits(tmp_path: Path):
    batch, height = torch.export.Dim("batch", min=1, max=8), torch.export.Dim("height", min=2)
    path = save(tmp_path / "varies.pt2", {"image": {0: batch, 2: height}, "bias": None})
    (part,) = load_model(path, {}).parts()
    assert part.dynamic == {"image": {0: (1, 8), 2: (2, 2**31 - 1)}}
    assert capture(load_model(path, {})).graphs[0].inputs[0].shape == [None, 3, None, 8]


def test_sizes_that_depend_on_each_other_are_refused(tmp_path: Path, refusal):
    class Sum(torch.nn.Module):
        def forward(self, x, y):
            return x + y

    size = torch.export.Dim("size", min=2, max=8)
    program = torch.export.export(
        Sum(), (torch.ones(4), torch.ones(4)), dynamic_shapes={"x": {0: size}, "y": {0: size}}
    )
    torch.export.save(program, tmp_path / "sum.pt2")
    assert "dimension 0 of 'y' depends on dimension 0 of 'x'" in refusal(tmp_path / "sum.pt2")


def test_unknown_settings_are_refused(good: Path, refusal):
    assert "unknown setting 'nam'. Did you mean 'name'?" in refusal(good, nam="x")


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"PK\x05\x06" + bytes(18)])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, refusal, content: bytes):
    (tmp_path / "odd.pt2").write_bytes(content)
    assert "is damaged or is no .pt2 file: write it with torch.export.save" in refusal(tmp_path / "odd.pt2")


def test_a_torch_save_file_is_refused(tmp_path: Path, refusal):
    torch.save(Net().state_dict(), tmp_path / "weights.pt2")
    assert "was refused: it holds" in refusal(tmp_path / "weights.pt2")


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return (Path.touch, (self.proof,))


@pytest.fixture
def forge(good: Path, tmp_path: Path):
    """Writes a copy of the good file with some records changed or added."""

    def write(changes: dict[str, Callable[[Any], Any] | bytes]) -> Path:
        path = tmp_path / "forged.pt2"
        with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as copy:
            root = source.namelist()[0].partition("/")[0]
            records = {name.partition("/")[2]: source.read(name) for name in source.namelist()}
            for name, change in changes.items():
                records[name] = (
                    change if isinstance(change, bytes) else json.dumps(change(json.loads(records[name]))).encode()
                )
            for name, content in records.items():
                copy.writestr(f"{root}/{name}", content)
        return path

    return write


def pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def changed(edit: Callable[[Any], None]) -> Callable[[Any], Any]:
    def change(content: Any) -> Any:
        edit(content)
        return content

    return change


def test_a_copy_with_nothing_changed_loads(forge):
    load_model(forge({MODEL: lambda content: content}), {}).parts()


def test_pickled_weights_are_refused(forge, refusal, tmp_path: Path):
    def edit(config):
        next(iter(config["config"].values()))["use_pickle"] = True

    path = forge({WEIGHTS: changed(edit), "data/weights/weight_0": pickled(Touch(tmp_path / "proof"))})
    assert "is a pickled object, and loading it could run code" in refusal(path)
    assert not (tmp_path / "proof").exists()


def test_pickled_example_inputs_are_refused(forge, refusal, tmp_path: Path):
    path = forge({INPUTS: pickled(Touch(tmp_path / "proof"))})
    assert "its example inputs are pickled objects that are no tensors" in refusal(path)
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    "record", ["data/constants/opaque_obj_0", "data/constants/custom_obj_0", "data/weights/model.pt"]
)
def test_records_that_may_be_pickled_are_refused(forge, refusal, record: str):
    assert f"it holds '{record}', which may be a pickled object" in refusal(forge({record: b"x"}))


def test_compiled_packages_are_refused(forge, refusal):
    path = forge({"data/aotinductor/model/model.so": b"x"})
    assert "is a compiled AOTInductor package, not a graph" in refusal(path)


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system",
        "torch.hub.load",
        "_operator.call",
        "_operator.methodcaller",
        "torch.ops.aten.from_file.default",
        "#extension:op",
    ],
)
def test_calls_of_anything_but_operators_are_refused(forge, refusal, target: str):
    def edit(model):
        model["graph_module"]["graph"]["nodes"][0]["target"] = target

    assert f"it calls '{target}', which is no operator of a graph" in refusal(forge({MODEL: changed(edit)}))


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "Symbol.mro()",
        "(lambda: 1)()",
        "Max('__import__(\"os\")')",
        "[1][0]",
        "Symbol('a b')",
        "1 +",
    ],
)
def test_sizes_that_are_code_are_refused(forge, refusal, expression: str):
    def edit(model):
        values = model["graph_module"]["graph"]["tensor_values"]
        values["image"]["sizes"][0] = {"as_expr": {"expr_str": expression, "hint": None}}

    assert "a size is the expression" in refusal(forge({MODEL: changed(edit)}))


@pytest.mark.parametrize("name", ["x=print('ran')", "x\nimport os", "x y"])
def test_names_that_are_code_are_refused(forge, refusal, name: str):
    def rename_argument(model):
        for entry in model["graph_module"]["module_call_graph"]:
            if entry["signature"]:
                entry["signature"]["forward_arg_names"][0] = name

    def rename_node(model):
        model["graph_module"]["graph"]["nodes"][0]["outputs"][0]["as_tensor"]["name"] = name

    for edit in (rename_argument, rename_node):
        assert "it has a name that is no identifier" in refusal(forge({MODEL: changed(edit)}))


def test_containers_that_need_an_import_are_refused(forge, refusal):
    tree = [1, {"type": "collections.defaultdict", "context": "{}", "children_spec": []}]

    def edit(model):
        for entry in model["graph_module"]["module_call_graph"]:
            if entry["signature"]:
                entry["signature"]["in_spec"] = json.dumps(tree)

    assert "in containers other than tuple, list and dict" in refusal(forge({MODEL: changed(edit)}))


def test_guards_are_never_run(forge, tmp_path: Path):
    proof = tmp_path / "proof"

    def edit(model):
        model["guards_code"] = [f"__import__('pathlib').Path({str(proof)!r}).touch() is None"]

    capture(load_model(forge({MODEL: changed(edit)}), {}))
    assert not proof.exists()


def test_a_second_table_entry_of_one_name_is_refused(good: Path, tmp_path: Path, refusal):
    path = tmp_path / "twice.pt2"
    path.write_bytes(good.read_bytes())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(next(name for name in archive.namelist() if name.endswith(MODEL)), b"{}")
    assert "its table of contents is ambiguous" in refusal(path)


def test_a_damaged_graph_is_told(forge, refusal):
    assert f"its record {MODEL} is not JSON" in refusal(forge({MODEL: b"{"}))

    def edit(model):
        del model["graph_module"]["graph"]["nodes"][0]

    assert "cannot be loaded: " in refusal(forge({MODEL: changed(edit)}))
