"""Ports on loopback."""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"
EMULATORS = range(5555, 5586)
"""An adb server probes these for emulators. Source: adb's manual, "Query for devices"."""
_RANGE = (20000, 32000)
"""Above them, and below what Linux hands out (net.ipv4.ip_local_port_range begins at 32768)."""


def bound() -> socket.socket:
    """A socket that is bound to a free port. It refuses clients until it listens.

    It can be shut down and listen again: it keeps its port, which it would not if the kernel had chosen it.
    """
    while True:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of before may still be ending
        try:
            sock.bind((HOST, free()))
        except OSError:
            sock.close()
            continue
        return sock


def free() -> int:
    """A port that is free at this moment, for a program that binds it itself.

    No adb server probes it for emulators, and no kernel hands it out to clients.
    """
    while True:
        port = random.randrange(*_RANGE)
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
