"""Options that several verbs share."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from edge_sdk.cli._parser import Parser


def add_compile_options(parser: Parser) -> None:
    """Adds what says which model is compiled for what, and how."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a name that 'edge-sdk models' lists, FILE.py:FUNCTION (the file is run), FILE.onnx or FILE.pt2",
    )
    group = parser.add_argument_group("compilation")
    group.add_argument(
        "--target", required=True, metavar="NAME", help="a name that 'edge-sdk targets' lists, or a YAML file"
    )
    group.add_argument(
        "--quantize", default="fp32", metavar="NAME", help="a name that 'edge-sdk quantizers' lists (default: fp32)"
    )
    group.add_argument(
        "--prune",
        metavar="RECIPE",
        help="prune every part first: structN removes channels with N percent of its parameters, magN sets N percent "
        "of its weights to zero, such as struct30+mag10; training wins back what it costs, see docs/captioning.md",
    )
    group.add_argument(
        "--runtime",
        default="auto",
        metavar="NAME",
        help="one of the target's runtimes, NAME:DELEGATE where it has several delegates, or auto: the fastest of them "
        "by measurement (default: auto)",
    )
    add_settings(group, "a setting of the model, or quantize.KEY=VALUE for an option of the quantizer")
    group.add_argument(
        "--calibration", type=Path, metavar="PATH", help="calibration inputs instead of the model's own: photos or .npz"
    )
    group.add_argument(
        "--max-drop",
        type=_drop,
        metavar="X",
        help="accuracy budget: the largest allowed drop, such as 0.01; the worst layers stay in higher precision "
        "until it is met",
    )
    group.add_argument(
        "--program",
        action="store_true",
        help="put the program alone in --out, too, by the model's own name for it, such as "
        "resnet18_multilabel_int8_xnnpack.pte",
    )
    group.add_argument("--no-rewrites", action="store_true", help="leave the graph as it was exported")
    group.add_argument("--no-cache", action="store_true", help="compile anew, whatever the cache holds")


def add_settings(parser: argparse._ActionsContainer, what: str) -> None:
    """Adds ``--set``.

    Args:
        parser: The verb's parser, or a group of it.
        what: What a key sets.
    """
    parser.add_argument(
        "--set", dest="settings", action=_Setting, metavar="KEY=VALUE", help=f"{what}; may be given several times"
    )


def add_run_options(parser: Parser) -> None:
    """Adds what says where and how it runs."""
    group = parser.add_argument_group("run")
    group.add_argument(
        "--device",
        metavar="URI",
        help="where to run and measure: local, ssh://[user@]host[:port] or adb://[serial] (default: local)",
    )
    group.add_argument(
        "--runner",
        metavar="PATH[:KIND]",
        help="a native runner of your own for that device: executor_runner or onnxruntime_perf_test, known by its "
        "file name or by KIND",
    )
    group.add_argument("--threads", type=count, metavar="N", help="processor threads (default: what the target says)")


def add_measure_options(parser: Parser) -> None:
    """Adds what says what is measured beside latency and memory."""
    group = parser.add_argument_group("measuring")
    group.add_argument("--no-energy", action="store_true", help="do not sample power")
    group.add_argument(
        "--sustain",
        type=_duration,
        metavar="TIME",
        help="run on for so long (such as 10m, 90s), and compare the last minute with the first; with --out, "
        "sustained.svg shows latency, temperature and power over time",
    )


def add_out(parser: argparse._ActionsContainer, what: str, otherwise: str) -> None:
    """Adds ``--out``.

    Args:
        parser: The verb's parser, or a group of it.
        what: What the folder gets.
        otherwise: What happens without it.
    """
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"the folder for {what} (default: {otherwise})")


def compile_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `edge_sdk.compile` and `edge_sdk.deploy` that both have."""
    return {
        "quantize": args.quantize,
        "runtime": args.runtime,
        "settings": args.settings or {},
        "out": args.out,
        "program": args.program,
        "calibration": args.calibration,
        "max_drop": args.max_drop,
        "rewrites": not args.no_rewrites,
        "prune": args.prune,
        "use_cache": not args.no_cache,
        "device": args.device,
        "runner": args.runner,
        "threads": args.threads,
    }


def measure_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `edge_sdk.profile` and `edge_sdk.deploy` that say what is measured."""
    return {"energy": not args.no_energy, "sustain_s": args.sustain}


class _Setting(argparse.Action):
    """Collects ``KEY=VALUE`` into a mapping; a key given twice is refused."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        key, equals, value = str(values).partition("=")
        if not key or not equals:
            parser.error(f"argument --set: found '{values}', expected KEY=VALUE")
        settings = getattr(namespace, self.dest) or {}
        if key in settings:
            parser.error(f"argument --set: '{key}' is given twice, as '{settings[key]}' and as '{value}'")
        setattr(namespace, self.dest, {**settings, key: value})


def _drop(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"found '{text}', expected a number from 0 to below 1, such as 0.01")
    return value


def count(text: str) -> int:
    """A whole number from 1, as the command line gives it."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found '{text}', expected a whole number from 1")
    return int(text)


def _duration(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h|)", text)
    seconds = float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if not 6 <= seconds <= 24 * 3600:
        raise argparse.ArgumentTypeError(
            f"found '{text}', expected a time from 6 seconds to 24 hours, such as 10m or 90s"
        )
    return seconds
