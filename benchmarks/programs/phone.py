"""The stand-in phone in a process of its own: ``phone.py FOLDER``.

It prints its port and ends when its standard input does.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edge_sdk.testing import Phone

with Phone(Path(sys.argv[1])) as phone:
    print(phone.port, flush=True)
    sys.stdin.read()
