"""The profiles that docs/targets.md shows are valid, and its table has every key."""

from __future__ import annotations

import re
from pathlib import Path

from edge_sdk.schema import load_target
from edge_sdk.schema.target import Target

TEXT = (Path(__file__).parents[2] / "docs" / "targets.md").read_text()


def test_every_profile_in_the_documentation_loads(write):
    blocks = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
    assert blocks
    for block in blocks:
        target = load_target(write(block))
        assert target.name in block


def test_every_key_at_the_top_is_documented():
    table = TEXT.split("## Key by key")[1]
    documented = set(re.findall(r"`([a-z_]+)", table))
    assert set(Target.model_fields) <= documented
