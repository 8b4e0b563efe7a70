"""A link of a limited rate to a server, in a process of its own: ``link.py HOST PORT BYTES_PER_S``.

It prints its port and ends when its standard input does.
"""

from __future__ import annotations

import sys

from edge_sdk.testing import LinkProxy

host, port, rate = sys.argv[1:]
with LinkProxy(host, int(port), bytes_per_s=float(rate)) as link:
    print(link.port, flush=True)
    sys.stdin.read()
