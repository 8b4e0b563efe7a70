"""``edge-sdk caption``: the live captioning program, and the table of its models and precisions."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.cli._options import add_out, count
from edge_sdk.cli._output import Output
from edge_sdk.cli._parser import Parser, example
from edge_sdk.errors import EdgeSdkError, UnsupportedError

if TYPE_CHECKING:
    from edge_sdk.models.captioning.live.choices import Choice, Offers
    from edge_sdk.models.captioning.live.commands import Command
    from edge_sdk.models.captioning.live.program import Face, Outcome

_ORIGINAL, _PRUNED = Path("runs/captions/best.pt"), Path("runs/captions_pruned/best.pt")
_MODELS = ("original", "pruned")
_PRECISIONS = ("fp32", "fp16", "int8-dynamic", "int8-static")


def configure(parser: Parser) -> None:
    """Adds the verb's arguments."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--checkpoint",
        type=Path,
        default=_ORIGINAL,
        metavar="PATH",
        help=f"the original model, as 'edge-sdk train captioning' wrote it (default: {_ORIGINAL})",
    )
    group.add_argument(
        "--pruned", type=Path, default=_PRUNED, metavar="PATH", help=f"the pruned model (default: {_PRUNED})"
    )
    group.add_argument("--model", choices=_MODELS, help="which to begin with (default: a menu asks)")
    group.add_argument("--quantize", choices=_PRECISIONS, help="in which precision (default: a menu asks)")
    group = parser.add_argument_group("live")
    group.add_argument(
        "--source",
        default="0",
        metavar="WHAT",
        help="the index of a camera, a video file, a folder of photos, or a photo (default: camera 0)",
    )
    group.add_argument(
        "--script",
        type=_script,
        metavar="TEXT",
        help="what to do instead of waiting for keys, such as S,P,M:2:3,S,Q: keys, M:MODEL:PRECISION by the menus' "
        "numbers, W:SECONDS to wait",
    )
    group.add_argument(
        "--window",
        action=argparse.BooleanOptionalAction,
        help="show a window (default: where there is a screen), or the view in the terminal",
    )
    voice = group.add_mutually_exclusive_group()
    voice.add_argument("--voice", action="store_true", default=True, help="say captions aloud (default)")
    voice.add_argument("--mute", dest="voice", action="store_false", help="do not")
    group = parser.add_argument_group("table")
    group.add_argument(
        "--matrix",
        action="store_true",
        help="no live program: measure both models in all precisions, and show one table of size, latency, FPS, "
        "memory, energy and agreement with the original in FP32",
    )
    add_out(group, "matrix.json and matrix.md of --matrix; what lies there is not measured again", "no file is written")
    group.add_argument("--rounds", type=count, default=5, metavar="N", help="turns of each in --matrix (default: 5)")
    group = parser.add_argument_group("run")
    group.add_argument(
        "--target",
        default="desktop-cpu",
        metavar="NAME",
        help="a name that 'edge-sdk targets' lists, or a YAML file (default: desktop-cpu)",
    )
    group.add_argument(
        "--runtime",
        metavar="NAME",
        help="one of the target's runtimes (default: the one that takes the most of the four precisions)",
    )
    group.add_argument(
        "--device", default="local", metavar="URI", help="local or ssh://[user@]host[:port] (default: local)"
    )
    group.add_argument("--threads", type=count, metavar="N", help="processor threads (default: what the target says)")
    example(
        parser,
        "edge-sdk caption",
        "edge-sdk caption --model pruned --quantize int8-static --source vtest.avi --script S,P,M:1:1,S,P,Q",
        "edge-sdk caption --matrix --out matrix",
    )


def run(args: Namespace, output: Output) -> int:
    """Runs the program to its end, or measures the table."""
    from edge_sdk.models.captioning.live.choices import Offers
    from edge_sdk.models.captioning.live.compiling import checkpoints

    offers = Offers(checkpoints(args.checkpoint, args.pruned), args.target, args.runtime)
    if args.matrix:
        return _matrix(args, offers, output)
    for command in args.script or ():
        if command.kind == "switch":
            offers.numbered(command.model, command.precision)  # what cannot be done is refused before work is spent
    outcome = _live(args, offers, output)
    error = outcome.error
    document = {
        "source": args.source,
        "device": args.device,
        "ended": outcome.ended,
        "problem": None if error is None else {"kind": type(error).__name__, "message": str(error)},
        "events": outcome.events,
        "statistics": outcome.statistics,
    }
    output.result(document, lambda: _view(outcome))
    if error is not None:
        output.tell(f"edge-sdk: error: {error}")
    return 0 if error is None else error.exit_code


def _live(args: Namespace, offers: Offers, output: Output) -> Outcome:
    from edge_sdk.devices import open_device
    from edge_sdk.models.captioning.live.captioner import DeviceCaptioner
    from edge_sdk.models.captioning.live.compiling import Compiler
    from edge_sdk.models.captioning.live.program import Program
    from edge_sdk.models.captioning.live.source import Stream, open_source
    from edge_sdk.models.captioning.live.speech import Speaker
    from edge_sdk.models.captioning.live.terminal import Keyboard

    has_window, why_not = _window(args.window)
    has_keyboard = has_window or Keyboard.is_there()
    if not has_keyboard and not args.script:
        raise UnsupportedError(
            "nobody can press a key: standard input is no terminal, and there is no window"
            f"{f' ({why_not})' if why_not else ''}. Say what to do by --script, such as --script S,P,Q."
        )
    compiler = Compiler()

    def open_captioner(choice: Choice, say: Callable[[str], None]) -> DeviceCaptioner:
        return DeviceCaptioner(compiler.bundle(choice, offers, say), args.device, args.threads, say)

    with ExitStack() as stack:
        stack.callback(compiler.stop)
        stream = Stream(open_source(args.source))
        stack.callback(stream.source.close)
        choice = _choice(args, offers, output)
        offers.check(choice)
        stack.enter_context(stack.enter_context(open_device(args.device)).lock("edge-sdk caption"))
        with output.progress() as say:
            captioner = open_captioner(choice, say)
        program = Program(stream, offers, choice, captioner, open_captioner, compiler.stop)
        if why_not:
            program.note(f"no window: {why_not}")
        if args.voice:
            program.speaker = Speaker(program.note)
        program.faces = _faces(has_window, output, stack)
        return program.run(args.script or (), stays=has_keyboard and not args.script)


def _matrix(args: Namespace, offers: Offers, output: Output) -> int:
    from edge_sdk.models.captioning.live.matrix import measure

    with output.progress() as say:
        document = measure(offers, args.device, threads=args.threads, rounds=args.rounds, out=args.out, say=say)
    output.result(document, lambda: _table(document))
    return 0


def _window(asked: bool | None) -> tuple[bool, str]:
    """Whether there is to be a window, and why there is none though one would be expected."""
    import os
    import sys

    if asked is False or (asked is None and sys.platform.startswith("linux") and not os.environ.get("DISPLAY")):
        return False, ""
    from edge_sdk.models.captioning.live.window import problem

    why_not = problem()
    if why_not and asked:
        raise UnsupportedError(f"--window: {why_not}. Leave --window out for the view in the terminal.")
    return not why_not, why_not


def _faces(has_window: bool, output: Output, stack: ExitStack) -> Sequence[Face]:
    """Who shows the program: the window, the view in the terminal, or lines."""
    from edge_sdk.models.captioning.live.terminal import Keyboard, Lines, Terminal

    keyboard = Keyboard() if Keyboard.is_there() else None
    faces: list[Face] = []
    if has_window:
        from edge_sdk.models.captioning.live.window import Window

        faces.append(Window())
    if output.is_live and not has_window:
        faces.append(Terminal(stack.enter_context(output.live(_screen, str)), keyboard))
    else:
        faces.append(Lines(output.tell, keyboard))
    return faces


def _choice(args: Namespace, offers: Offers, output: Output) -> Choice:
    """What to begin with: by the options, by menus, or the original in FP32 where nobody can be asked."""
    from edge_sdk.models.captioning.live.choices import Choice, ask
    from edge_sdk.models.captioning.live.terminal import Keyboard

    model, precision = args.model, args.quantize
    if Keyboard.is_there() and not args.script:
        model = model or ask("Choose a model", "Model", offers.models, output.ask)
        precision = precision or ask("Choose a precision", "Precision", offers.precisions, output.ask)
    return Choice(model or _MODELS[0], precision or _PRECISIONS[0])


def _script(text: str) -> list[Command]:
    from edge_sdk.models.captioning.live.commands import parse_script

    try:
        return parse_script(text)
    except EdgeSdkError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _screen(screen: Any):
    from edge_sdk.reporting.caption import caption_view

    return caption_view(screen)


def _view(outcome: Outcome):
    from edge_sdk.reporting.caption import outcome_view

    return outcome_view(outcome)


def _table(document: dict[str, Any]):
    from edge_sdk.reporting.caption import matrix_view

    return matrix_view(document)
