"""The errors that Edge SDK raises on purpose.

```
EdgeSdkError                      exit code 1
├── TargetError                   a profile that is unknown, broken or hostile
├── ModelError                    a model that cannot be found, loaded or exported
├── UnsupportedError              the target, runtime or quantizer does not allow what was asked
├── MissingDependencyError        a package that is not installed; names the extra
├── BundleError                   a bundle that is damaged, hostile or of another schema version
├── StorageError                  the disk is full, read-only or not ours to write
├── DeviceError                   exit code 3: the device or the program on it failed
│   └── LinkLostError             the link dropped; the same call may go through later
└── GateError                     exit code 4: a result missed a limit that the user set
```

Every message says what failed, what was found, what was expected and what to do next. Errors of
other libraries are mapped to these once, where they enter, with ``raise ... from error``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager


class EdgeSdkError(Exception):
    """Root of the tree. ``exit_code`` is what the command line ends with."""

    exit_code = 1


class TargetError(EdgeSdkError):
    """A target profile is unknown, broken or hostile."""


class ModelError(EdgeSdkError):
    """A model cannot be found, loaded or exported."""


class UnsupportedError(EdgeSdkError):
    """The target, the runtime or the quantizer does not allow what was asked."""


class MissingDependencyError(EdgeSdkError):
    """A package that this step needs is not installed."""


class BundleError(EdgeSdkError):
    """A bundle is damaged, hostile or of another schema version."""


class StorageError(EdgeSdkError):
    """A file cannot be written: the disk is full, read-only or not ours."""


class DeviceError(EdgeSdkError):
    """The device, or the program that runs on it, failed.

    ``samples`` are the raw samples that had come by then, as ``samples.json`` keeps them, None where
    none had.
    """

    exit_code = 3
    samples: Mapping[str, object] | None = None


class LinkLostError(DeviceError):
    """The link to the device dropped, or could not be made; the same call may go through later.

    ``is_final`` is true where its coming back was waited for, in vain.
    """

    is_final = False


class GateError(EdgeSdkError):
    """A result missed a limit that the user set."""

    exit_code = 4


def first_line(error: BaseException) -> str:
    """The first line of another library's message, at most 300 characters: the rest is for its developers."""
    return (str(error).strip().splitlines() or ["no message"])[0][:300]


@contextmanager
def refusals(who: str, what: str) -> Iterator[None]:
    """Maps whatever a library raises in the block to a `ModelError`: ``WHO refuses WHAT: first line``.

    For libraries that raise classes of their own compiled modules, which cannot be named.
    """
    try:
        yield
    except EdgeSdkError:
        raise
    except Exception as error:
        raise ModelError(f"{who} refuses {what}: {first_line(error)}") from error


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is in no table: the nearest match, then all that are known."""
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
    return f"unknown {kind} '{name}'.{hint} Known: {', '.join(known) or 'none'}."
