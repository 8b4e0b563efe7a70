"""What is pruned, as text."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edge_sdk.errors import UnsupportedError
from edge_sdk.pruning import Recipe


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("struct30", Recipe(channels=30)),
        ("mag10", Recipe(weights=10)),
        ("struct30+mag10", Recipe(30, 10)),
        ("mag10 + struct12.5", Recipe(12.5, 10)),
    ],
)
def test_a_recipe_is_read_and_written(text: str, found: Recipe):
    assert Recipe.parse(text) == found
    assert Recipe.parse(str(found)) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is no way to prune; expected structN"),
        ("struct", "'struct' is no way to prune"),
        ("struct30+", "'' is no way to prune"),
        ("channels30", "'channels30' is no way to prune"),
        ("struct-3", "'struct-3' is no way to prune"),
        ("mag10+mag20", "has mag twice"),
        ("struct0", "struct is 0 percent; expected more than 0 and at most 90"),
        ("mag95", "mag is 95 percent"),
    ],
)
def test_what_is_no_recipe_is_refused(text: str, said: str):
    with pytest.raises(UnsupportedError, match=said):
        Recipe.parse(text)


def test_a_recipe_is_read_without_torch():
    probe = "import sys; from edge_sdk.pruning import Recipe; Recipe.parse('mag10'); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
