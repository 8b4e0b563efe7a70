"""What importing costs and gives: nothing heavy, every module, and the public names."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import edge_sdk
from edge_sdk.errors import MissingDependencyError

ROOT = Path(__file__).parents[2]
HEAVY = ("executorch", "numpy", "onnx", "onnxruntime", "pydantic", "rich", "torch", "yaml")
MODULES = sorted(module.name for module in pkgutil.walk_packages(edge_sdk.__path__, "edge_sdk."))
DEVICE_FILES = sorted(file for folder in ("runtimes", "jetson") for file in (ROOT / folder).rglob("*.py"))


def _heavy_after(code: str) -> list[str]:
    probe = f"import sys\n{code}\nprint(' '.join(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def test_importing_the_package_imports_nothing_heavy():
    assert _heavy_after("import edge_sdk") == []


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["deploy", "--help"], ["nonsense"]])
def test_help_imports_nothing_heavy(arguments):
    assert _heavy_after(f"from edge_sdk.cli import main\nmain({arguments!r})") == []


@pytest.mark.parametrize("verb", ["targets", "models", "quantizers", "doctor"])
def test_listings_do_not_import_torch(verb):
    assert not {"torch", "executorch", "onnx", "onnxruntime"} & set(
        _heavy_after(f"from edge_sdk.cli import main\nassert main([{verb!r}, '--json']) == 0")
    )


def test_public_names():
    assert sorted(edge_sdk.__all__) == [
        "Bundle",
        "EdgeSdkError",
        "Model",
        "Part",
        "Report",
        "Target",
        "__version__",
        "compile",
        "deploy",
        "evaluate",
        "load_target",
        "monitor",
        "profile",
        "target_names",
    ]
    for name in edge_sdk.__all__:
        assert getattr(edge_sdk, name) is not None
    assert set(edge_sdk.__all__) <= set(dir(edge_sdk))


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'edge_sdk' has no attribute 'compil'"):
        _ = edge_sdk.compil


def test_there_are_modules():
    assert "edge_sdk.errors" in MODULES and "edge_sdk.schema.target" in MODULES


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_every_module_imports(name):
    try:
        importlib.import_module(name)
    except MissingDependencyError as error:
        pytest.skip(str(error))


def test_there_are_programs_for_devices():
    assert {file.name for file in DEVICE_FILES} >= {"harness.py", "runner.py"}


@pytest.mark.parametrize("file", DEVICE_FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_programs_for_devices_stand_alone(file):
    """They never import the SDK, and read as Python 3.8."""
    tree = ast.parse(file.read_text("utf-8"), feature_version=(3, 8))
    imported = {
        (alias.name if isinstance(node, ast.Import) else node.module or "").partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert "edge_sdk" not in imported
