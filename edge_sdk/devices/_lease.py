"""The lock of a remote device: a program there holds it as long as this end of the link lives.

Locks are numbered: the highest number is the present one. A lock is taken by making the folder of
the next number, which only one can; it is free where its holder said so or runs no more, or where
its stamp is older than the lease. The holder on the device stamps it at each line that it is sent and frees it
when its input ends, so that a link that drops frees the lock without anybody's help.
"""

from __future__ import annotations

import logging
import threading
import uuid
from time import monotonic, sleep

from edge_sdk.devices._link import Link, quoted
from edge_sdk.devices._process import Child, Limits
from edge_sdk.devices._protocol import BrokenStreamError, plain
from edge_sdk.errors import DeviceError

logger = logging.getLogger(__name__)

LEASE_S = 60
BEAT_S = 15.0
_POLL_S = 0.5

_SCRIPT = """\
umask 022
cd {base} || exit 1
mkdir -p locks runs
now=$(date +%s)
n=0
for d in locks/[0-9]*; do i=${{d#locks/}}; [ -d "$d" ] && [ "$i" -gt $n ] && n=$i; done
if [ $n -gt 0 ] && [ ! -e locks/$n/free ]; then
  stamp=$(cat locks/$n/stamp 2>/dev/null)
  if [ -z "$stamp" ]; then
    # It is just being taken, or its taker died at that very moment, long ago.
    [ -n "$(find locks/$n -prune -mmin +5)" ] && stamp=0 || stamp=$now
  fi
  token=$(cat locks/$n/token 2>/dev/null)
  pid=$(cat locks/$n/pid 2>/dev/null)
  [ -n "$pid" ] && [ ! -d /proc/$pid ] && stamp=0
  if [ "$token" != {token} ] && [ $((now - stamp)) -lt {lease} ]; then
    echo "busy $(head -c 300 locks/$n/owner 2>/dev/null)"
    exit 0
  fi
fi
m=$((n + 1))
mkdir locks/$m 2>/dev/null || {{ echo "busy another process"; exit 0; }}
for d in locks/[0-9]*; do
  i=${{d#locks/}}
  if [ "$i" -gt $m ]; then rmdir locks/$m; echo "busy another process"; exit 0; fi
done
echo {token} > locks/$m/token
echo $$ > locks/$m/pid
printf '%s\\n' {owner} > locks/$m/owner
echo $now > locks/$m/stamp
for d in locks/[0-9]*; do [ "${{d#locks/}}" -lt $m ] && rm -rf "$d"; done
{clean}
echo held
while read -r beat; do date +%s > locks/$m/stamp; done
: > locks/$m/free
echo freed
"""

HOLDER = f"""\
n=0
for d in locks/[0-9]*; do i=${{d#locks/}}; [ -d "$d" ] && [ "$i" -gt $n ] && n=$i; done
[ $n -gt 0 ] && [ ! -e locks/$n/free ] || exit 0
stamp=$(cat locks/$n/stamp 2>/dev/null || date +%s)
pid=$(cat locks/$n/pid 2>/dev/null)
[ -n "$pid" ] && [ ! -d /proc/$pid ] && exit 0
[ $(($(date +%s) - stamp)) -ge {LEASE_S} ] || head -c 300 locks/$n/owner"""
"""Prints who holds the lock, nothing where nobody does."""


class Lease:
    """Holds a remote device.

    Args:
        link: The link to it.
        base: The base folder there.
        owner: Who holds it, for others to read.
        clean: Lines of a script that take away what dead sessions left.
        silence_s: How long an answer may take.
        token: Proves that a lock left behind by a dropped link is this session's own.
    """

    def __init__(
        self, link: Link, base: str, owner: str, clean: str, silence_s: float, token: str | None = None
    ) -> None:
        self.owner = owner
        self.token = token or uuid.uuid4().hex
        script = _SCRIPT.format(
            base=quoted(base),
            token=self.token,
            lease=LEASE_S,
            owner=quoted(plain(owner)[:200]),
            clean=clean,
        )
        self._link = link
        self._silence_s = silence_s
        self._script = script
        self._child: Child | None = None
        self._stop = threading.Event()
        self._beat = threading.Thread(target=self._beats, name="edge-sdk-lease", daemon=True)

    def take(self, wait_s: float) -> None:
        """Takes the lock, waiting for another holder at most so long.

        Raises:
            DeviceError: Another holds it.
            LinkLostError: The link dropped.
        """
        deadline = monotonic() + wait_s
        while (holder := self._try()) is not None:
            if monotonic() >= deadline:
                raise DeviceError(
                    f"device '{self._link.uri}' is being measured by {holder}; two measurements at once would disturb "
                    f"each other. Wait until it ends; a lock whose holder went away is free {LEASE_S} s later."
                )
            sleep(_POLL_S)
        self._beat.start()

    @property
    def is_held(self) -> bool:
        """Whether the holder on the device can still be reached."""
        return self._child is not None and self._child.is_running

    def give_back(self) -> None:
        """Frees the lock. Where the link is gone, the holder there has freed it, or its lease runs out."""
        self._stop.set()
        if self._child is not None:
            with self._child as child:
                child.hang_up()
                try:
                    for _ in child.lines():
                        continue
                except BrokenStreamError as error:
                    logger.info("%s: the lock was not given back in words: %s", self._link.uri, error)
            self._child = None
        if self._beat.is_alive():
            self._beat.join()

    def _try(self) -> str | None:
        """None where the lock was taken, else who holds it."""
        limits = Limits(line_bytes=4096, total_bytes=1 << 16, silence_s=self._silence_s, overall_s=1e9)
        child = self._link.child(self._script, limits, stdin=True)
        try:
            answer = next(child.lines(), b"").decode(errors="replace").strip()
        except BrokenStreamError as error:
            words = child.tail()
            child.close()
            raise self._link.lost(words or str(error), "lock") from error
        if answer == "held":
            self._child = child
            return None
        words = child.tail()
        child.close()
        if answer.startswith("busy"):
            return plain(answer[5:]).strip() or "another process"
        raise self._link.lost(words or answer, "lock")

    def _beats(self) -> None:
        while not self._stop.wait(BEAT_S):
            try:
                if self._child is not None:
                    self._child.say(b"\n")
            except BrokenStreamError:
                return  # the link dropped: the next command finds out, and takes the lock again
