"""Debian packages that some tests need: ``python tests/debian_packages.py`` installs them where it may.

It never fails: a test whose package is missing is skipped, and the run prints which test and why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

NEEDED = {
    "opencv-doc": Path("/usr/share/doc/opencv-doc/examples"),
    "dataset-fashion-mnist": Path("/usr/share/datasets/fashion-mnist"),
    "adb": Path("/usr/bin/adb"),
    "openssh-server": Path("/usr/sbin/sshd"),
    "openssh-client": Path("/usr/bin/ssh"),
    "espeak-ng": Path("/usr/bin/espeak-ng"),
    "alsa-utils": Path("/usr/bin/aplay"),
    "xvfb": Path("/usr/bin/Xvfb"),
    "libgl1": Path("/usr/share/doc/libgl1"),
    "libglib2.0-0": Path("/usr/share/doc/libglib2.0-0"),
}
"""Package name to a path that it brings."""


def missing() -> list[str]:
    """The packages that are not there."""
    return [name for name, path in NEEDED.items() if not path.exists()]


def install(names: list[str]) -> str | None:
    """Installs packages with apt; gives the reason where it cannot."""
    if shutil.which("apt-get") is None:
        return "this is not a Debian system: there is no apt-get"
    prefix = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    if prefix and (shutil.which("sudo") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode):
        return "that takes root, or sudo without a password"
    command = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    subprocess.run([*command, "update", "-q"], stdout=subprocess.DEVNULL)
    done = subprocess.run([*command, "install", "-y", "-q", "--no-install-recommends", *names])
    return f"apt-get ended with {done.returncode}" if done.returncode else None


def main() -> None:
    """Installs what is missing and says what came of it."""
    if not (wanted := missing()):
        print(f"Debian packages for the tests: {', '.join(NEEDED)} (there already)")
        return
    print(f"Debian packages for the tests: installing {', '.join(wanted)}", flush=True)
    reason = install(wanted)
    if left := missing():
        print(f"Not installed: {', '.join(left)}: {reason or 'the package does not hold what was expected'}.")
        print("The tests that need them will not run; the summary at the end names each.")


if __name__ == "__main__":
    main()
