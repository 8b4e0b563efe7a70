"""The programs in the phone's ``system/bin``: small shell scripts over the state files."""

from __future__ import annotations

import shlex
from pathlib import Path

RUNNER = "dev.edgesdk.runner"

_GETPROP = """\
[ $# -eq 0 ] && exec cat {state}/props.txt
case $1 in */*|.*|'') ;; *) [ -f {state}/props/"$1" ] && exec cat {state}/props/"$1";; esac
printf '%s\\n' "$2"
"""

_DUMPSYS = """\
service=$1
[ $# -gt 0 ] && shift
case "$service $*" in
  'battery '|'battery -a') exec cat {state}/battery.txt;;
  'thermalservice '*) exec cat {state}/thermal.txt;;
  'package '?*)
    if grep -qxF -e "$1" {state}/installed.txt; then
      printf 'Packages:\\n  Package [%s] (5d0c3a1):\\n    userId=10234\\n' "$1"
      printf '    versionCode=1 minSdk=26 targetSdk=34\\n    versionName=1.0\\n'
    else
      echo "Unable to find package: $1"
    fi;;
  ' ') echo 'Currently running services:'; printf '  battery\\n  package\\n  thermalservice\\n';;
  *) echo "Can't find service: $service";;
esac
"""

_PM = """\
case "$1 $2" in
  'list packages')
    while read -r name; do case $name in *"$3"*) echo "package:$name";; esac; done < {state}/installed.txt;;
  'list instrumentation')
    grep -qxF {runner} {state}/installed.txt &&
      echo 'instrumentation:{runner}/.RunnerInstrumentation (target={runner})'
    exit 0;;
  'path '?*)
    grep -qxF -e "$2" {state}/installed.txt || exit 1
    echo "package:/data/app/$2/base.apk";;
  *) echo "Failure [this stand-in serves no 'pm $1': change phone.installed]" >&2; exit 1;;
esac
"""

_SETTINGS = """\
case $2 in global|system|secure) ;; *) echo 'Invalid namespace' >&2; exit 255;; esac
case $3 in */*|.*) echo 'Invalid key' >&2; exit 255;; esac
place={state}/settings/$2
mkdir -p "$place"
case $1 in
  get) if [ -f "$place/$3" ]; then cat "$place/$3"; else echo null; fi;;
  put) printf '%s\\n' "$4" > "$place/$3";;
  delete) if [ -f "$place/$3" ]; then rm "$place/$3"; echo 'Deleted 1 rows'; else echo 'Deleted 0 rows'; fi;;
  list) cd "$place" && for key in *; do [ -f "$key" ] && printf '%s=%s\\n' "$key" "$(cat "$key")"; done; exit 0;;
  *) echo 'Invalid command' >&2; exit 255;;
esac
"""

_AM = 'exec {python} -I -S {program} {python} {runtimes} {state}/installed.txt {logcat} "$@"\n'
_REBOOT = "echo 'this stand-in does not reboot' >&2\nexit 1\n"


def install(folder: Path, state: Path, python: str, runtimes: Path) -> None:
    """Writes the programs.

    Args:
        folder: The phone's ``system/bin``.
        state: Where the state files lie.
        python: Runs the runners.
        runtimes: Holds ``NAME/runner.py``.
    """
    words = {
        "state": shlex.quote(str(state)),
        "python": shlex.quote(python),
        "runtimes": shlex.quote(str(runtimes)),
        "program": shlex.quote(str(Path(__file__).with_name("_am.py"))),
        "logcat": shlex.quote(str(state / "logcat.txt")),
        "runner": RUNNER,
    }
    programs = {
        "am": _AM,
        "dumpsys": _DUMPSYS,
        "getprop": _GETPROP,
        "pm": _PM,
        "reboot": _REBOOT,
        "settings": _SETTINGS,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in programs.items():
        path = folder / name
        path.write_text("#!/bin/sh\n" + body.format(**words))
        path.chmod(0o755)
