"""Ports on loopback."""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"
EMULATORS = range(5555, 5586)
"""An adb server probes these for emulators. Source: adb's manual, "Query for devices"."""


def bound() -> socket.socket:
    """A socket that is bound to a free port no adb server probes. It refuses clients until it listens."""
    while True:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((HOST, 0))
        if sock.getsockname()[1] not in EMULATORS:
            return sock
        sock.close()


def free() -> int:
    """A port that is free at this moment, for a program that binds it itself.

    It is drawn from below the range that the kernel hands out, so that no client takes it meanwhile.
    """
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            try:
                sock.bind((HOST, port))
            except OSError:
                continue
            return port


def is_open(port: int) -> bool:
    """Whether something listens there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(1.0)
        return sock.connect_ex((HOST, port)) == 0
