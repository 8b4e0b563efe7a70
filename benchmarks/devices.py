"""Devices on loopback: pushing beside scp and adb push, latency beside a local run, many devices beside one.

The board is the genuine sshd of this machine and the phone a stand-in behind the genuine adb: the ratios
say what Edge SDK adds to the clients, nothing about any hardware. Pushes go over a link that carries as
much as USB 2.0 in practice, as boards and phones have it, and over bare loopback, where nothing but the
processor's work is left and the check by hash, which the clients do not make, has to show.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter

from benchmarks._context import BenchmarkError, Context
from benchmarks._rows import Limit, Row
from benchmarks._turns import PROGRAMS, in_turns, median_s, program

TITLE = "Devices"
SIZE, QUICK_SIZE = 45_000_000, 2_000_000
ROUNDS, QUICK_ROUNDS = 15, 2
TURNS, QUICK_TURNS = 20, 2
MANY = 10
SLEEP_S = 3.0
LINK_BYTES_S = 40e6
LINK = f"{LINK_BYTES_S / 1e6:.0f} MB/s"
PUSH, ROUND_TRIP, SAME, MANY_LIMIT = (
    Limit(at_most=1.05, by_interval=True),
    Limit(at_most=1.0),
    Limit(at_least=0.98, at_most=1.02),
    Limit(at_most=1.5),
)
CLIENTS = ("ssh", "scp", "adb")


def run(context: Context) -> Iterator[Row]:
    """Pushing, latency, and many devices at once."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if missing := [name for name in CLIENTS if shutil.which(name) is None] + ([] if sshd else ["sshd"]):
        raise BenchmarkError(f"these programs are not here: {', '.join(missing)} (Debian: adb, openssh-server)")
    with _board(context.folder / "board") as (board, uri):
        yield from pushes(context, "ssh, loopback", uri, partial(_scp, board.config, board), None)
        yield _unchanged(context, "ssh", uri)
        yield latency(context, uri)
        with _link(board.host, board.port) as port, _through(board, port) as (config, slow):
            yield from pushes(context, f"ssh, {LINK}", slow, partial(_scp, config, board), PUSH)
    with _phone(context.folder / "phone") as (server, port):
        serial = server.connect(f"127.0.0.1:{port}")
        yield from pushes(context, "adb, loopback", f"adb://{serial}", partial(_adb_push, server, serial), None)
        yield _unchanged(context, "adb", f"adb://{serial}")
        with _link("127.0.0.1", port) as slow_port:
            serial = server.connect(f"127.0.0.1:{slow_port}")
            yield from pushes(context, f"adb, {LINK}", f"adb://{serial}", partial(_adb_push, server, serial), PUSH)
    yield many(context)


def pushes(
    context: Context, link: str, uri: str, by_client: Callable[[Path, int], None], limit: Limit | None
) -> Iterator[Row]:
    """A push of a large file over one by the client itself."""
    from edge_sdk.devices import open_device
    from edge_sdk.profiling.interleave import compare_rounds

    size = QUICK_SIZE if context.quick else SIZE
    rounds = QUICK_ROUNDS if context.quick else ROUNDS
    numbers = iter(range(10**6))

    def ours(device=None) -> float:
        file = _random_file(context.folder / f"push-{next(numbers)}.bin", size)
        begin = perf_counter()
        if device is not None:
            device.push(file)
        else:
            with open_device(uri) as fresh:
                fresh.push(file)
        seconds = perf_counter() - begin
        file.unlink()
        return seconds

    def theirs() -> float:
        number = next(numbers)
        file = _random_file(context.folder / f"push-{number}.bin", size)
        begin = perf_counter()
        by_client(file, number)
        seconds = perf_counter() - begin
        file.unlink()
        return seconds

    client = "scp" if link.startswith("ssh") else "adb push"
    with open_device(uri) as device:
        sides = {"Edge SDK": partial(ours, device), "Edge SDK with opening": ours, client: theirs}
        times = in_turns(sides, rounds, lambda line: context.say(f"{link}: push, {line}"))
        how = f"{size / 1e6:.0f} MB that does not pack, {rounds} rounds in turns; checked by hash on the device"
        for name in ("Edge SDK", "Edge SDK with opening"):
            found = compare_rounds([[[t * 1e3] for t in times[client]], [[t * 1e3] for t in times[name]]])
            their_ms, our_ms = found.medians_ms
            said = f"{how}; {our_ms:.0f} ms and {their_ms:.0f} ms"
            asked = limit if name == "Edge SDK" else None
            yield Row(f"{link}: {name} / {client}", found.ratios[1].value, "ratio", said, found.ratios[1].ci95, asked)


def _unchanged(context: Context, kind: str, uri: str) -> Row:
    """What pushing an unchanged bundle costs for each of its files, in round trips."""
    from edge_sdk.devices import open_device

    folder = context.folder / f"bundle-{kind}"
    folder.mkdir()
    for name in ("manifest.json", "model.onnx", "reference.npz", "labels.txt"):
        _random_file(folder / name, 100_000)
    rounds = QUICK_ROUNDS if context.quick else ROUNDS

    def timed(action: Callable[[], object]) -> float:
        begin = perf_counter()
        action()
        return perf_counter() - begin

    with open_device(uri) as device:
        device.push(folder)
        sides = {
            "push": lambda: timed(lambda: device.push(folder)),
            "trip": lambda: timed(lambda: device.script(":", "trip")),
        }
        times = in_turns(sides, rounds, lambda _: None)
    push_s, trip_s = median_s(times["push"])[0], median_s(times["trip"])[0]
    spent = f"{push_s * 1e3:.1f} ms in all, a round trip is {trip_s * 1e3:.1f} ms"
    how = f"4 files, medians of {rounds} rounds in turns; {spent}"
    return Row(
        f"{kind}: an unchanged bundle, for each file / a round trip",
        push_s / 4 / trip_s,
        "ratio",
        how,
        limit=ROUND_TRIP,
    )


def latency(context: Context, uri: str) -> Row:
    """The latency that a run behind SSH measures over that of a local run of the same bundle."""
    import edge_sdk
    from edge_sdk.devices import open_device
    from edge_sdk.profiling._run import make_request, run_once
    from edge_sdk.profiling.interleave import TURN, compare_rounds

    case = context.models[0]
    context.say(f"{case.title}: compiling")
    bundle = edge_sdk.compile(
        case.model, "desktop-cpu", runtime="onnxruntime", quantize="int8-static", settings=dict(case.settings)
    )
    turns = QUICK_TURNS if context.quick else TURNS
    with open_device("local") as here, open_device(uri) as there, here.lock("benchmark"), there.lock("benchmark"):

        def side(device) -> tuple[float, ...]:
            request = make_request(bundle, device.push(bundle.path), None, 1).model_copy(update={"timing": TURN})
            return run_once(bundle, device, request, lambda _: None).samples_ms

        sides = {"local": partial(side, here), "ssh": partial(side, there)}
        samples = in_turns(sides, turns, lambda line: context.say(f"latency: {line}"))
    found = compare_rounds([samples["local"], samples["ssh"]])
    local_ms, ssh_ms = found.medians_ms
    how = f"{case.title}, int8-static, 1 thread, {turns} turns; {ssh_ms:.4f} ms and {local_ms:.4f} ms"
    return Row("latency through SSH / local", found.ratios[1].value, "ratio", how, found.ratios[1].ci95, SAME)


def many(context: Context) -> Row:
    """Ten devices profiled at once over one, where the runners only sleep."""
    count, rounds = (2, 1) if context.quick else (MANY, 3)
    runner = str(PROGRAMS / "sleeping_runner.py")
    with ExitStack() as stack:
        uris = [stack.enter_context(_board(context.folder / f"many-{place}"))[1] for place in range(count)]
        one, all_of_them = [], []
        for turn in range(rounds):
            context.say(f"many: round {turn + 1} of {rounds}")
            one.append(_profile_at_once(uris[:1], runner))
            all_of_them.append(_profile_at_once(uris, runner))
    one_s, all_s = median_s(one)[0], median_s(all_of_them)[0]
    how = f"runners that sleep {SLEEP_S:g} s, medians of {rounds} rounds; {all_s:.2f} s and {one_s:.2f} s"
    return Row(f"{count} devices at once / one", all_s / one_s, "ratio", how, limit=MANY_LIMIT)


def _profile_at_once(uris: list[str], runner: str) -> float:
    """How long it takes until every device has connected, pushed the program and run it."""
    from edge_sdk.devices import open_device
    from edge_sdk.devices._link import quoted

    def one(uri: str) -> None:
        with open_device(uri) as device, device.lock("benchmark"):
            place = device.push(Path(runner))
            done = device.script(quoted(sys.executable, "-S", place, str(SLEEP_S)), "run")
            if done.code:
                raise BenchmarkError(f"{uri}: {done.reason}")

    begin = perf_counter()
    with ThreadPoolExecutor(len(uris)) as pool:
        for future in [pool.submit(one, uri) for uri in uris]:
            future.result()
    return perf_counter() - begin


@contextmanager
def _board(folder: Path):
    from edge_sdk.testing import SshServer

    with SshServer(folder) as board:
        base = board.home / ".local/share/edge-sdk/envs"
        base.mkdir(parents=True)
        (base / "onnxruntime.python").write_text(sys.executable)
        config = folder.parent / "ssh_config"
        # One file for all boards of a run: each has its own alias.
        with open(config, "a") as file:
            file.write(board.config.read_text().replace(f" {board.host} localhost", ""))
        os.environ["EDGE_SDK_SSH_CONFIG"] = str(config)
        yield board, f"ssh://{board.alias}"


@contextmanager
def _through(board, port: int):
    """An ssh configuration, and the board's URI by it, that lead through a link at ``port``."""
    shared = Path(os.environ["EDGE_SDK_SSH_CONFIG"])
    config = shared.with_name("ssh_config_link")
    text = board.config.read_text()
    # The host key stays the board's own, which known_hosts keeps under its own name.
    config.write_text(
        text.replace(f"Port {board.port}\n", f"Port {port}\n  HostKeyAlias [{board.host}]:{board.port}\n")
    )
    os.environ["EDGE_SDK_SSH_CONFIG"] = str(config)
    yield config, f"ssh://{board.alias}"
    os.environ["EDGE_SDK_SSH_CONFIG"] = str(shared)


@contextmanager
def _phone(folder: Path):
    from edge_sdk.testing import AdbServer

    # Processes of their own: neither side of a comparison shares an interpreter with the stand-in.
    with _own_process("phone", folder) as port, AdbServer(folder / "adb") as server:
        os.environ.update(server.env)
        yield server, port


def _link(host: str, port: int):
    return _own_process("link", host, port, LINK_BYTES_S)


@contextmanager
def _own_process(name: str, *arguments: object) -> Iterator[int]:
    """A program of ``programs`` while it runs; the port that it prints."""
    with subprocess.Popen(program(name, *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        yield int(child.stdout.readline())
        child.communicate()


def _scp(config: Path, board, file: Path, number: int) -> None:
    target = f"{board.alias}:{board.home / f'scp-{number}'}"
    _checked(subprocess.run(["scp", "-q", "-F", str(config), str(file), target], capture_output=True, text=True))
    (board.home / f"scp-{number}").unlink()


def _adb_push(server, serial: str, file: Path, number: int) -> None:
    remote = f"/data/local/tmp/push-{number}"
    _checked(server.run("-s", serial, "push", str(file), remote, text=True))
    server.run("-s", serial, "shell", f"rm -f $TMPDIR/push-{number}")


def _checked(done: subprocess.CompletedProcess) -> None:
    if done.returncode:
        raise BenchmarkError(f"{' '.join(map(str, done.args))} ended with {done.returncode}: {done.stderr.strip()}")


def _random_file(path: Path, size: int) -> Path:
    path.write_bytes(os.urandom(size))
    return path
