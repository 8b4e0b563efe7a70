"""A runner that only sleeps: ``python sleeping_runner.py SECONDS``."""

from __future__ import annotations

import sys
from time import sleep

if __name__ == "__main__":
    sleep(float(sys.argv[1]))
