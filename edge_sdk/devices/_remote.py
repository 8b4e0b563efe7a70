"""A device behind a link: everything is done by scripts of POSIX sh that run there.

```
BASE/objects, BASE/trees    what was pushed; see _store.py
BASE/runs/SESSION           request, outputs and process number of one session, removed on close
BASE/locks                  who measures; see _lease.py
BASE/envs                   Python environments for the runners; see _setup.py
```
"""

from __future__ import annotations

import logging
import re
import threading
import uuid
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, ClassVar, TypeVar

from edge_sdk._files import storage_error
from edge_sdk.devices import _facts, _watch
from edge_sdk.devices._lease import HOLDER, Lease
from edge_sdk.devices._link import END, Done, Link, quoted
from edge_sdk.devices._process import Child, Limits
from edge_sdk.devices._protocol import BrokenStreamError, conversation
from edge_sdk.devices._store import Store, Tree
from edge_sdk.devices.base import Device
from edge_sdk.devices.session import Session, endless
from edge_sdk.errors import DeviceError, LinkLostError
from edge_sdk.schema.messages import Message
from edge_sdk.schema.reading import Reading
from edge_sdk.schema.request import RunRequest

if TYPE_CHECKING:
    from edge_sdk.devices._native import Native

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MOST_PULLED = 8 << 30
_UNWRITTEN = 44
_MOST_PRINTED = 16 << 20
_STOP_S = 10.0
_PAUSES_S = (0.2, 0.5, 1.0, 2.0)

_GREETING = """\
umask 022
base={home}
mkdir -p "$base/objects" "$base/trees" "$base/runs" && cd "$base" || exit 3
printf '@@ base\\n%s\\n' "$(pwd -P)"
say space df -Pk .
say gzip command -v gzip
say sha256sum command -v sha256sum
"""

_KILL = """\
d=runs/{session}
pid=$(cat $d/pid 2>/dev/null)
if [ -n "$pid" ] && cat /proc/$pid/cmdline /proc/$pid/environ 2>/dev/null | grep -q {session}; then
  kill $pid 2>/dev/null
  for i in 1 2 3 4 5 6 7 8 9 10; do kill -0 $pid 2>/dev/null || break; sleep 0.2; done
  kill -9 $pid 2>/dev/null
fi
rm -f $d/pid"""


_SWEEP = """\
for d in runs/*; do
  [ -d "$d" ] && [ "$d" != runs/{session} ] || continue
  pid=$(cat "$d/pid" 2>/dev/null)
  [ -n "$pid" ] && cat /proc/$pid/cmdline /proc/$pid/environ 2>/dev/null | grep -q "${{d#runs/}}" && kill -9 $pid
  rm -rf "$d"
done
find objects -name '*.part' -mmin +1440 -exec rm -f '{{}}' ';' 2>/dev/null"""
"""Takes away what sessions left that could not do so themselves: runners, their files, pieces a day old."""


class RemoteDevice(Device):
    """What SSH and ADB devices share. The link is made at once, so that a wrong URI costs no work.

    Args:
        link: The link to it.
        runner: ``PATH[:KIND]`` of the user's own native runner, None for the runner that Edge SDK brings.
        limits: What a runner may do before it is stopped.
        lock_wait_s: How long to wait for another measurement to end.
        patience_s: How long a link that dropped may take to come back.
        silence_s: How long a command of Edge SDK's own may say nothing.
    """

    home: ClassVar[str]
    """The base folder, as a word of sh."""
    about: ClassVar[str]
    """Lines of a script that tell what the device is; see `_facts`."""

    def __init__(
        self,
        link: Link,
        *,
        runner: str | None = None,
        limits: Limits | None = None,
        lock_wait_s: float = 3.0,
        patience_s: float = 20.0,
        silence_s: float = 30.0,
    ) -> None:
        self.uri = link.uri
        self._native = _native(runner)
        self._link = link
        self._limits = limits or Limits()
        self._lock_wait_s = lock_wait_s
        self._patience_s = patience_s
        self._silence_s = silence_s
        self._session = uuid.uuid4().hex[:16]
        self._lease: Lease | None = None
        self._pushing = threading.Lock()
        self._used = False
        self._base = ""
        try:
            self.facts = self._greet()
        except BaseException:
            link.close()
            raise

    def push(self, path: Path) -> str:
        """Brings a file or folder to the device; see `Device.push`."""
        path = path.resolve()
        free = _facts.free_bytes(self.facts.get("space", ""))
        store = Store(self.script, self.uri, free, bool(self.facts.get("gzip")))
        with self._pushing:  # two threads that bring the same file would write to the same unfinished one
            place = store.push(Tree.of(path))
        return f"{self._base}/{place}" + (f"/{path.name}" if path.is_file() else "")

    def run(self, runtime: str, request: RunRequest) -> Generator[Message, None, None]:
        """Runs a request by the runner on the device; see `Device.run`."""
        if self._native is not None:
            return self._native.messages(self._execute, request, request.bundle, self)
        return self._run_packaged(runtime, request)

    def watch(self, period_s: float = 1.0, count: int = 0) -> Generator[Reading, None, None]:
        """What the device is doing; see `Device.watch`. A link that drops and comes back leaves a gap."""
        left = count
        while True:
            script, parse = self._monitor(period_s, left)
            whole = f"(\ncd {quoted(self._base)} || exit 1\n{script}\n)\nprintf '%s\\n' \"{END.decode()}$?\""
            try:
                with self._link.child(whole, _watch.limits(period_s)) as child:
                    try:
                        for reading in parse(self._answer(child, None)):
                            yield reading
                            left -= bool(count)
                            if count and not left:
                                return
                        return
                    except BrokenStreamError as error:
                        raise _watch.failed(self.uri, error, child.tail()) from error
            except LinkLostError as error:
                if error.is_final:
                    raise
                logger.warning("%s; trying again", error)
                self._patiently("watch", lambda _: self._once("true", "watch"))

    @abstractmethod
    def _monitor(self, period_s: float, count: int) -> tuple[str, Callable[[Iterable[bytes]], Iterator[Reading]]]:
        """The script that tells readings, and what reads its lines."""

    def scratch(self, name: str) -> str:
        """A path in the session's folder."""
        self._used = True
        return f"{self._base}/runs/{self._session}/{name}"

    def pull(self, remote: str, local: Path) -> None:
        """Brings a file that the runner wrote to this machine."""

        def fetch(attempt: int) -> Done:
            with open(local, "wb") as file:
                return self._once(
                    f"[ -f {quoted(remote)} ] || exit {_UNWRITTEN}\ncat {quoted(remote)}",
                    "pull",
                    sink=file.write,
                    most_bytes=_MOST_PULLED,
                )

        try:
            done = self._patiently("pull", fetch)
        except OSError as error:
            raise storage_error(local, error) from error
        if done.code:
            what = "the runner did not write it" if done.code == _UNWRITTEN else done.reason
            raise DeviceError(f"device '{self.uri}': {remote} cannot be pulled: {what}.")

    @property
    def base(self) -> str:
        """The folder on the device that everything of Edge SDK lies in."""
        return self._base

    def script(self, script: str, step: str, source: Callable[[int], Iterator[bytes]] | None = None, **options) -> Done:
        """Runs a script in the base folder, again where the link drops; it must bear to be run twice.

        Args:
            script: POSIX sh.
            step: What it is for, in messages.
            source: Gives what the script reads; called with the number of the attempt, from 0.
            options: Of `Link.run`.
        """
        return self._patiently(
            step, lambda attempt: self._once(script, step, source=source(attempt) if source else None, **options)
        )

    @contextmanager
    def lock(self, owner: str) -> Iterator[None]:
        """Holds the device for one measurement at a time, whoever reaches it by this kind of link."""
        lease = Lease(self._link, self._base, owner, self._sweep, self._silence_s)
        self._patiently("lock", lambda _: lease.take(self._lock_wait_s))
        self._lease = lease
        try:
            yield
        finally:
            self._lease.give_back()
            self._lease = None

    def held_by(self) -> str | None:
        """Who measures on the device now; see `Device.held_by`."""
        return " ".join(self.script(HOLDER, "look who measures").text.split()) or None

    def close(self) -> None:
        """Ends what this session left running on the device, removes its files, and closes the link."""
        try:
            if self._used:
                kill = _KILL.format(session=self._session)
                self.script(f"{kill}\n{self._clean_up}\nrm -rf runs/{self._session}", "clean up")
        except DeviceError as error:
            logger.warning("%s; its next session cleans up", error)
        finally:
            self._link.close()

    @abstractmethod
    def _run_packaged(self, runtime: str, request: RunRequest) -> Generator[Message, None, None]:
        """Runs a request by the runner that Edge SDK brings for this kind of device."""

    @property
    def _clean_up(self) -> str:
        """Lines of a script that take away what this kind of device keeps outside the session's folder."""
        return ""

    @property
    def _sweep(self) -> str:
        """Lines of a script that take away what dead sessions left; they run under the lock."""
        return _SWEEP.format(session=self._session)

    @property
    def _advice(self) -> str | None:
        """How to bring a missing runtime to the device."""
        return None

    def _converse(
        self,
        runtime: str,
        script: str,
        request: RunRequest,
        lines: Callable[[Iterator[bytes]], Iterator[bytes]] = iter,
    ) -> Generator[Message, None, None]:
        """Runs a script in the session's folder, where ``request.json`` lies, and reads the runner's answer.

        Args:
            runtime: The runtime, for messages.
            script: Ends with the runner, which takes the shell's place.
            request: The request.
            lines: Turns what the script prints into the protocol's lines.
        """
        whole = self._whole("cat > request.json || exit 1", script, "< /dev/null")
        ended = False
        source = iter([request.model_dump_json().encode()])
        try:
            with self._link.child(whole, self._limits, stdin=True) as child:
                answer = lines(self._answer(child, source))
                yield from conversation(answer, self.uri, runtime, child.tail, self._advice)
                ended = True
        finally:
            if not ended:
                self._stop_runner()

    @contextmanager
    def _calling(self, runtime: str, script: str, request: RunRequest) -> Iterator[Session]:
        """Likewise for a runner that answers calls, which come on its standard input."""
        folder = f"runs/{self._session}"
        self.script(
            f"mkdir -p {folder} && cat > {folder}/request.json",
            "session",
            source=lambda _: iter([request.model_dump_json().encode()]),
        )
        ended = False
        try:
            with self._link.child(self._whole("", script, ""), endless(self._limits), stdin=True) as child:
                answer = self._answer(child, None)
                messages = conversation(answer, self.uri, runtime, child.tail, self._advice, session=True)
                session = Session(self.uri, child, messages)
                yield session
                session.close()
                ended = True
        finally:
            if not ended:
                self._stop_runner()

    def _whole(self, before: str, script: str, stdin: str) -> str:
        """A script that runs another in the session's folder, and then says how it ended."""
        self._used = True
        self._patiently("run", lambda _: self._hold())
        return (
            f"(\numask 022\ncd {quoted(self._base)} || exit 1\n"
            f"mkdir -p runs/{self._session} && cd runs/{self._session} || exit 1\n{before}\n"
            f"EDGE_SDK_SESSION={self._session} sh -c {quoted(f'echo $$ > pid{chr(10)}{script}')} {stdin}\n"
            "code=$?\nrm -f pid\nexit $code\n)\n"
            f"printf '%s\\n' \"{END.decode()}$?\""
        )

    def _execute(self, words: list[str]) -> str:
        """Runs the user's own program once; what it prints on standard output and standard error."""
        self._used = True
        self._patiently("run", lambda _: self._hold())
        assert self._native is not None
        program = self._program
        words = [program if word == str(self._native.binary) else word for word in words]
        script = (
            f"mkdir -p runs/{self._session} && cd runs/{self._session} || exit 1\n"
            f"EDGE_SDK_SESSION={self._session} "
            f"sh -c {quoted(f'echo $$ > pid{chr(10)}exec {quoted(*words)}')} 2>&1 < /dev/null\n"
            "code=$?\nrm -f pid\nexit $code"
        )
        limits = self._limits
        ended = False
        try:
            done = self._once(
                script,
                "run",
                silence_s=limits.silence_s,
                overall_s=limits.overall_s,
                most_bytes=_MOST_PRINTED,
            )
            ended = True
        finally:
            if not ended:
                self._stop_runner()
        if done.code:
            end = " ".join(done.text.split())[-400:]
            raise DeviceError(
                f"device '{self.uri}': the program {self._native.binary.name} failed at step 'run' with exit code "
                f"{done.code}: {end or done.reason}"
            )
        return done.text

    @cached_property
    def _program(self) -> str:
        """The user's own program on the device, pushed when it is first needed."""
        assert self._native is not None
        program = self.push(self._native.binary)
        self.script(f"chmod 755 {quoted(program)}", "push")
        return program

    def _stop_runner(self) -> None:
        try:
            self._once(_KILL.format(session=self._session), "stop the runner", silence_s=min(_STOP_S, self._silence_s))
        except DeviceError as error:  # what cannot be reached ends by itself, at its next message
            logger.info("%s", error)

    def _answer(self, child: Child, source: Iterator[bytes] | None) -> Iterator[bytes]:
        """The lines of a runner; that the link dropped shows by the missing end mark."""
        code = None
        try:
            for line in child.lines(source):
                if line.startswith(END):
                    code = line[len(END) :].decode(errors="replace")
                    break
                yield line
        except BrokenStreamError as error:
            if child.is_running:  # it passed a limit; the client of a link that dropped has ended
                raise
            raise self._link.lost(child.tail(), "run") from error
        if code is None:
            raise self._link.lost(child.tail(), "run")
        if code != "0":
            raise BrokenStreamError(f"it ended with exit code {code:.8} and said no reason.")

    def _greet(self) -> dict[str, str]:
        script = _facts.SAY + _GREETING.format(home=self.home) + self.about
        done = self._patiently("connect", lambda _: self._link.run(script, "connect", silence_s=self._silence_s))
        facts = _facts.parse(done.text)
        base = facts.get("base", "")
        if done.code or not re.fullmatch(r"/[\w./ @+-]{1,200}", base) or ".." in base:
            raise DeviceError(
                f"device '{self.uri}': no folder can be made there for what is pushed ({done.reason}); it was to be "
                f"{self.home}."
            )
        if not facts.get("sha256sum"):
            raise DeviceError(
                f"device '{self.uri}': it has no program sha256sum, so that nothing pushed could be checked. Install "
                "coreutils there."
            )
        self._base = base
        return facts

    def _once(self, script: str, step: str, **options) -> Done:
        """Runs a script in the base folder; a link that drops is an error."""
        options = {"silence_s": self._silence_s, **options}
        return self._link.run(f"umask 022\ncd {quoted(self._base)} || exit 1\n{script}", step, **options)

    def _patiently(self, step: str, action: Callable[[int], T]) -> T:
        """Does something over the link; where that drops, waits for it to come back and does it again."""
        deadline = None
        for attempt in count():
            try:
                if attempt:
                    self._link.open()
                self._hold()
                return action(attempt)
            except LinkLostError as error:
                now = monotonic()
                # A link that was never there is no link that dropped.
                patience = self._patience_s if self._base else 0.0
                deadline = now + patience if deadline is None else deadline
                if error.is_final or not patience:
                    raise
                if now >= deadline:
                    gone = LinkLostError(f"{error}; it did not come back within {patience:g} s")
                    gone.is_final = True
                    raise gone from error
                logger.log(logging.INFO if attempt else logging.WARNING, "%s; trying again", error)
                sleep(min(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)], max(0.0, deadline - now)))
        raise AssertionError("unreachable")

    def _hold(self) -> None:
        """Takes the lock again where its holder went with a link that dropped."""
        lease = self._lease
        if lease is None or lease.is_held:
            return
        lease.give_back()
        anew = Lease(self._link, self._base, lease.owner, self._sweep, self._silence_s, lease.token)
        anew.take(self._lock_wait_s)
        self._lease = anew


def _native(runner: str | None) -> Native | None:
    if runner is None:
        return None
    from edge_sdk.devices._native import parse

    return parse(runner)
