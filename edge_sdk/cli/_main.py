"""From the arguments to an exit code: finds the verb, runs it, and turns every error into one line."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from edge_sdk.cli._parser import Parser, UsageError, add_output_options, top_parser, verb_parser
from edge_sdk.errors import EdgeSdkError

if TYPE_CHECKING:
    from argparse import Namespace

    from edge_sdk.cli._output import Output

INTERRUPTED = 130
CLOSED_PIPE = 141
"""128 and the number of SIGPIPE, as a shell reports it."""


class Verb(Protocol):
    """What each module of this folder that is named like a verb gives."""

    def configure(self, parser: Parser) -> None:
        """Adds the verb's arguments."""
        ...

    def run(self, args: Namespace, output: Output) -> int:
        """Does the work and returns the exit code."""
        ...


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line.

    Args:
        argv: The arguments after the program's name; None takes those of the process.

    Returns:
        The exit code: 0 well, 1 a user's error, 2 usage, 3 device, 4 a gate failed, 130 interrupted.
    """
    return _guarded(_run, sys.argv[1:] if argv is None else list(argv))


def program(module: Verb, parser: Parser, argv: Sequence[str] | None = None) -> int:
    """Runs a program beside ``edge-sdk``, such as a model's own, as if it were a verb.

    Args:
        module: Its arguments and its work.
        parser: Of its command line, still without arguments.
        argv: The arguments after its name; None takes those of the process.

    Returns:
        The exit code, as of `main`.
    """
    return _guarded(lambda rest: _work(module, parser, rest), sys.argv[1:] if argv is None else list(argv))


def _guarded(work: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """The exit code of some work; every error becomes one line."""
    as_json = "--json" in argv
    try:
        try:
            code = work(argv)
            sys.stdout.flush()
            return code
        except EdgeSdkError as error:
            return _fail(error, type(error).__name__, str(error), error.exit_code, as_json)
        except KeyboardInterrupt as error:
            code = getattr(error, "exit_code", INTERRUPTED)
            word = "interrupted" if code == INTERRUPTED else "terminated"
            return _fail(error, "Interrupted", f"{word}; nothing was left half written", code, as_json)
        except BrokenPipeError:
            raise
        except (Exception, SystemExit) as error:  # a user's own model file may call sys.exit()
            return _fail(error, "InternalError", _unexpected(error), 1, as_json)
    except BrokenPipeError:
        # The reader went away, as `head` does. Nothing more can be said, not even while the interpreter flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE


def _run(argv: Sequence[str]) -> int:
    parser = top_parser()
    verb, rest = parser.split(argv)
    if verb is None:
        return 0
    module: Verb = importlib.import_module(f"edge_sdk.cli.{verb}")  # type: ignore[assignment]
    return _work(module, verb_parser(verb), rest)


def _work(module: Verb, parser: Parser, argv: Sequence[str]) -> int:
    module.configure(parser)
    add_output_options(parser)
    args = parser.parse(argv)
    if args is None:
        return 0
    from edge_sdk.cli._chatter import apart
    from edge_sdk.cli._output import Output
    from edge_sdk.cli._stop import clean_stop

    _set_libraries_straight()
    with clean_stop(), apart(args.verbose) as (stdout, stderr):
        return module.run(args, Output(stdout, stderr, as_json=args.json))


def _set_libraries_straight() -> None:
    """Sets what PyTorch and ONNX Runtime read from the environment as they are imported, where nobody has set it.

    GNU OpenMP's threads spin without end while they wait for each other. Where another program wants
    the processor, that makes calibration ten times slower; with a short spin it does not, and a quiet
    machine is as fast. This is for compiling: the runners do not inherit it. ONNX Runtime would send
    telemetry to its makers.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = "10000"


def _unexpected(error: BaseException) -> str:
    return (
        f"unexpected {type(error).__name__}: {error}. "
        "This is a fault of Edge SDK. Run it again with EDGE_SDK_DEBUG=1 to see where, and report it."
    )


def _fail(error: BaseException, kind: str, message: str, code: int, as_json: bool) -> int:
    """Says what went wrong, on standard error and, where asked, as the one JSON document."""
    from edge_sdk.reporting.text import clean

    if os.environ.get("EDGE_SDK_DEBUG") == "1" and not isinstance(error, UsageError):
        import traceback

        traceback.print_exception(error)
    word = "" if kind == "Interrupted" else "error: "
    print(f"edge-sdk: {word}{clean(message, keep=chr(10))}", file=sys.stderr)
    if as_json:
        import json

        content = {"error": {"kind": kind, "message": message, "exit_code": code}}
        print(json.dumps(content, indent=2), flush=True)
    return code
