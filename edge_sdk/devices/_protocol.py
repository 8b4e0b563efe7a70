"""Reads a runner's answer strictly: every line a known message, in the protocol's order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import NoReturn

from pydantic import TypeAdapter, ValidationError

from edge_sdk.errors import DeviceError, MissingDependencyError
from edge_sdk.schema._base import faults
from edge_sdk.schema.messages import Answer, Failure, Hello, Message, Progress, Result

_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[^\n\t\x20-\x7e\xa0-\U0010ffff]|[\u202a-\u202e\u2066-\u2069]")
_SHOWN = 160


class BrokenStreamError(Exception):
    """The stream of a runner's lines ended or misbehaved; the message says how."""


def plain(text: str) -> str:
    """Text of a device without terminal escapes, control characters and changes of writing direction."""
    return _CONTROL.sub("", text)


@cache
def _adapter() -> TypeAdapter[Message]:
    return TypeAdapter(Message)


def conversation(
    lines: Iterable[bytes],
    uri: str,
    runtime: str,
    tail: Callable[[], str],
    advice: str | None = None,
    *,
    session: bool = False,
) -> Iterator[Message]:
    """A runner's messages up to ``result``.

    Args:
        lines: What came on the channel, line by line. May raise `BrokenStreamError`.
        uri: The device, for messages.
        runtime: The runtime, for messages.
        tail: Gives the end of the runner's standard error when something went wrong.
        advice: How to bring a missing runtime there, None for the package of this machine.
        session: Whether it answers calls.

    Raises:
        DeviceError: The runner failed or did not keep to the protocol.
        MissingDependencyError: The runtime is not installed where the runner ran.
    """
    stage = "start"

    def fail(reason: str, error: Exception | None = None, explained: bool = False) -> NoReturn:
        end = "" if explained else plain(tail()).strip()
        seen = f"\nThe end of its standard error:\n{end}" if end else ""
        raise DeviceError(f"device '{uri}': the {runtime} runner failed at step '{stage}': {reason}{seen}") from error

    greeted = False
    try:
        for line in lines:
            try:
                message = _adapter().validate_json(line)
            except ValidationError as error:
                fail(f"it sent a line that is no message of the protocol: {_shown(line)} ({faults(error)[0]}).", error)
            if isinstance(message, Failure):
                stage = plain(message.stage)
                if message.kind == "missing_runtime":
                    raise MissingDependencyError(
                        f"device '{uri}': the runtime '{runtime}' cannot be imported there: {plain(message.message)}. "
                        + (advice or f"Install it: pip install 'edge-sdk[{runtime}]'")
                    )
                fail(f"{plain(message.message)} ({message.kind}).", explained=message.kind != "runtime")
            if isinstance(message, Hello) is greeted:
                fail(f"it sent '{message.type}' {'again' if greeted else 'before hello'}.")
            if isinstance(message, Hello) and message.runtime != runtime:
                fail(f"it calls itself '{plain(message.runtime)}'.")
            greeted = True
            if isinstance(message, Answer) and not session:
                fail("it answered a call, and none was made.")
            if isinstance(message, Progress):
                stage = plain(message.stage)
            yield message
            if isinstance(message, Result):
                return
    except BrokenStreamError as error:
        fail(str(error), error)
    fail("it ended without a result.")


def _shown(line: bytes) -> str:
    text = plain(line[: _SHOWN * 4].decode(errors="replace"))
    return repr(text[:_SHOWN]) + ("..." if len(text) > _SHOWN else "")
