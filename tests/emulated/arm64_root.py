"""A stand-in for an ARM board: a Debian 12 arm64 userland under qemu-user, with an sshd of its own.

    python tests/emulated/arm64_root.py make  FOLDER
    python tests/emulated/arm64_root.py start FOLDER [--port PORT]
    python tests/emulated/arm64_root.py stop  FOLDER

``make`` takes root, the Debian packages of `PACKAGES`, a kernel with binfmt_misc and about two
minutes. What is there already is left as it is. The kernel is the host's; every program of the far
side, sshd included, is an aarch64 one.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PACKAGES = {
    "mmdebstrap": "mmdebstrap",
    "arch-test": "arch-test",
    "qemu-aarch64-static": "qemu-user-static",
    "update-binfmts": "binfmt-support",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
}
"""Program to the Debian package that brings it."""
INSIDE = ["python3", "openssh-server", "ca-certificates", "procps", "libgomp1", "libstdc++6"]
"""What the board has besides Debian's essential packages: no pip, no compiler, no python3-venv."""
MIRROR = "http://deb.debian.org/debian"
USER = "edge"
CPU = "cortex-a76"
"""The processor that qemu acts: that of a Raspberry Pi 5."""

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_WAIT_S = 60.0
# What a login program would say is not wanted; keys are the only way in.
_SSHD = f"""UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
AllowUsers {USER}
PrintMotd no
UseDNS no
Subsystem sftp internal-sftp
SetEnv QEMU_CPU={CPU}
"""
# qemu 7.2 shows the host's /proc/cpuinfo, and the host's /sys is an x86 one. ONNX Runtime reads both to choose its
# kernels, and crashes on the mixture: these say what qemu acts. Source: Arm, Cortex-A76 TRM (MIDR_EL1: implementer
# 0x41, part 0xd0b); Linux, arch/arm64/kernel/cpuinfo.c.
_CORE = """processor\t: {number}
BogoMIPS\t: 108.00
Features\t: fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""
# In a mount and PID namespace of its own: nothing of this is left when the sshd has ended.
_INSIDE = """set -e
mount -t proc proc "$1/proc"
mount --bind "$1/etc/cpuinfo" "$1/proc/cpuinfo"
mount -t tmpfs tmpfs "$1/sys"
mkdir -p "$1/sys/devices/system/cpu"
cp "$1/etc/cpus" "$1/sys/devices/system/cpu/possible"
cp "$1/etc/cpus" "$1/sys/devices/system/cpu/present"
cp "$1/etc/cpus" "$1/sys/devices/system/cpu/online"
mount -t tmpfs tmpfs "$1/dev/shm"
mkdir -p "$1/run/sshd"
exec chroot "$1" /usr/sbin/sshd -D -e -p "$2" -o ListenAddress=127.0.0.1
"""

say = logging.getLogger(__name__).info


def make(folder: Path) -> None:
    """Makes the root, its user and its keys in ``folder``; does what is not done yet."""
    if os.geteuid() != 0:
        sys.exit("making the arm64 root takes root: chroot and binfmt_misc need it")
    if absent := sorted({package for program, package in PACKAGES.items() if not shutil.which(program)}):
        sys.exit(f"missing: apt-get install --no-install-recommends {' '.join(absent)}")
    _register()
    root = folder / "root"
    folder.mkdir(parents=True, exist_ok=True)
    if not root.exists():
        say(f"unpacking Debian 12 arm64 into {root}: about two minutes")
        part = folder / "root.part"
        subprocess.run(["rm", "-rf", part], check=True)
        options = [f"--include={','.join(INSIDE)}", "--architectures=arm64", "--variant=essential", "--quiet"]
        for unread in ("doc", "man", "locale"):
            options.append(f"--dpkgopt=path-exclude=/usr/share/{unread}/*")
        subprocess.run(["mmdebstrap", *options, "bookworm", part, MIRROR], check=True)
        part.rename(root)
    if not (root / "home" / USER).exists():
        say(f"adding the user {USER}")
        _inside(root, "useradd", "--create-home", "--shell", "/bin/bash", USER)
        # A password that nothing matches: an account with none at all is locked, for keys too.
        _inside(root, "usermod", "--password", "*", USER)
    if not (folder / "key").exists():
        say("making the user's key")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    keys = root / "home" / USER / ".ssh"
    keys.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(folder / "key.pub", keys / "authorized_keys")
    _inside(root, "chown", "-R", f"{USER}:", f"/home/{USER}/.ssh")
    (root / "etc/ssh/sshd_config").write_text(_SSHD)
    cores = os.cpu_count() or 1
    (root / "etc/cpuinfo").write_text("".join(_CORE.format(number=number) for number in range(cores)))
    (root / "etc/cpus").write_text(f"0-{cores - 1}\n" if cores > 1 else "0\n")
    say(f"ready: {root}, {_inside(root, 'uname', '-m')}, {_inside(root, 'python3', '-V')}")


def start(folder: Path, port: int = 0) -> str:
    """Starts the sshd on loopback; writes ``ssh_config`` and ``known_hosts``; gives the device's URI."""
    stop(folder)
    _register()
    root = folder / "root"
    port = port or _free_port()
    host_key = (root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key[0]} {host_key[1]}\n")
    (folder / "ssh_config").write_text(
        f"Host 127.0.0.1\n  IdentityFile {folder / 'key'}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder / 'known_hosts'}\n  GlobalKnownHostsFile none\n"
    )
    with open(folder / "sshd.log", "wb") as log:
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _INSIDE, "sh", root, str(port)]
        daemon = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    (folder / "sshd.pid").write_text(str(daemon.pid))
    until = time.monotonic() + _WAIT_S
    while b"Server listening on" not in (said := (folder / "sshd.log").read_bytes()):
        if daemon.poll() is not None or time.monotonic() > until:
            stop(folder)
            raise RuntimeError(f"the sshd does not listen; it said: {said[-2000:].decode(errors='replace')}")
        time.sleep(0.1)
    return f"ssh://{USER}@127.0.0.1:{port}"


def stop(folder: Path) -> None:
    """Ends the sshd and all that was started through it; nothing happens where none runs."""
    pid = folder / "sshd.pid"
    if not pid.exists():
        return
    number = int(pid.read_text())
    command = Path(f"/proc/{number}/cmdline")
    # The number may be another program's by now.
    if command.exists() and str(folder / "root").encode() in command.read_bytes():
        # unshare ignores a polite request; with it the first process of the namespace dies, and all in it.
        os.kill(number, signal.SIGKILL)
    pid.unlink()


def _register() -> None:
    """Tells the kernel to run aarch64 programs by qemu, in every root (flag F)."""
    if (_BINFMT / "qemu-aarch64").exists():
        return
    if not (_BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", _BINFMT], check=True)
    say("registering qemu-aarch64 with binfmt_misc")
    subprocess.run(["update-binfmts", "--import", "qemu-aarch64"], check=True)
    subprocess.run(["update-binfmts", "--enable", "qemu-aarch64"], capture_output=True)
    if not (_BINFMT / "qemu-aarch64").exists():
        sys.exit("binfmt_misc did not take qemu-aarch64: see update-binfmts --display qemu-aarch64")


def _inside(root: Path, *command: str) -> str:
    clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["chroot", root, *command], check=True, text=True, stdout=subprocess.PIPE, env=clean)
    return done.stdout.strip()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["make", "start", "stop"])
    parser.add_argument("folder", type=lambda text: Path(text).resolve())
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    if options.verb == "make":
        make(options.folder)
    elif options.verb == "stop":
        stop(options.folder)
    else:
        uri = start(options.folder, options.port)
        say(f"listening; use it with\n  export EDGE_SDK_SSH_CONFIG={options.folder / 'ssh_config'}\n  --device {uri}")


if __name__ == "__main__":
    main()
