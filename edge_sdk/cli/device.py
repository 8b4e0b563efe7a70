"""``edge-sdk device setup``: prepares a Linux device for the runners."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict

from edge_sdk.cli._output import Output
from edge_sdk.cli._parser import Parser, example


def configure(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("action", choices=["setup"], metavar="setup", help="the one thing to do so far")
    parser.add_argument("uri", metavar="URI", help="the device: ssh://[user@]host[:port]")
    parser.add_argument(
        "--runtime",
        action="append",
        metavar="NAME",
        help="onnxruntime or executorch; may be given several times (default: onnxruntime, the light one: on ARM "
        "boards executorch brings PyTorch's CUDA build of several GB)",
    )
    parser.add_argument(
        "--python",
        metavar="PATH",
        help="an interpreter on the device that has the runtime already; it is noted and nothing is installed",
    )
    example(
        parser,
        "edge-sdk device setup ssh://pi@raspberrypi.local",
        "edge-sdk device setup ssh://box --runtime executorch --python /opt/venv/bin/python",
    )


def run(args: Namespace, output: Output) -> int:
    """Prepares the device and shows what it has now."""
    from edge_sdk.devices import open_device
    from edge_sdk.devices._setup import set_up
    from edge_sdk.devices.ssh import SshDevice
    from edge_sdk.errors import UnsupportedError

    with output.progress() as progress, open_device(args.uri) as device:
        if not isinstance(device, SshDevice):
            raise UnsupportedError(
                f"device '{args.uri}' needs no set-up of this kind; expected ssh://[user@]host[:port]. On Android the "
                "runner is an app: see android/README.md."
            )
        runtimes = args.runtime or ["onnxruntime"]
        prepared = [set_up(device, runtime, args.python, progress) for runtime in runtimes]
    document = {"device": args.uri, "runtimes": [asdict(one) for one in prepared]}
    output.result(document, lambda: _view(args.uri, prepared))
    return 0


def _view(uri: str, prepared):
    from edge_sdk.reporting.listings import prepared_view

    return prepared_view(uri, prepared)
