"""The verbs that list: their documents, their tables, and what they do with what is broken."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import metadata

import pytest

from edge_sdk.cli import main
from edge_sdk.cli._packages import Package, packages
from edge_sdk.schema import target_names


def _document(capsys, *arguments: str, code: int = 0):
    assert main([*arguments, "--json"]) == code
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def test_targets(capsys):
    document = _document(capsys, "targets")
    assert list(document) == ["targets", "broken"]
    assert [target["name"] for target in document["targets"]] == target_names()
    assert document["broken"] == []
    for target in document["targets"]:
        assert list(target) == ["name", "title", "compile", "run", "runtimes"]
        for ability in (target["compile"], target["run"]):
            assert set(ability) == {"ok", "reason", "next_step"}
            assert ability["ok"] or ability["reason"]


def test_one_target(capsys):
    document = _document(capsys, "targets", "raspberry-pi-5")
    assert list(document) == ["target", "support"]
    assert document["target"]["soc"] == "Broadcom BCM2712"
    assert document["target"]["memory"]["total_mib"].keys() == {"value", "source"}
    assert document["support"]["run"]["ok"] is False


def test_a_broken_profile_does_not_hide_the_others(cli, tmp_path):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.yaml").write_text("name: mine\nextends: xnnpack-cpu\nsoc: [1]\ncolour: red\n")
    environment = {**os.environ, "EDGE_SDK_TARGETS": str(tmp_path / "profiles")}
    document = json.loads(cli("targets", "--json", env=environment).stdout)
    (broken,) = document["broken"]
    assert broken["name"] == "mine"
    assert "soc" in broken["problem"] and "colour" in broken["problem"]
    assert len(document["targets"]) == len(target_names())
    table = cli("targets", env=environment)
    assert table.returncode == 0 and "broken profile" in table.stdout
    alone = cli("targets", "mine", env=environment)
    assert alone.returncode == 1 and alone.stderr.startswith("edge-sdk: error: ")
    assert "soc" in alone.stderr and "colour" in alone.stderr


def test_the_tables_are_for_people(cli):
    for verb, words in (
        ("targets", "Compiles here"),
        ("models", "efficientnet_lite0"),
        ("quantizers", "int8-static"),
        ("doctor", "This machine"),
    ):
        done = cli(verb)
        assert done.returncode == 0 and done.stderr == ""
        assert words in done.stdout and "\x1b" not in done.stdout
    assert "Source" in cli("targets", "jetson-agx-orin").stdout


def test_models(capsys):
    models = {model["name"]: model for model in _document(capsys, "models")["models"]}
    assert set(models) >= {"efficientnet_lite0", "photo_tagging"}
    for model in models.values():
        assert set(model) == {"name", "available", "reason", "summary", "settings"}
        assert (model["reason"] is None) == model["available"]
    assert models["photo_tagging"]["settings"]["variant"] == "resnet18"
    assert models["efficientnet_lite0"]["settings"] == {}
    assert "ImageNet" in models["efficientnet_lite0"]["summary"]


def test_quantizers(capsys):
    found = {one["name"]: one for one in _document(capsys, "quantizers")["quantizers"]}
    assert set(found) >= {"fp32", "fp16", "int8-dynamic", "int8-static", "int4-weight"}
    static = found["int8-static"]
    assert static["available"] and static["precision"] == "int8" and static["needs_calibration"]
    options = {option["name"]: option for option in static["options"]}
    choices = ["minmax", "mse", "percentile", "histogram"]
    assert options["calibration"] == {"name": "calibration", "default": "minmax", "choices": choices}


@pytest.mark.parametrize(("verb", "group"), [("models", "edge_sdk.models"), ("quantizers", "edge_sdk.quantizers")])
def test_a_plugin_that_cannot_import_stays_listed_with_the_reason(verb, group, cli, tmp_path):
    info = tmp_path / "plugin" / "broken_plugin-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{group}]\nbroken = broken_plugin:Plugin\n")
    (tmp_path / "plugin" / "broken_plugin.py").write_text("import a_package_that_nobody_has\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "plugin"), "COLUMNS": "160"}
    (listed,) = [
        one for one in json.loads(cli(verb, "--json", env=environment).stdout)[verb] if one["name"] == "broken"
    ]
    assert listed["available"] is False
    assert "No module named 'a_package_that_nobody_has'" in listed["reason"]
    assert "not available:" in cli(verb, env=environment).stdout


def test_doctor(capsys):
    document = _document(capsys, "doctor")
    assert list(document) == [
        "edge_sdk",
        "python",
        "system",
        "cpu",
        "gpu",
        "tensorrt",
        "cache",
        "reaches",
        "packages",
        "advice",
    ]
    assert document["python"] == {"version": platform.python_version(), "executable": sys.executable}
    assert document["system"]["abi"] == platform.machine()
    assert document["cpu"]["processors"] == len(os.sched_getaffinity(0))
    assert document["cache"]["path"] == os.environ["EDGE_SDK_CACHE"]
    assert document["cache"]["free_bytes"] > 0
    found = {package["name"]: package for package in document["packages"]}
    assert found["pydantic"] == {
        "name": "pydantic",
        "wanted": ">=2.10",
        "installed": metadata.version("pydantic"),
        "extras": ["base"],
        "fits": True,
    }
    assert set(found["torch"]["extras"]) >= {"executorch", "onnxruntime", "demo"}
    assert found["executorch"]["wanted"] == "==1.4.*"


def test_doctor_says_what_does_not_fit(cli, tmp_path):
    """A distribution that shadows the installed one, as a careless upgrade leaves it."""
    info = tmp_path / "shadow" / "torch-2.15.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.15.0\n")
    done = cli("doctor", "--json", env={**os.environ, "PYTHONPATH": str(tmp_path / "shadow")})
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert [package["installed"] for package in document["packages"] if package["fits"] is False] == ["2.15.0"]
    assert "torch 2.15.0 does not fit: pip install 'torch<2.14,>=2.13'" in document["advice"]


def test_doctor_warns_of_a_cache_that_cannot_be_written(cli):
    document = json.loads(cli("doctor", "--json", env={**os.environ, "EDGE_SDK_CACHE": "/proc/nowhere"}).stdout)
    assert document["cache"]["path"] == "/proc/nowhere"
    if not document["cache"]["writable"]:  # root may write everywhere, as far as the system tells
        assert any("set EDGE_SDK_CACHE" in line for line in document["advice"])


def test_packages_of_another_platform_are_left_out():
    assert all(package.extras for package in packages())
    assert Package("x", "", None, ("base",)).fits is None
    assert Package("x", ">=2", "1.9", ("base",)).fits is False
    assert Package("x", "", "1.9", ("base",)).fits is True
