"""House rules that a program can check: only ``cli/`` prints, links resolve, the Makefile keeps its word."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for glob in ("*.md", "docs/**/*.md", "*/README.md", "edge_sdk/**/*.md") for page in ROOT.glob(glob))
LINK = re.compile(r"\]\(([^)\s]+)\)")


def _ruff(*arguments: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("ruff", reason="ruff is not installed: pip install 'edge-sdk[dev]'")
    return subprocess.run([sys.executable, "-m", "ruff", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_only_the_command_line_prints():
    done = _ruff("check", "--no-cache", "--isolated", "--select", "T20", "--exclude", "edge_sdk/cli", "edge_sdk")
    assert done.returncode == 0, done.stdout


def test_ruff_finds_nothing():
    done = _ruff("check", "--no-cache", ".")
    assert done.returncode == 0, done.stdout


def test_code_is_formatted():
    done = _ruff("format", "--no-cache", "--check", ".")
    assert done.returncode == 0, done.stdout


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ +(.+?)\s*$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_are_pages():
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "VERIFIED.md", "quickstart.md"} <= {p.name for p in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page):
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    broken = []
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        aim = (page.parent / path).resolve() if path else page
        if not aim.exists() or (anchor and anchor not in _anchors(aim)):
            broken.append(link)
    assert not broken


def _make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", (ROOT / "Makefile").read_text("utf-8"), re.M))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/quickstart.md"])
def test_make_targets_that_pages_name_exist(page):
    text = (ROOT / page).read_text("utf-8")
    named = set(re.findall(r"(?:^|`)(?:\w+=\S+ )*make ([a-z][a-z-]*)", text, re.M))
    assert named, f"{page} names no make target"
    assert named <= _make_targets()
