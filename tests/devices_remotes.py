"""A board behind the genuine sshd and a phone behind the genuine adb, each through a link that can be cut."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from edge_sdk.devices import DEVICES
from edge_sdk.devices._remote import RemoteDevice
from edge_sdk.schema.request import Timing
from edge_sdk.testing import AdbServer, LinkProxy, Phone, SshServer

QUICK = Timing(warmup_min_runs=3, warmup_max_s=0.3, min_runs=20, min_time_s=0.05, max_time_s=0.4, ci_within=0.2)

BOARD = pytest.param("ssh", marks=pytest.mark.debian("openssh-server"))
PHONE = pytest.param("adb", marks=pytest.mark.debian("adb"))


@dataclass(frozen=True)
class Remote:
    """A stand-in, its URI, the link to it, and the folder that Edge SDK keeps there."""

    uri: str
    stand_in: Any
    link: LinkProxy
    base: Path

    def open(self, **options) -> RemoteDevice:
        """The device, with little patience so that tests are quick."""
        scheme = self.uri.partition("://")[0]
        return DEVICES.load(scheme)(self.uri, **{"patience_s": 8.0, "lock_wait_s": 0.3, **options})

    def left_behind(self) -> list[str]:
        """Processes, files of sessions and locks that are still there; waits a little for those that are ending."""
        deadline = monotonic() + 8
        while (found := self._left()) and monotonic() < deadline:
            sleep(0.05)
        return found

    def _left(self) -> list[str]:
        found = [process.command for process in self.stand_in.processes()]
        found += [str(path) for path in self.base.glob("runs/*")]
        found += [str(lock) for lock in self.base.glob("locks/*") if _is_held(lock)]
        found += [str(path) for path in self.base.glob("objects/*.part")]
        if isinstance(self.stand_in, Phone):
            found += [str(path) for path in self.stand_in.sdcard.glob("Android/data/*/files/edge-sdk/*/*")]
        return found


def _is_held(lock: Path) -> bool:
    return not (lock / "free").exists() and Path("/proc", (lock / "pid").read_text().strip()).exists()


@contextmanager
def remote(kind: str, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Remote]:
    """A stand-in of that kind, reached through a link, with the runner of ONNX Runtime ready."""
    with remotes(kind, folder, patch, 1) as (one,):
        yield one


@contextmanager
def remotes(kind: str, folder: Path, patch: pytest.MonkeyPatch, count: int) -> Iterator[list[Remote]]:
    """Several stand-ins of that kind at once."""
    with ExitStack() as stack:
        if kind == "ssh":
            boards = [stack.enter_context(SshServer(folder / f"board-{place}")) for place in range(count)]
            yield [_board(board, stack, patch, boards) for board in boards]
        else:
            phones = [stack.enter_context(Phone(folder / f"phone-{place}")) for place in range(count)]
            server = stack.enter_context(AdbServer(folder / "adb"))
            for name in [name for name in os.environ if name.startswith(("ADB_", "ANDROID_"))]:
                patch.delenv(name)
            for name, value in server.env.items():
                patch.setenv(name, value)
            links = [stack.enter_context(LinkProxy("127.0.0.1", phone.port)) for phone in phones]
            yield [
                Remote(f"adb://{link.host}:{link.port}", phone, link, phone.tmp / "edge-sdk")
                for phone, link in zip(phones, links, strict=True)
            ]


def _board(board: SshServer, stack: ExitStack, patch: pytest.MonkeyPatch, boards: list[SshServer]) -> Remote:
    link = stack.enter_context(LinkProxy(board.host, board.port))
    base = board.home / ".local/share/edge-sdk"
    (base / "envs").mkdir(parents=True)
    for runtime in ("onnxruntime", "executorch"):
        (base / f"envs/{runtime}.python").write_text(sys.executable)
    if len(boards) == 1:
        patch.setenv("EDGE_SDK_SSH_CONFIG", str(board.config))
        return Remote(f"ssh://{link.host}:{link.port}", board, link, base)
    # One configuration for all: each board has an alias, which leads to its link.
    config = boards[0].folder / "all"
    with open(config, "a") as file:
        text = board.config.read_text().replace(f"Host {board.alias} {board.host} localhost", f"Host {board.alias}")
        file.write(text.replace(f"Port {board.port}", f"Port {link.port}"))
    patch.setenv("EDGE_SDK_SSH_CONFIG", str(config))
    return Remote(f"ssh://{board.alias}", board, link, base)
