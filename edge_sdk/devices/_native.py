"""Native runner programs of the user's own: ``--runner PATH[:KIND]``."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.devices._protocol import BrokenStreamError, plain
from edge_sdk.devices.native import samples as raw
from edge_sdk.devices.native.benchmark_model import BenchmarkModel
from edge_sdk.devices.native.executor_runner import ExecutorRunner
from edge_sdk.devices.native.perf_test import PerfTest
from edge_sdk.devices.native.program import Call, Execute, Figures, Program
from edge_sdk.devices.native.rounds import Measured, measure
from edge_sdk.devices.native.samples import Files
from edge_sdk.errors import DeviceError, UnsupportedError, unknown_name
from edge_sdk.schema.messages import NO_OUTPUTS, Hello, HostFacts, Message, Progress, Result
from edge_sdk.schema.report import Conditions, Unavailable
from edge_sdk.schema.request import PartRequest, RunRequest

KINDS: dict[str, Program] = {kind.name: kind for kind in (ExecutorRunner(), PerfTest(), BenchmarkModel())}
"""The known kinds by name; a program's file name holds it."""


@dataclass(frozen=True)
class Native:
    """A native runner program.

    Attributes:
        kind: Which of `KINDS`.
        binary: Its file on this machine.
    """

    kind: str
    binary: Path

    @property
    def runtime(self) -> str:
        """The runtime whose programs it runs."""
        return KINDS[self.kind].runtime

    def messages(
        self, execute: Execute, request: RunRequest, bundle_dir: str, files: Files | None = None
    ) -> Generator[Message, None, None]:
        """Runs a request and gives the messages that a runner of the SDK's own would send.

        Args:
            execute: Runs a command line on the device, always in the same folder, to which may be written.
                The word ``str(binary)`` stands for the program.
            request: The request.
            bundle_dir: The bundle's folder on the device.
            files: Brings inputs there and outputs back; None: the program makes up its own inputs and no
                outputs are compared.

        Raises:
            UnsupportedError: The program cannot do what the request asks for.
            DeviceError: It failed, or printed what it should not.
        """
        uri = files.uri if files else "device"
        stage = "request"
        try:
            for message in self._messages(execute, request, bundle_dir, files):
                if isinstance(message, Progress):
                    stage = message.stage
                yield message
        except UnsupportedError as error:
            raise UnsupportedError(f"device '{uri}': {error}") from error
        except BrokenStreamError as error:
            raise DeviceError(
                f"device '{uri}': the program {self.binary.name} failed at step '{stage}': {plain(str(error))}"
            ) from error

    def _messages(
        self, execute: Execute, request: RunRequest, bundle_dir: str, files: Files | None
    ) -> Generator[Message, None, None]:
        program = KINDS[self.kind]
        part = _only_part(program, request)
        yield self._hello(execute)
        if files is None or not program.takes_samples:
            yield from self._run(execute, request, bundle_dir, part, files, None)
            return
        with raw.pushed(files, request, part) as samples:
            yield from self._run(execute, request, bundle_dir, part, files, samples)

    def _run(
        self,
        execute: Execute,
        request: RunRequest,
        bundle_dir: str,
        part: PartRequest,
        files: Files | None,
        samples: raw.RawSamples | None,
    ) -> Generator[Message, None, None]:
        program = KINDS[self.kind]
        if request.timing is None and (request.outputs is None or samples is None):
            raise UnsupportedError(f"{program.name} gives no outputs, and the request asks for no timing.")
        binary = str(self.binary)

        def run(runs: int, inputs: list[str] | None = None, outputs: str | None = None) -> Figures:
            given = inputs or (samples.paths["reference"][0] if samples else [])
            model = f"{bundle_dir}/{part.program}"
            threads = request.threads or (len(request.affinity) if request.affinity else None)
            call = Call(binary, model, part.entry, runs, threads, request.affinity, request.options, given, outputs)
            return program.run(execute, call)

        measured = (yield from measure(run, request.timing)) if request.timing else None
        facts = dict(measured.facts) if measured else {}
        outputs = None
        if request.outputs is not None and files is not None and samples is not None:
            yield Progress(type="progress", stage="samples")
            calls = raw.collect(
                files, execute, request, part, samples, lambda inputs, stem: run(1, inputs, stem) and None
            )
            for done, total in calls:
                yield Progress(type="progress", stage="samples", done=done, total=total)
            outputs = request.outputs
        elif request.outputs is not None:
            facts[NO_OUTPUTS] = f"{program.name} {_why_no_outputs(program)}"
        yield _result(program, request, measured, facts, outputs, samples is not None)

    def _hello(self, execute: Execute) -> Hello:
        """Who answers. Each step is a process of its own, so that there is no one process number."""
        system, _, machine = plain(execute(["uname", "-srm"])).strip().rpartition(" ")
        if not system or len(system) > 300 or len(machine) > 60:
            raise BrokenStreamError("'uname -srm' does not tell what it runs on.")
        return Hello(
            type="hello",
            protocol_version=1,
            runtime=self.runtime,
            version=f"unknown ({self.kind} does not tell it)",
            pid=0,
            device=HostFacts(os=system, abi=machine),
        )


def parse(runner: str) -> Native:
    """A native runner from the command line.

    Args:
        runner: ``PATH`` or ``PATH:KIND``; without a kind the file's name tells it.

    Raises:
        UnsupportedError: There is no such file, or the kind is not known.
    """
    path, colon, kind = runner.rpartition(":")
    if not colon or (kind not in KINDS and Path(runner).expanduser().is_file()):
        path, kind = runner, ""
    binary = Path(path).expanduser()
    if not binary.is_file():
        raise UnsupportedError(f"the native runner {plain(path)[:200]} is {_found(binary)}; expected a program file.")
    if not kind:
        named = [known for known in KINDS if known in binary.name]
        if len(named) != 1:
            raise UnsupportedError(
                f"the name {plain(binary.name)[:100]} does not tell which kind of runner it is. Say it: "
                f"--runner {plain(path)[:200]}:KIND, KIND being one of {', '.join(KINDS)}."
            )
        kind = named[0]
    if kind not in KINDS:
        raise UnsupportedError(unknown_name("kind of native runner", plain(kind)[:60], KINDS))
    return Native(kind, binary.resolve())


def _found(path: Path) -> str:
    return "a folder" if path.is_dir() else "not there"


def _only_part(program: Program, request: RunRequest) -> PartRequest:
    """The request's part, where the program can do what the request asks for."""
    program.check(request)
    if len(request.parts) != 1:
        raise UnsupportedError(
            f"{program.name} runs one part; the bundle has {len(request.parts)}: "
            f"{', '.join(part.name for part in request.parts)}. Use the packaged runner."
        )
    part = request.parts[0]
    if not part.program.endswith(program.suffix):
        known = ", ".join(f"{kind.name} ({kind.suffix})" for kind in KINDS.values())
        raise UnsupportedError(
            f"{program.name} runs {program.suffix} files of the runtime '{program.runtime}'; this bundle's program is "
            f"{part.program}. Native runners: {known}."
        )
    if request.sustain is not None:
        raise UnsupportedError(
            f"{program.name} cannot run sustained: it starts anew at each call. Use the packaged runner."
        )
    return part


def _why_no_outputs(program: Program) -> str:
    return "was given no way to bring samples to the device" if program.takes_samples else "does not write outputs"


def _result(
    program: Program,
    request: RunRequest,
    measured: Measured | None,
    facts: dict[str, str],
    outputs: str | None,
    is_fed: bool,
) -> Result:
    why = f"{program.name} does not tell what it used before the model was loaded"
    warnings = list(measured.warnings) if measured else []
    if measured and not is_fed:
        warnings.append(f"timed with {program.inputs}, which {program.name} makes up itself")
    if request.gate is not None:
        warnings.append("there was no thermal gate: a native runner does not wait for the device to cool")
    no_power = Unavailable(unavailable=f"{program.name} does not sample power")
    return Result(
        type="result",
        latency=measured.latency if measured else None,
        memory=Unavailable(unavailable=why) if measured else None,
        conditions=Conditions(
            threads=(measured.threads if measured else None) or request.threads,
            affinity=sorted(request.affinity) if request.affinity else None,
            warnings=warnings,
        ),
        facts=facts,
        outputs=outputs,
        power=no_power if request.power is not None else None,
    )
