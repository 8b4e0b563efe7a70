"""What people write and what travels: targets, manifests, requests, reports.

Nothing is imported before it is asked for, so that the command line can list targets quickly.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_sdk.schema.target import Target

__all__ = ["load_target", "target_names"]


def load_target(name: str | Path) -> Target:
    """Reads and validates a target profile.

    Args:
        name: A name that `target_names` gives, or the path of a ``.yaml`` or ``.yml`` file.

    Raises:
        TargetError: The profile is unknown, broken or hostile; the message holds every fault of it.
    """
    from edge_sdk.schema._load import load

    return load(name)


def target_names() -> list[str]:
    """The names of the built-in profiles and of those in the folders of ``$EDGE_SDK_TARGETS``, sorted.

    The files are not read: a broken profile is listed, and `load_target` says what is wrong with it.

    Raises:
        TargetError: A folder of ``$EDGE_SDK_TARGETS`` is missing, or a name is there twice.
    """
    from edge_sdk.schema._find import profiles

    return sorted(profiles())
