"""The argument parsers: of the program, which knows the verbs by name only, and of one verb."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from edge_sdk import __version__
from edge_sdk.errors import EdgeSdkError, unknown_name

VERBS = {
    "targets": "list the hardware targets and what this machine can do for each",
    "models": "list the models that come with the SDK or with plugins, and their settings",
    "quantizers": "list the methods that change precision, and their options",
    "devices": "list the devices that are attached, what each is and which targets fit it",
    "device": "prepare a device: 'edge-sdk device setup ssh://[user@]host'",
    "doctor": "check this machine: Python, processor, packages, cache, and what to install",
    "compile": "compile a model for a target into a bundle",
    "profile": "run a bundle and measure it",
    "monitor": "watch a device live: latency, processors, memory, GPUs, power, temperatures",
    "deploy": "compile, run, check against FP32 and measure, in one go",
    "caption": "caption a camera, a video or photos live, and compare models and precisions",
    "evaluate": "judge a tagger on a labelled data set: mAP, precision, recall, F1",
    "train": "train a system, such as photo tagging, into a folder with weights and metrics",
}

_EXIT_CODES = """\
exit codes:
  0  well
  1  an error in what was asked for or in its surroundings
  2  the command line is not understood
  3  the device, or the program on it, failed
  4  a result missed a limit that was set, such as --max-drop
  130  interrupted by Ctrl-C
"""


class UsageError(EdgeSdkError):
    """The command line is not understood."""

    exit_code = 2


class Parser(argparse.ArgumentParser):
    """Raises `UsageError` instead of ending the process, so that one place decides how errors look."""

    def error(self, message: str) -> NoReturn:
        """Raises what argparse found wrong.

        Raises:
            UsageError: Always.
        """
        raise UsageError(f"{message.rstrip('.')}. Try '{self.prog} --help'.")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace | None:
        """The arguments, or None where they asked for the help, which is then printed.

        Raises:
            UsageError: They are not understood.
        """
        try:
            return self.parse_args(argv)
        except SystemExit:  # argparse leaves this way after --help; an error raises UsageError
            return None

    def split(self, argv: Sequence[str]) -> tuple[str | None, Sequence[str]]:
        """The verb and its arguments; None where there was nothing to run, after printing what was asked.

        Raises:
            UsageError: The first argument is no verb.
        """
        first = argv[0] if argv else "--help"
        if first in ("-h", "--help"):
            self.print_help()
        elif first in ("-V", "--version"):
            print(f"edge-sdk {__version__}")
        elif first.startswith("-"):
            self.error(f"'{first}' comes before the verb; expected: edge-sdk VERB [options]")
        elif first not in VERBS:
            self.error(unknown_name("verb", first, VERBS))
        else:
            return first, argv[1:]
        return None, ()


def top_parser() -> Parser:
    """The parser of ``edge-sdk`` itself."""
    verbs = "\n".join(f"  {verb:<12}{summary}" for verb, summary in VERBS.items())
    parser = Parser(
        prog="edge-sdk",
        usage="edge-sdk VERB [options]",
        description="Compile a model for a piece of hardware, run it there, and believe the figures.",
        epilog=f"verbs:\n{verbs}\n\n'edge-sdk VERB --help' tells more, with an example.\n\n"
        f"example:\n  edge-sdk deploy efficientnet_lite0 --target desktop-cpu --quantize int8-static\n\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="store_true", help="print the version and exit")
    return parser


def verb_parser(verb: str) -> Parser:
    """The parser of one verb, still without arguments."""
    return Parser(
        prog=f"edge-sdk {verb}",
        description=f"{VERBS[verb][0].upper()}{VERBS[verb][1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_output_options(parser: Parser) -> None:
    """Adds what all verbs share."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "--json",
        action="store_true",
        help="print one JSON document on standard output and all else on standard error; "
        'an error is the document {"error": {"kind", "message", "exit_code"}}',
    )
    group.add_argument("-v", "--verbose", action="store_true", help="let the libraries' own messages through")


def example(parser: Parser, *commands: str) -> None:
    """Ends a verb's help with examples and the exit codes."""
    lines = "\n".join(f"  {command}" for command in commands)
    parser.epilog = f"example:\n{lines}\n\n{_EXIT_CODES}"
