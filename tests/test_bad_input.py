"""Bad input, through the command line: each case ends with its message, its exit code and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import venv
from pathlib import Path

import pytest
import tiny
from _commands import DESKTOP, NET, ORT, Edge, edge_in, everything, write

from edge_sdk.cli import main

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def edge(capsys, tmp_path, monkeypatch) -> Edge:
    return edge_in(tmp_path, capsys, monkeypatch)


# Names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("compile", "net.py:build", "--target", "desktop-cpo"),
            "unknown target 'desktop-cpo'. Did you mean 'desktop-cp",
        ),
        (("compile", "efficientnet", *DESKTOP), "unknown model 'efficientnet'. Did you mean 'efficientnet_lite0'?"),
        (("compile", "photo_taging", *DESKTOP), "unknown model 'photo_taging'. Did you mean 'photo_tagging'?"),
        (
            ("compile", "net.py:build", *DESKTOP, "--quantize", "int8static"),
            "unknown quantizer 'int8static'. Did you mean 'int8-static'? Known: ",
        ),
        (
            ("compile", "net.py:build", *DESKTOP, "--runtime", "onnxrt"),
            "'onnxrt'. Did you mean 'onnxruntime'? Known: aotinductor, auto, executorch, onnxruntime, tensorrt.",
        ),
        (
            ("compile", "net.py:build", "--target", "xnnpack-cpu", *ORT),
            "target 'xnnpack-cpu' does not allow runtime 'onnxruntime'; it allows: executorch.",
        ),
        (
            ("compile", "net.py:build", *DESKTOP, "--quantize", "fp16", *ORT),
            "target 'desktop-cpu' cannot take model 'build' as fp16: onnxruntime (cpu): the target allows fp32, int8, ",
        ),
        (
            (
                "compile",
                "net.py:build",
                *DESKTOP,
                "--quantize",
                "int8-static",
                "--set",
                "quantize.calibration=histgram",
            ),
            "unknown value 'histgram'. Did you mean 'histogram'?",
        ),
        (
            ("compile", "net.py:build", *DESKTOP, "--set", "widht=8"),
            "function 'build' of net.py: unknown setting 'widht'. Did you mean 'width'?",
        ),
        (("compile", "net.py:biuld", *DESKTOP), "'biuld'. Did you mean 'build'?"),
        (("compile", "nte.py:build", *DESKTOP), "there is no model file nte.py. Did you mean net.py?"),
        (("compile", "net.txt", *DESKTOP), "model 'net.txt' is no plugin and no file. Expected a plugin's name"),
    ],
)
def test_unknown_names(arguments, message, edge, tmp_path):
    write(tmp_path / "net.py", NET)
    code, said = edge(*arguments)
    assert code == 1 and message in said and said.count("\n") == 0


def test_an_unknown_device(edge, tmp_path):
    write(tmp_path / "net.py", NET)
    code, said = edge("deploy", "net.py:build", *DESKTOP, *ORT, "--device", "locl")
    assert code == 3 and "unknown device 'locl'. Did you mean 'local'?" in said


# YAML

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20)
)


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        pytest.param("name: [a\nb: c\n", ["mine.yaml:2:2: this is not valid YAML: "], id="broken"),
        pytest.param(
            "name: mine\nextends: xnnpack-cpu\nos: beos\ncolour: red\npower: {source: sun}\n",
            [
                "the target profile mine.yaml has 3 faults:",
                "  mine.yaml:3: os: input should be 'linux', 'android' or 'any' (found 'beos')",
                "  mine.yaml:4: colour: unknown key. Known: schema_version, name, ",
                "  mine.yaml:5: power.source: input should be 'mains', 'battery' or 'supply' (found 'sun')",
            ],
            id="several faults",
        ),
        pytest.param(
            "name: !!python/object/apply:os.system ['touch evil']\n",
            ["mine.yaml:1: the YAML tag 'tag:yaml.org,2002:python/object/apply:os.system' is not read"],
            id="hostile",
        ),
        pytest.param(BOMB, ["mine.yaml:1: YAML anchors and aliases (&a0, *a0) are not read."], id="exploding aliases"),
        pytest.param("a: " + "x" * 300_000, ["mine.yaml is larger than 256 KiB"], id="over-large"),
        pytest.param("a: " + "[" * 50_000, ["nested deeper than 32 levels"], id="deep"),
        pytest.param("a: [" + "1," * 30_000 + "]", ["more than 20000 values"], id="many values"),
    ],
)
def test_profiles_that_are_broken_hostile_or_over_large(text, messages, edge, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    begun = time.monotonic()
    code, said = edge("compile", "net.py:build", "--target", "mine.yaml")
    assert code == 1 and time.monotonic() - begun < 10 and len(said) < 2000
    for message in messages:
        assert message in said
    assert everything(tmp_path) == {"mine.yaml"}


# Models


def test_a_model_that_does_not_export(cli, tmp_path):
    """As a process, so that whatever PyTorch prints by itself is seen."""
    write(
        tmp_path / "net.py",
        """
        import torch

        class Net(torch.nn.Module):
            def forward(self, x):
                if x.sum() > 0:
                    return x
                return -x

        def build():
            return Net(), (torch.ones(1, 4),)
        """,
    )
    done = cli("compile", "net.py:build", *DESKTOP)
    assert done.returncode == 1 and done.stdout == ""
    progress, message = done.stderr.splitlines()
    assert progress.endswith("capturing build")
    assert message.startswith("edge-sdk: error: part 'forward' cannot be exported: ")
    assert "In operator aten.item.default, net.py:6: `if x.sum() > 0:`. " in message
    assert message.endswith("use torch.where or torch.cond, and keep shapes fixed (or name them in Part.dynamic).")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return None", "function 'build' of net.py gives nothing (None). Expected a torch.nn.Module"),
        ("return torch.nn.Linear(4, 4)", "gives a Linear without example inputs"),
        ("return torch.nn.Linear(4, 4), (torch.ones(1, 5),)", "the module fails on its example inputs: RuntimeError: "),
        ("raise ValueError('no\\nway')", "function 'build' of net.py failed: ValueError: no (net.py:4)."),
        ("import sys; sys.exit(0)", "function 'build' of net.py failed: SystemExit: 0 (net.py:4)."),
        ("return missing", "NameError: name 'missing' is not defined (net.py:4)."),
        ("return (", "SyntaxError: "),
    ],
)
def test_a_function_that_gives_no_model(body, message, edge, tmp_path):
    write(tmp_path / "net.py", f"\n    import torch\n    def build():\n        {body}\n")
    code, said = edge("compile", "net.py:build", *DESKTOP)
    assert code == 1 and message in said and said.count("\n") == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("net.onnx", b"not a model", "net.onnx is damaged or is no ONNX model"),
        ("net.onnx", b"", "net.onnx is no valid ONNX model"),
        ("net.pt2", b"not a model", "net.pt2 is damaged or is no .pt2 file"),
        ("net.pt2", b"PK\x05\x06" + b"\0" * 18, "net.pt2 "),
    ],
)
def test_files_that_are_no_model(name, content, message, edge, tmp_path):
    (tmp_path / name).write_bytes(content)
    code, said = edge("compile", name, *DESKTOP)
    assert code == 1 and message in said and said.count("\n") == 0


def _dynamic_onnx(path: Path) -> None:
    import onnx

    model = onnx.load_from_string(tiny.onnx_program())
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, path)


def test_an_onnx_file_with_dynamic_shapes_for_a_static_target(edge, tmp_path, capsys):
    _dynamic_onnx(tmp_path / "net.onnx")
    profile = (REPOSITORY / "targets" / "desktop-cpu.yaml").read_text().replace("name: desktop-cpu", "name: mine")
    (tmp_path / "mine.yaml").write_text(profile.replace("shapes: dynamic", "shapes: static"))
    code, said = edge("compile", "net.onnx", "--target", "mine.yaml")
    assert code == 1
    assert said == (
        "edge-sdk: error: input 'x' of model 'net' has sizes that vary, [?, 16], and target 'mine' takes fixed shapes "
        "only on onnxruntime (cpu). Fix it: --set shape.x=1,16."
    )
    assert main(["compile", "net.onnx", "--target", "mine.yaml", "--set", "shape.x=1,16", "--out", "out"]) == 0
    capsys.readouterr()
    code, said = edge("compile", "net.onnx", "--target", "mine.yaml", "--set", "shape.x=1,17")
    assert code == 1 and "shape.x is '1,17', which does not fit the input's shape [batch, 16]." in said
    code, said = edge("compile", "net.onnx", "--target", "mine.yaml", "--set", "shape.y=1,16")
    assert code == 1 and "unknown input 'y'. Known: x." in said


def test_calibration_data_that_does_not_fit(edge, tmp_path):
    write(tmp_path / "net.py", NET)
    arguments = ("compile", "net.py:build", *DESKTOP, *ORT, "--quantize", "int8-static")
    code, said = edge(*arguments)
    assert code == 1 and "quantizer 'int8-static' needs calibration inputs, and model 'build' brings none: " in said
    tiny.write_npz(tmp_path / "data.npz", {"y": tiny.inputs(4)})
    code, said = edge(*arguments, "--calibration", "data.npz")
    assert code == 1 and "--calibration data.npz has no array 'input' or 'forward/input'; it has ['y']." in said
    code, said = edge(*arguments, "--calibration", "none.npz")
    assert code == 1 and "--calibration none.npz: no such file or folder." in said


BUDGET = """
    from edge_sdk.models.base import Model, Part
    import numpy as np, torch

    class Strict(Model):
        name = "strict"

        def parts(self):
            torch.manual_seed(0)
            return [Part("forward", torch.nn.Linear(16, 4), (torch.ones(1, 16),), ("x",))]

        def samples(self, purpose):
            return [{"forward": {"x": np.full((1, 16), value, np.float32)}} for value in (1, 2)]

        def score(self, outputs, fp32):
            return {"identity": float(outputs is fp32)}

    def build():
        return Strict()
"""


def test_a_budget_that_cannot_be_met_has_an_exit_code_of_its_own(cli, tmp_path):
    write(tmp_path / "net.py", BUDGET)
    done = cli("compile", "net.py:build", *DESKTOP, *ORT, "--quantize", "int8-static", "--max-drop", "0.1")
    assert done.returncode == 4 and done.stdout == ""
    (said,) = [line for line in done.stderr.splitlines() if not line.startswith("[")]
    assert said.startswith("edge-sdk: error: the accuracy budget cannot be met: with every layer in FP32 the accuracy ")


def test_an_input_that_is_not_there_or_that_the_model_cannot_read(edge, tmp_path):
    write(tmp_path / "net.py", NET)
    code, said = edge("deploy", "net.py:build", *DESKTOP, *ORT, "--input", "photos")
    assert code == 1 and "--input photos: no such file or folder." in said
    (tmp_path / "a.jpg").write_bytes(b"")
    code, said = edge("deploy", "net.py:build", *DESKTOP, *ORT, "--input", "a.jpg")
    assert code == 1 and "model 'build' does not say how to read a.jpg" in said


# A missing runtime

PLAIN = (
    *("annotated_types", "markdown_it", "mdurl", "numpy", "numpy.libs", "packaging", "pydantic", "pydantic_core"),
    *("pygments", "rich", "typing_extensions.py", "typing_inspection", "yaml", "_yaml"),
)


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """The Python of an environment that has what 'pip install .' brings, and no runtime."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    import pydantic

    installed = Path(pydantic.__file__).parents[1]
    for name in PLAIN:
        if (installed / name).exists():
            (packages / name).symlink_to(installed / name)
    (packages / "edge.pth").write_text(f"{REPOSITORY}\n")
    return folder / "bin" / "python"


def plain(bare: Path, folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    command = [bare, "-m", "edge_sdk", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        pytest.param(
            ("compile", "photo_tagging", "--set", "variant=resnet18", "--target", "xnnpack-cpu"),
            ["executorch (xnnpack): torch, executorch, torchao not installed; run: pip install 'edge-sdk[executorch]'"],
            id="executorch",
        ),
        pytest.param(
            ("deploy", "photo_tagging", *DESKTOP),
            ["run: pip install 'edge-sdk[onnxruntime]'", "run: pip install 'edge-sdk[executorch]'"],
            id="all",
        ),
        pytest.param(("compile", "net.py:build", *DESKTOP), ["No module named 'torch'"], id="a function"),
        pytest.param(
            ("compile", "net.onnx", *DESKTOP, *ORT), ["pip install 'edge-sdk[onnxruntime]'"], id="an ONNX file"
        ),
        pytest.param(("compile", "net.pt2", *DESKTOP, *ORT), ["pip install 'edge-sdk["], id="a .pt2 file"),
    ],
)
def test_compiling_without_the_runtime_names_the_extra(arguments, messages, bare, tmp_path):
    write(tmp_path / "net.py", NET)
    (tmp_path / "net.onnx").write_bytes(tiny.onnx_program())
    (tmp_path / "net.pt2").write_bytes(b"")
    done = plain(bare, tmp_path, *arguments)
    assert done.returncode == 1 and done.stdout == ""
    (said,) = [line for line in done.stderr.splitlines() if not line.startswith("[")]
    assert said.startswith("edge-sdk: error: ")
    for message in messages:
        assert message in said


@pytest.mark.parametrize("runtime", ["onnxruntime", "executorch"])
def test_running_without_the_runtime_names_the_extra(runtime, bare, tmp_path):
    bundle = tiny.bundle(tmp_path, runtime, b"a program")
    done = plain(bare, tmp_path, "profile", bundle.path)
    assert done.returncode == 1 and done.stdout == ""
    said = done.stderr.splitlines()[-1]
    assert f"device 'local': the runtime '{runtime}' cannot be imported there: " in said
    assert said.endswith(f"Install it: pip install 'edge-sdk[{runtime}]'")


def test_what_needs_no_runtime_works_without_one(bare, tmp_path):
    for verb in ("targets", "models", "quantizers"):
        done = plain(bare, tmp_path, verb, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)


# Bundles


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param("byte", "tiny.onnx was changed: SHA-256 ", id="a changed byte"),
        pytest.param(
            "missing", "tiny.onnx is missing. Compile the bundle again or copy it whole.", id="a missing file"
        ),
        pytest.param("climb", "names '../evil', which is no path within the bundle.", id="a path that climbs out"),
        pytest.param("version", "has schema version 99; this Edge SDK reads 1.", id="an unknown schema version"),
        pytest.param("none", "no bundle at ", id="no bundle"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_a_damaged_bundle(damage, message, zipped, edge, tmp_path):
    bundle = tiny.bundle(tmp_path, "onnxruntime", tiny.onnx_program())
    program, manifest = bundle.path / "tiny.onnx", bundle.path / "manifest.json"
    content = json.loads(manifest.read_text())
    if damage == "byte":
        data = bytearray(program.read_bytes())
        data[len(data) // 2] ^= 1
        program.write_bytes(data)
    elif damage == "missing":
        program.unlink()
    elif damage == "climb":
        content["files"]["../evil"] = content["files"]["tiny.onnx"]
        manifest.write_text(json.dumps(content))
    elif damage == "version":
        manifest.write_text(json.dumps({**content, "schema_version": 99}))
    path = bundle.path
    if zipped:
        path = Path(shutil.make_archive(str(tmp_path / "zipped"), "zip", bundle.path))
    if damage == "none":
        path = tmp_path / "none.edge"
    code, said = edge("profile", path)
    assert code == 1 and message in said and said.count("\n") == 0
    assert not (tmp_path / "evil").exists()
