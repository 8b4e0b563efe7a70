"""What decides a model's weights and graph, known without loading it."""

from __future__ import annotations

import hashlib
from pathlib import Path

_HERE = Path(__file__).parent


def source_hash(plugin: Path) -> str:
    """The SHA-256 over a plugin's folder and the modules that plugins share, in hexadecimal.

    Args:
        plugin: The plugin's folder.
    """
    total = hashlib.sha256()
    for folder in (plugin, _HERE):
        for path in sorted(path for path in folder.iterdir() if path.suffix in (".py", ".txt")):
            total.update(f"{path.name}\0".encode())
            total.update(path.read_bytes())
    return total.hexdigest()
