"""Prepares a Linux device for the Python runners: an environment of its own, without root, from pinned wheels.

The wheels are downloaded by this machine's pip, for the device's processor, C library and Python,
and pushed like a bundle; the device itself needs no network, no pip and no compiler.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk._paths import cache_dir
from edge_sdk.devices._link import quoted
from edge_sdk.devices._protocol import plain
from edge_sdk.errors import DeviceError, MissingDependencyError, StorageError, unknown_name

if TYPE_CHECKING:
    from edge_sdk.devices.ssh import SshDevice

PACKAGES = {"onnxruntime": ("onnxruntime", "numpy"), "executorch": ("executorch", "torch", "numpy")}
"""What a runner imports, by runtime. The first is the runtime itself."""
_ALONE = {"executorch"}
"""Packages that are taken without what they require: that is for compiling, and not all of it is there for ARM."""

_CHECK = "import importlib.metadata as m, {modules}; print(m.version('{name}'))"
_INTERPRETER = (
    "import json,platform,sys;print(json.dumps([list(sys.version_info[:2]),platform.machine(),platform.libc_ver()]))"
)
_OLDEST_GLIBC_MINOR = 17
_INSTALL_S = 3600.0


@dataclass(frozen=True)
class Interpreter:
    """The device's Python: major and minor version, processor, and the minor version of its C library glibc 2."""

    python: tuple[int, int]
    machine: str
    glibc_minor: int

    @property
    def platforms(self) -> list[str]:
        """The wheel platforms that it takes, newest first. Source: PEP 600."""
        minors = range(self.glibc_minor, _OLDEST_GLIBC_MINOR - 1, -1)
        return [*(f"manylinux_2_{minor}_{self.machine}" for minor in minors), f"manylinux2014_{self.machine}"]


@dataclass(frozen=True)
class Prepared:
    """What setting up gave: the interpreter on the device, the runtime's version, whether anything was done."""

    runtime: str
    python: str
    version: str
    changed: bool


def set_up(
    device: SshDevice, runtime: str, python: str | None, say: Callable[[str], None] = lambda _: None
) -> Prepared:
    """Prepares a device for the runner of a runtime; does nothing where it is prepared already.

    Args:
        device: The device.
        runtime: A name of `PACKAGES`.
        python: An interpreter on the device that has the runtime already, None to make an environment.
        say: Called with a line as each step starts.

    Raises:
        DeviceError: The device has no fitting Python, no space, or the installation fails.
        MissingDependencyError: This machine has no pip, or there are no wheels for the device.
    """
    if runtime not in PACKAGES:
        raise DeviceError(f"device '{device.uri}': " + unknown_name("runtime", runtime, PACKAGES))
    with device.lock(f"edge-sdk, setting up {runtime}"):
        if python is not None:
            return _record(device, runtime, python)
        say(f"looking for Python on {device.uri}")
        wanted = _requirements(runtime)
        env = f"{device.base}/envs/{runtime}"
        kept = device.script(f"cat {quoted(env)}/edge-sdk.txt 2>/dev/null; rm -f {quoted(env)}.python", "set up").text
        if kept.split() == wanted and (found := _version(device, runtime, f"{env}/bin/python")):
            return Prepared(runtime, f"{env}/bin/python", found, changed=False)
        interpreter = _interpreter(device)
        say(
            f"downloading {' '.join(wanted)} for {interpreter.machine}, Python {'.'.join(map(str, interpreter.python))}"
        )
        wheels = download(interpreter, wanted)
        say(f"pushing {sum(file.stat().st_size for file in wheels.iterdir()) / 1e6:.0f} MB of wheels to {device.uri}")
        place = device.push(wheels)
        say(f"installing on {device.uri}")
        _install(device, env, place, next(wheels.glob("pip-*.whl")).name, wanted)
        found = _version(device, runtime, f"{env}/bin/python", must=True)
    return Prepared(runtime, f"{env}/bin/python", found, changed=True)


def download(interpreter: Interpreter, wanted: list[str]) -> Path:
    """The folder with the wheels of some requirements for an interpreter, and pip; downloaded once.

    Raises:
        MissingDependencyError: There is no pip here, or it finds no wheels.
    """
    major, minor = interpreter.python
    name = "-".join([interpreter.machine, f"glibc2.{interpreter.glibc_minor}", f"py{major}.{minor}", *wanted])
    folder = cache_dir() / "wheels" / re.sub(r"[^\w.=-]", "_", name)
    if (folder / ".whole").is_file():
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror}") from error
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", str(folder)]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", f"{major}.{minor}"]
    for platform in interpreter.platforms:
        command += ["--platform", platform]
    for words in (["pip"], *_groups(wanted)):
        done = subprocess.run([*command, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode == 0:
            continue
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line or "No module named pip" in line]
        raise MissingDependencyError(
            f"pip cannot download {' '.join(wanted)} for {interpreter.machine}, Python {major}.{minor}, glibc "
            f"2.{interpreter.glibc_minor}: {plain('; '.join(lines) or done.stderr.strip())[-600:]}"
        )
    (folder / ".whole").touch()
    return folder


def _groups(wanted: list[str]) -> list[list[str]]:
    """The requirements as pip is to take them: those with all that they require, and those alone."""
    alone = [one for one in wanted if one.partition("==")[0] in _ALONE]
    whole = [one for one in wanted if one not in alone]
    return [whole, ["--no-deps", *alone]] if alone else [whole]


def _requirements(runtime: str) -> list[str]:
    """The runner's packages, pinned to what this machine compiles with, else to what Edge SDK fits together with."""
    return [f"{name}=={_pin(name, runtime)}" for name in PACKAGES[runtime]]


def _pin(name: str, runtime: str) -> str:
    try:
        return version(name).partition("+")[0]  # a local version, such as +cpu, is of this machine's build
    except PackageNotFoundError:
        for line in requires("edge-sdk") or []:
            if found := re.match(rf"{name}\s*==\s*([\w.*]+)", line):
                return found[1]
    raise MissingDependencyError(
        f"the version of {name} is not known here: it is not installed. Run: pip install 'edge-sdk[{runtime}]'"
    )


def _interpreter(device: SshDevice) -> Interpreter:
    done = device.script(f"python3 -c {quoted(_INTERPRETER)}", "set up")
    try:
        python, machine, (libc, libc_version) = json.loads(done.text.strip())
        major, minor = python
        found = re.fullmatch(r"2\.(\d{1,3})(\.\d+)?", libc_version)
        if libc == "glibc" and found and re.fullmatch(r"\w{1,20}", machine):
            return Interpreter((int(major), int(minor)), machine, int(found[1]))
    except (ValueError, TypeError) as error:
        raise DeviceError(
            f"device '{device.uri}': no usable python3 there (it said: {(done.text + done.reason).strip()[:200]}). "
            "Install Python 3.8 or newer, or name an interpreter: --python PATH."
        ) from error
    raise DeviceError(
        f"device '{device.uri}': its Python {major}.{minor} on {plain(str(machine))[:20]} with {plain(str(libc))[:20]} "
        f"{plain(str(libc_version))[:20]} takes no ready-made wheels; expected glibc 2. Name an interpreter that has "
        "the runtime: --python PATH."
    )


def _install(device: SshDevice, env: str, place: str, pip: str, wanted: list[str]) -> None:
    new, target = quoted(f"{env}.new"), quoted(env)
    groups = [" ".join(group) for group in _groups(wanted)]
    script = f"""\
rm -rf {new} {target}.old
mkdir -p envs
python3 -m venv --without-pip {new} || exit 1
for words in {quoted(*groups)}; do
  PYTHONPATH={quoted(f"{place}/{pip}")} {new}/bin/python -m pip install --quiet --no-index --no-cache-dir \
    --disable-pip-version-check --find-links {quoted(place)} $words || {{ rm -rf {new}; exit 1; }}
done
printf '%s\\n' {quoted(*wanted)} > {new}/edge-sdk.txt
[ ! -d {target} ] || mv {target} {target}.old
mv {new} {target} && rm -rf {target}.old"""
    done = device.script(script, "set up", silence_s=_INSTALL_S)
    if done.code:
        raise DeviceError(f"device '{device.uri}': the environment cannot be made at step 'set up': {done.reason}")


def _record(device: SshDevice, runtime: str, python: str) -> Prepared:
    """Keeps the user's own interpreter as that of a runtime."""
    found = _version(device, runtime, python, must=True)
    note = quoted(f"envs/{runtime}.python")
    before = device.script(f"cat {note} 2>/dev/null", "set up").text.strip()
    device.script(f"mkdir -p envs && printf '%s\\n' {quoted(python)} > {note}", "set up")
    return Prepared(runtime, python, found, changed=before != python)


def _version(device: SshDevice, runtime: str, python: str, must: bool = False) -> str:
    """The version of a runtime that an interpreter on the device imports, empty where it cannot and need not."""
    modules = ", ".join(PACKAGES[runtime])
    check = quoted(_CHECK.format(modules=modules, name=PACKAGES[runtime][0]))
    # What libraries print while they are imported comes before the version.
    done = device.script(f"{quoted(python)} -c {check}", "set up", silence_s=_INSTALL_S)
    last = (done.text.strip().splitlines() or [""])[-1]
    if done.code == 0 and re.fullmatch(r"[\w.+]{1,60}", last):
        return last
    if must:
        raise DeviceError(f"device '{device.uri}': {python} there cannot import {modules}: {done.reason}")
    return ""
