"""The frame of the command line: help, usage, error lines, exit codes, streams."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from edge_sdk import __version__
from edge_sdk.cli import main
from edge_sdk.cli._parser import VERBS, add_output_options, verb_parser


def _parser(verb):
    parser = verb_parser(verb)
    import_module(f"edge_sdk.cli.{verb}").configure(parser)
    add_output_options(parser)
    return parser


def test_help_names_every_verb_and_exit_code(cli):
    done = cli("--help")
    assert done.returncode == 0 and done.stderr == ""
    for verb, summary in VERBS.items():
        assert re.search(rf"^  {verb} +{re.escape(summary)}$", done.stdout, re.M)
    for code in (0, 1, 2, 3, 4, 130):
        assert re.search(rf"^  {code}  \w", done.stdout, re.M)


def test_nothing_asked_shows_the_help(cli):
    assert cli().stdout == cli("--help").stdout


def test_version(cli):
    assert cli("--version").stdout == f"edge-sdk {__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_a_module_with_help_and_examples_that_parse(verb, capsys):
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    examples = re.findall(rf"^  edge-sdk ({verb}\b.*)$", text.partition("example:\n")[2], re.M)
    assert examples
    for example in examples:
        assert _parser(verb).parse(shlex.split(example)[1:]) is not None


def test_the_examples_of_the_top_help_parse(capsys):
    assert main(["--help"]) == 0
    for verb, rest in re.findall(r"^  edge-sdk (\w+) (.*)$", capsys.readouterr().out, re.M):
        assert _parser(verb).parse(shlex.split(rest)) is not None


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md", "docs/cli.md"])
def test_the_examples_of_the_pages_parse(page):
    text = (Path(__file__).parents[2] / page).read_text("utf-8")
    examples = re.findall(r"^edge-sdk (\w+)(.*)$", text, re.M)
    for verb, rest in examples:
        command = rest.partition("|")[0]
        assert _parser(verb).parse(shlex.split(command, comments=True)) is not None, command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["deplyo"], "unknown verb 'deplyo'. Did you mean 'deploy'?"),
        (["--verbose", "targets"], "'--verbose' comes before the verb; expected: edge-sdk VERB [options]"),
        (["deploy", "net.onnx"], "the following arguments are required: --target"),
        (["deploy", "a", "--target", "b", "--tar", "c"], "unrecognized arguments: --tar c"),
        (["compile", "a", "--target", "b", "--set", "variant"], "argument --set: found 'variant', expected KEY=VALUE"),
        (["compile", "a", "--target", "b", "--set", "=x"], "argument --set: found '=x', expected KEY=VALUE"),
        (
            ["compile", "a", "--target", "b", "--set", "k=1", "--set", "k=2"],
            "argument --set: 'k' is given twice, as '1' and as '2'",
        ),
        (
            ["compile", "a", "--target", "b", "--max-drop", "5%"],
            "argument --max-drop: found '5%', expected a number from 0 to below 1, such as 0.01",
        ),
        (["compile", "a", "--target", "b", "--max-drop", "nan"], "argument --max-drop: found 'nan', expected"),
        (["profile", "a.edge", "--threads", "0"], "argument --threads: found '0', expected a whole number from 1"),
    ],
)
def test_usage_errors(arguments, message, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"edge-sdk: error: {message}")
    assert re.search(r"\. Try 'edge-sdk( \w+)? --help'\.\n$", err) and err.count("\n") == 1


def test_a_usage_error_is_a_json_document_where_json_is_wanted(capsys):
    assert main(["deploy", "--json"]) == 2
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert error["kind"] == "UsageError" and error["exit_code"] == 2
    assert error["message"] in err


def test_an_error_is_one_line_and_its_exit_code(cli):
    done = cli("targets", "desktop-cpus")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("edge-sdk: error: unknown target 'desktop-cpus'. Did you mean 'desktop-cpu'? Known: ")
    assert done.stderr.count("\n") == 1


def test_an_error_is_a_json_document_where_json_is_wanted(cli):
    done = cli("targets", "desktop-cpus", "--json")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == "TargetError" and error["exit_code"] == 1
    assert done.stderr == f"edge-sdk: error: {error['message']}\n"


def test_debug_adds_the_traceback(cli):
    done = cli("targets", "desktop-cpus", env={**os.environ, "EDGE_SDK_DEBUG": "1"})
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert "edge-sdk: error: unknown target" in done.stderr.splitlines()[-1]


def test_what_is_not_ours_cannot_drive_the_terminal(cli):
    done = cli("targets", "\x1b]0;owned\x07.yaml")
    assert done.returncode == 1
    assert "\x1b" not in done.stderr and "\\x1b]0;owned\\x07.yaml" in done.stderr


def test_a_fault_of_our_own_is_one_line_that_says_how_to_see_more(cli, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import edge_sdk.schema\n"
        "def broken():\n    raise ZeroDivisionError('division by zero')\n"
        "edge_sdk.schema.target_names = broken\n"
    )
    done = cli("targets", "--json", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == "InternalError"
    assert error["message"].startswith("unexpected ZeroDivisionError: division by zero. ")
    assert "EDGE_SDK_DEBUG=1" in error["message"]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["targets"], ["targets", "--json"], ["targets", "nonsense", "--json"]])
def test_a_reader_that_goes_away_is_no_error(arguments, cli):
    exit_, entry = os.pipe()
    os.close(exit_)
    with open(entry, "wb") as pipe:
        done = cli(*arguments, capture_output=False, stdout=pipe, stderr=subprocess.PIPE)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full to fill")
def test_a_full_disk_under_standard_output_is_an_error(cli):
    with open("/dev/full", "w") as full:
        done = cli("targets", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == "edge-sdk: error: cannot write to standard output: No space left on device\n"
