"""Names of a user's models and tensors."""

from __future__ import annotations

import re

from edge_sdk.errors import ModelError

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def model_name(given: str | None, source: str) -> str:
    """The name that the user gave, else one made from the function's or file's.

    Args:
        given: ``--set name=...``, or None.
        source: A function's name, or a file's without its ending.

    Raises:
        ModelError: The given name cannot be a file name.
    """
    if given is None:
        made = re.sub(r"[^a-z0-9._-]+", "-", source.lower()).strip("._-")
        return made[:64] or "model"
    if not _NAME.fullmatch(given):
        raise ModelError(
            f"name is '{given}'; expected 1 to 64 of a-z, 0-9, '.', '_' and '-', with a letter or digit first."
        )
    return given
