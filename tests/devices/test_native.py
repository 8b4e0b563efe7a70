"""Native runner programs: their command lines, their output, and a run from request to result.

The programs here are stand-ins: scripts that take the genuine programs' flags and print what those print, as
their public source says. No genuine one ran in these tests.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
from pydantic import TypeAdapter

from edge_sdk.devices._native import KINDS, NO_OUTPUTS, Native, parse
from edge_sdk.devices._protocol import BrokenStreamError
from edge_sdk.devices.local import LocalDevice
from edge_sdk.devices.native import benchmark_model, executor_runner, perf_test
from edge_sdk.devices.native.program import Call
from edge_sdk.errors import DeviceError, UnsupportedError
from edge_sdk.schema.messages import Hello, Message, Progress, Result, Samples
from edge_sdk.schema.report import Unavailable
from edge_sdk.schema.request import Gate, PartRequest, PowerRequest, RunRequest, Sustain, Timing

QUICK = Timing(warmup_min_runs=3, warmup_max_s=0.5, min_runs=20, min_time_s=0.02, max_time_s=0.5, ci_within=0.2)

FLAGS = """
import random, sys
random.seed(1)
flags = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
clock = 0
def log(text, file="executor_runner.cpp", line=500):
    global clock
    clock += 731
    print(f"I 00:00:{clock // 10**6:02}.{clock % 10**6:06} executorch:{file}:{line}] {text}", file=sys.stderr)
runs = int(flags.pop("num_executions"))
"""

EXECUTOR_RUNNER = (
    FLAGS
    + """
known = {"model_path", "cpu_threads", "inputs", "output_file", "method_name"}
if set(flags) - known:
    print(f"ERROR: unknown command line flag '{sorted(set(flags) - known)[0]}'", file=sys.stderr)
    sys.exit(1)
open("calls.txt", "a").write(" ".join(sys.argv[1:]) + "\\n")
log(f"Resetting threadpool with num threads = {flags.get('cpu_threads', '4')}", line=341)
if "inputs" in flags:
    log("Loading inputs from input file(s).", line=389)
log(f"Model file {flags['model_path']} is loaded.", line=476)
log("Using method forward", line=486)
log("Setting up CPU planned buffer 0, size 3584.", line=540)
log("Model loaded in 12.345678 ms.", line=624)
total = 0.0
for place in range(runs):
    span = round(9.5 if place == 0 else 3.0 if place < 5 else random.gauss(1.0, 0.01), 6)
    total += span
    log(f"Iteration {place + 1} of {runs}: {span:.6f} ms", line=779)
log(f"Model executed successfully {runs} time(s) in {total:.6f} ms.", line=789)
log("1 outputs: ", line=798)
if "output_file" in flags:
    import array
    values = array.array("f", open(flags["inputs"].split(",")[0], "rb").read())
    log(f"Writing output to file: {flags['output_file']}-0.bin", line=809)
    open(flags["output_file"] + "-0.bin", "wb").write(array.array("f", [2 * value for value in values]).tobytes())
print("OutputX 0: tensor(sizes=[1, 3], [2., 4., 6.])")
"""
)

EXECUTOR_RUNNER_1_2 = (
    FLAGS
    + """
log("Resetting threadpool with num threads = 2", line=203)
log(f"Model file {flags['model_path']} is loaded.", line=352)
spans = [round(8.0 if place == 0 else random.gauss(2.0, 0.01), 6) for place in range(runs)]
log(f"Model executed successfully {runs} time(s) in {sum(spans):.6f} ms.", line=494)
print("OutputX 0: tensor(sizes=[1, 3], [2., 4., 6.])")
"""
)

PERF_TEST = """
import random, sys
random.seed(2)
words = sys.argv[1:]
runs = int(words[words.index("-r") + 1])
open("calls.txt", "a").write(" ".join(words) + "\\n")
spans = [4e-3 if place < 3 else random.gauss(2e-3, 2e-5) for place in range(runs)]
print(f"Setting intra_op_num_threads to {words[words.index('-x') + 1]}" if "-x" in words else "")
print("Session creation time cost: 0.0412345 s")
print("First inference time cost: 5 ms")
print(f"Total inference time cost: {sum(spans):g} s")
print(f"Total inference requests: {runs}")
print(f"Average inference time cost: {sum(spans) / runs * 1000:g} ms")
print(f"Total inference run time: {sum(spans) * 1.01:g} s")
print(f"Number of inferences per second: {runs / sum(spans):g} ")
print("Avg CPU usage: 50 %")
print("Peak working set size: 52428800 bytes")
with open(words[-1], "a") as file:
    for place, span in enumerate(spans):
        file.write(f"bundle,{span:g},52428800,50,{place}\\n")
"""

BENCHMARK_MODEL = """
import sys
flags = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
runs = int(flags["num_runs"])
print("INFO: STARTING!")
print("INFO: Log parameter values verbosely: [0]")
print(f"INFO: Min num runs: [{runs}]")
print(f"INFO: Graph: [{flags['graph']}]")
print(f"INFO: Loaded model {flags['graph']}")
print("INFO: Initialized session in 5.685ms.")
print("INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but "
      "terminate if exceeding 150 seconds.")
print("INFO: count=35 first=18535 curr=14288 min=14176 max=18535 avg=14462.3 std=707 p5=14200 median=14300 p95=15000")
print()
print(f"INFO: Running benchmark for at least {runs} iterations and at least 0 seconds but "
      "terminate if exceeding 150 seconds.")
print(f"INFO: count={runs} first=14575 curr=14600 min=14300 max=15100 avg=14575.2 std=130 "
      "p5=14350 median=14500 p95=15000")
print()
print("INFO: Inference timings in us: Init: 5685, First inference: 18535, Warmup (avg): 14462.3, "
      "Inference (avg): 14575.2")
print("INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE.")
print("INFO: Memory footprint delta from the start of the tool (MB): init=3.30859 overall=8.17188")
"""

Run = Callable[..., list[Message]]


@pytest.fixture
def session(tmp_path: Path) -> Path:
    """The folder on the device in which the program runs."""
    folder = tmp_path / "session"
    folder.mkdir()
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    tiny.write_npz(
        folder / "reference.npz",
        {
            "forward/inputs/x": np.arange(6, dtype=np.float32).reshape(2, 1, 3),
            "forward/outputs/y": np.zeros((2, 1, 3), np.float32),
        },
    )
    return folder


def native(tmp_path: Path, kind: str, program: str, name: str | None = None) -> Native:
    """A stand-in for a native runner program."""
    path = tmp_path / (name or kind)
    path.write_text(f"#!{sys.executable}\n{textwrap.dedent(program)}")
    path.chmod(0o755)
    return parse(f"{path}:{kind}")


def execute_in(session: Path) -> Callable[[list[str]], str]:
    """Runs command lines here, as a device would."""

    def execute(words: list[str]) -> str:
        done = subprocess.run(
            words, cwd=session, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
        )
        if done.returncode:
            raise DeviceError(f"exit code {done.returncode}: {done.stdout.strip()}")
        return done.stdout

    return execute


def asked(bundle: Path, program: str = "forward.pte", **changes) -> RunRequest:
    part = PartRequest(name="forward", program=program, entry="forward", inputs=["x"], outputs=["y"])
    wanted = {"timing": QUICK, "reference": "reference.npz", **changes}
    return RunRequest(bundle=str(bundle), parts=wanted.pop("parts", [part]), **wanted)


def result_of(messages: list[Message]) -> Result:
    assert isinstance(messages[-1], Result)
    return messages[-1]


def samples_of(messages: list[Message]) -> list[int]:
    return [value for message in messages if isinstance(message, Samples) for value in message.ns]


def why(value) -> str:
    assert isinstance(value, Unavailable)
    return value.unavailable


def test_the_kind_is_told_by_the_name(tmp_path):
    for name, kind in {
        "executor_runner": "executor_runner",
        "xnn_executor_runner-arm64": "executor_runner",
        "onnxruntime_perf_test": "onnxruntime_perf_test",
        "android_aarch64_benchmark_model": "benchmark_model",
    }.items():
        (tmp_path / name).write_text("")
        found = parse(str(tmp_path / name))
        assert found == Native(kind, tmp_path / name) and found.runtime == KINDS[kind].runtime


def test_the_kind_can_be_said(tmp_path):
    (tmp_path / "my:runner").write_text("")
    assert parse(f"{tmp_path / 'my:runner'}:executor_runner") == Native("executor_runner", tmp_path / "my:runner")


@pytest.mark.parametrize(
    ("name", "asked_for", "message"),
    [
        ("runner", "runner", "the name runner does not tell which kind of runner it is. Say it: --runner "),
        ("runner", "runner", "KIND being one of executor_runner, onnxruntime_perf_test, benchmark_model."),
        ("runner", "runner:executor_runer", "unknown kind of native runner 'executor_runer'. Did you mean 'executor_r"),
        ("runner", "other:executor_runner", "other is not there; expected a program file."),
        ("runner", "executor_runner", "executor_runner is not there; expected a program file."),
        ("a/executor_runner", "a:executor_runner", "a is a folder; expected a program file."),
    ],
)
def test_runners_that_are_refused(name, asked_for, message, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    with pytest.raises(UnsupportedError) as caught:
        parse(f"{tmp_path}/{asked_for}")
    assert message in str(caught.value)


def test_a_whole_run_with_samples(tmp_path, session, bundle):
    """executor_runner of version 1.4: every latency, inputs from the bundle, outputs back."""
    runner = native(tmp_path, "executor_runner", EXECUTOR_RUNNER)
    request = asked(bundle, outputs=str(session / "outputs.npz"), threads=2)
    messages = list(runner.messages(execute_in(session), request, str(bundle), LocalDevice()))

    hello = messages[0]
    assert isinstance(hello, Hello) and hello.runtime == "executorch" and hello.device.abi
    assert hello.version == "unknown (executor_runner does not tell it)"
    stages = [message.stage for message in messages if isinstance(message, Progress)]
    assert list(dict.fromkeys(stages)) == ["first", "timed", "samples"]
    result = result_of(messages)
    assert result.latency and result.latency.first == 9.5 and result.latency.load == 12.345678
    assert result.latency.samples == len(samples_of(messages)) >= QUICK.min_runs
    assert result.latency.p50 == pytest.approx(1.0, rel=0.02)
    assert result.latency.max < 1.2, "the inferences of warm-up are no samples"
    assert result.latency.warmup >= 5
    assert result.conditions.threads == 2
    assert result.conditions.warnings == []
    assert "does not tell what it used before the model was loaded" in why(result.memory)
    with np.load(session / "outputs.npz") as outputs:
        assert list(outputs) == ["reference/forward/outputs/y"]
        np.testing.assert_array_equal(
            outputs["reference/forward/outputs/y"], 2 * np.arange(6, dtype=np.float32).reshape(2, 1, 3)
        )
    calls = (session / "calls.txt").read_text()
    assert f"--model_path={bundle}/forward.pte" in calls and "--cpu_threads=2" in calls
    assert "--method_name" not in calls


def test_the_messages_are_the_protocols(tmp_path, session, bundle):
    runner = native(tmp_path, "executor_runner", EXECUTOR_RUNNER)
    adapter = TypeAdapter(Message)
    for message in runner.messages(execute_in(session), asked(bundle), str(bundle)):
        assert adapter.validate_json(message.model_dump_json()) == message


def test_a_latency_that_never_becomes_steady(tmp_path, session, bundle):
    falling = EXECUTOR_RUNNER.replace("random.gauss(1.0, 0.01)", "1.0 + 0.005 * (runs - place)")
    runner = native(tmp_path, "executor_runner", falling)
    result = result_of(list(runner.messages(execute_in(session), asked(bundle), str(bundle))))
    assert any("the latency was not steady after" in warning for warning in result.conditions.warnings)


def test_start_times_follow_each_other(tmp_path, session, bundle):
    runner = native(tmp_path, "executor_runner", EXECUTOR_RUNNER)
    messages = list(runner.messages(execute_in(session), asked(bundle), str(bundle)))
    starts = [value for message in messages if isinstance(message, Samples) for value in message.start_ns]
    spans = samples_of(messages)
    assert starts[0] == 0 and starts == [sum(spans[:place]) for place in range(len(spans))]


def test_further_inputs(tmp_path, session, bundle):
    tiny.write_npz(tmp_path / "inputs.npz", {"forward/inputs/x": np.full((3, 1, 3), 7, np.float32)})
    request = asked(bundle, outputs=str(session / "outputs.npz"), inputs=str(tmp_path / "inputs.npz"), timing=None)
    runner = native(tmp_path, "executor_runner", EXECUTOR_RUNNER)
    messages = list(runner.messages(execute_in(session), request, str(bundle), LocalDevice()))
    result = result_of(messages)
    assert result.latency is None and result.memory is None and result.outputs == str(session / "outputs.npz")
    assert [m.done for m in messages if isinstance(m, Progress)] == [None, 1, 2, 3, 4, 5]
    with np.load(session / "outputs.npz") as outputs:
        assert outputs["inputs/forward/outputs/y"].shape == (3, 1, 3)
        assert (outputs["inputs/forward/outputs/y"] == 14).all()


def test_an_output_of_another_size(tmp_path, session, bundle):
    tiny.write_npz(
        bundle / "reference.npz",
        {"forward/inputs/x": np.ones((1, 3), np.float32), "forward/outputs/y": np.ones((1, 5), np.float32)},
    )
    runner = native(tmp_path, "executor_runner", EXECUTOR_RUNNER)
    request = asked(bundle, outputs=str(session / "outputs.npz"))
    with pytest.raises(DeviceError) as caught:
        list(runner.messages(execute_in(session), request, str(bundle), LocalDevice()))
    assert str(caught.value) == (
        "device 'local': the program executor_runner failed at step 'samples': output 'y' has 12 bytes; expected 20 as "
        "in the reference."
    )


def test_without_a_way_to_bring_samples(tmp_path, session, bundle):
    runner = native(tmp_path, "executor_runner", EXECUTOR_RUNNER)
    request = asked(
        bundle, outputs=str(session / "outputs.npz"), gate=Gate(below_c=40), power=PowerRequest(sensors=["rapl"])
    )
    result = result_of(list(runner.messages(execute_in(session), request, str(bundle))))
    assert result.outputs is None
    assert result.facts[NO_OUTPUTS] == "executor_runner was given no way to bring samples to the device"
    warnings = result.conditions.warnings
    assert "timed with inputs that are all ones, which executor_runner makes up itself" in warnings
    assert any("there was no thermal gate" in warning for warning in warnings)
    assert why(result.power) == "executor_runner does not sample power"


def test_a_version_that_tells_only_a_total(tmp_path, session, bundle):
    runner = native(tmp_path, "executor_runner", EXECUTOR_RUNNER_1_2)
    messages = list(runner.messages(execute_in(session), asked(bundle), str(bundle)))
    latency = result_of(messages).latency
    assert latency and latency.first == 8.0, "of a call of one inference"
    assert why(latency.load) == "executor_runner prints it from version 1.3 on, not this one"
    assert latency.samples == len(samples_of(messages)) == 10 and latency.warmup == 0
    assert latency.p50 == pytest.approx((8.0 + 2.0) / 2, rel=0.02)
    assert result_of(messages).conditions.warnings[0] == (
        "each sample is the mean of 2 inferences, the first of them cold, as the program tells no more: percentiles "
        "and extremes are those of means, which lie closer together than single inferences"
    )


def test_perf_test(tmp_path, session, bundle):
    runner = native(tmp_path, "onnxruntime_perf_test", PERF_TEST)
    options = {"graph_optimization": "extended", "allow_spinning": False}
    request = asked(bundle, "forward.onnx", threads=3, options=options, outputs=str(session / "outputs.npz"))
    messages = list(runner.messages(execute_in(session), request, str(bundle), LocalDevice()))
    result = result_of(messages)
    assert result.latency and result.latency.samples == len(samples_of(messages)) >= QUICK.min_runs
    assert result.latency.p50 == pytest.approx(2.0, rel=0.02) and result.latency.max < 2.5
    assert result.latency.load == pytest.approx(41.2345)
    assert why(result.latency.first) == "onnxruntime_perf_test tells it in whole milliseconds, rounded down: 5"
    assert result.facts == {
        "peak_working_set_mib": "50.0",
        NO_OUTPUTS: "onnxruntime_perf_test does not write outputs",
    }
    assert result.outputs is None and not (session / "outputs.npz").exists()
    call = (session / "calls.txt").read_text().splitlines()[0]
    assert call.startswith(f"-I -S 1 -m times -r 1 -x 3 -e cpu -o 2 -D {bundle}/forward.onnx perf-test-")


def test_benchmark_model_with_a_part_of_the_users(tmp_path, session, bundle):
    runner = native(tmp_path, "benchmark_model", BENCHMARK_MODEL)
    messages = list(runner.messages(execute_in(session), asked(bundle, "forward.tflite"), str(bundle)))
    hello, result = messages[0], result_of(messages)
    assert isinstance(hello, Hello) and hello.runtime == "litert"
    assert result.latency and result.latency.p50 == pytest.approx(14.5752)
    assert result.latency.first == 18.535 and result.latency.load == 5.685
    assert result.latency.samples == 10 and result.latency.warmup == 350
    assert result.conditions.warnings[0].startswith("each sample is the mean of 2 inferences, as the program tells no")
    assert result.facts == {"memory_footprint_delta_mib": "8.17188"}


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (
            "executor_runner",
            {"program": "forward.onnx"},
            "executor_runner runs .pte files of the runtime 'executorch'; ",
        ),
        ("benchmark_model", {}, "benchmark_model runs .tflite files of the runtime 'litert'; this bundle's program is"),
        ("executor_runner", {"options": {"x": 1}}, "executor_runner has no way to follow the options x."),
        ("executor_runner", {"sustain": Sustain(time_s=60)}, "executor_runner cannot run sustained: it starts anew at"),
        ("executor_runner", {"timing": None}, "executor_runner gives no outputs, and the request asks for no timing."),
        (
            "onnxruntime_perf_test",
            {"program": "forward.onnx", "options": {"provider": "Tensorrt"}},
            "onnxruntime_perf_test has no flag for the provider 'Tensorrt'; known: CPUExecutionProvider, Xnnpack",
        ),
        (
            "onnxruntime_perf_test",
            {"program": "forward.onnx", "options": {"magic": 1}},
            "onnxruntime_perf_test has no flag for the option magic; known: provider, graph_optimization, ",
        ),
    ],
)
def test_requests_that_cannot_be_met(kind, changes, message, tmp_path, session, bundle):
    runner = native(tmp_path, kind, "raise SystemExit('it ran')")
    with pytest.raises(UnsupportedError) as caught:
        list(runner.messages(execute_in(session), asked(bundle, **changes), str(bundle)))
    assert str(caught.value).startswith("device 'device': ") and message in str(caught.value)


def test_a_bundle_of_several_parts(tmp_path, session, bundle):
    parts = [
        PartRequest(name=name, program="m.pte", entry=name, inputs=["x"], outputs=["y"]) for name in ("encode", "step")
    ]
    runner = native(tmp_path, "executor_runner", EXECUTOR_RUNNER)
    with pytest.raises(UnsupportedError, match="runs one part; the bundle has 2: encode, step"):
        list(runner.messages(execute_in(session), asked(bundle, parts=parts), str(bundle)))


def test_a_program_that_fails_is_passed_on(tmp_path, session, bundle):
    runner = native(tmp_path, "executor_runner", "raise SystemExit('Failed to parse model file')")
    with pytest.raises(DeviceError, match="exit code 1: Failed to parse model file"):
        list(runner.messages(execute_in(session), asked(bundle), str(bundle)))


def test_a_build_without_logging(tmp_path, session, bundle):
    runner = native(tmp_path, "executor_runner", "print('OutputX 0: tensor(sizes=[1], [1.])')")
    with pytest.raises(DeviceError) as caught:
        list(runner.messages(execute_in(session), asked(bundle), str(bundle)))
    assert str(caught.value).startswith(
        "device 'device': the program executor_runner failed at step 'first': it printed no time. It prints times only "
        "where it is built with -DEXECUTORCH_ENABLE_LOGGING=ON"
    )


def test_words_of_executor_runner():
    call = Call("/p/er", "/b/m.pte", "encode", 5, 2, [0, 2, 5], inputs=["/a/0.bin", "/a/1.bin"], outputs="/o/sample")
    assert executor_runner.words(call) == [
        "taskset",
        "25",
        "/p/er",
        "--model_path=/b/m.pte",
        "--num_executions=5",
        "--cpu_threads=2",
        "--method_name=encode",
        "--inputs=/a/0.bin,/a/1.bin",
        "--output_file=/o/sample",
    ]


def test_words_of_perf_test_for_nnapi():
    options = {"provider": "NnapiExecutionProvider", "nnapi_use_fp16": True, "nnapi_cpu_disabled": True}
    words = perf_test.words(Call("/p/pt", "/b/m.onnx", "main", 9, options=options), "r.csv")
    assert words[8:] == [
        *["-e", "nnapi", "-o", "99", "-i", "NNAPI_FLAG_USE_FP16 NNAPI_FLAG_CPU_DISABLED", "/b/m.onnx", "r.csv"]
    ]


def test_words_of_benchmark_model():
    words = benchmark_model.words(Call("/p/bm", "/b/m.tflite", "", 9, 4))
    assert words == [
        "/p/bm",
        "--graph=/b/m.tflite",
        "--num_runs=9",
        "--min_secs=0",
        "--warmup_min_secs=0.5",
        "--num_threads=4",
    ]


LOG = "I 00:00:00.000731 executorch:executor_runner.cpp:779] "


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Iteration 1 of 1: 1.0 ms"], "it printed no time."),
        (["Model executed successfully 2 time(s) in 2.0 ms."], "it ran 2 inferences where 1 were asked for."),
        (["Model executed successfully 1 time(s) in 1.0 ms."] * 2, "it printed the total time 2 times."),
        (["Model executed successfully 1 time(s) in 0.000000 ms."], "it printed a time of 0 ms for an inference."),
        (["Model executed successfully 1 time(s) in 1e300 ms."], "it printed a time of 1e+300 ms for an inference."),
        (["Model executed successfully 1 time(s) in 1e999 ms."], "it printed a number beyond all bounds: 1e999."),
        (["Model executed successfully 1 time(s) in -1.0 ms."], "it printed no time."),
        (["Model executed successfully 1 time(s) in nan ms."], "it printed no time."),
        (
            ["Iteration 1 of 1: 3.0 ms", "Model executed successfully 1 time(s) in 1.0 ms."],
            "it printed 3 ms in single inferences but 1 ms in all.",
        ),
        (
            ["Iteration 2 of 1: 1.0 ms", "Model executed successfully 1 time(s) in 1.0 ms."],
            "it printed 1 single times, not those of inferences 1 to 1 in order.",
        ),
        (
            [
                "Iteration 1 of 1: 1.0 ms",
                "Iteration 1 of 1: 1.0 ms",
                "Model executed successfully 1 time(s) in 2.0 ms.",
            ],
            "it printed 2 single times, not those of inferences 1 to 1 in order.",
        ),
    ],
)
def test_output_of_executor_runner_that_is_refused(lines, message):
    with pytest.raises(BrokenStreamError) as caught:
        executor_runner.parse("".join(f"{LOG}{line}\n" for line in lines), 1)
    assert str(caught.value).startswith(message)


def test_what_a_model_prints_is_no_figure():
    text = "OutputX 0: Model executed successfully 1 time(s) in 5.0 ms.\n" + LOG
    found = executor_runner.parse(text + "Model executed successfully 1 time(s) in 7.0 ms.\n", 1)
    assert found.spans_ns == (7_000_000,) and not found.each


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ("b,0.001,1,2,0\n", "its result file has 1 lines where 2 were expected."),
        (
            "b,0.001,1,2,0\nb,0.001,1,2,1\n\nMin Latency: 0.001 s\n",
            "its result file has 4 lines where 2 were expected.",
        ),
        ("b,0.001,1,2,0\nb,0.001,1,2,2\n", "line 2 of its result file is no result of run 1: 'b,0.001,1,2,2'."),
        ("b,0.001,1,2,0\nb,nan,1,2,1\n", "line 2 of its result file is no result of run 1: 'b,nan,1,2,1'."),
        ("b,0.001,1,2,0\nb,0,1,2,1\n", "it printed a time of 0 ms for an inference."),
    ],
)
def test_result_files_that_are_refused(results, message):
    with pytest.raises(BrokenStreamError) as caught:
        perf_test.parse("", results, 2)
    assert str(caught.value) == message


def test_a_result_file_with_a_hostile_model_name():
    found = perf_test.parse("", "a,b,0.5,1,2,0\na,b,1.5e-05,1,2,1\n", 2)
    assert found.spans_ns == (500_000_000, 15_000) and found.warmup == 1
    assert why(found.load_ms) == "this version of onnxruntime_perf_test does not print the time of loading"


def test_perf_test_must_agree_with_itself():
    with pytest.raises(BrokenStreamError, match="it says that it ran 3 inferences where 1 were asked for"):
        perf_test.parse("Total inference requests: 3\n", "b,0.5,1,2,0\n", 1)


def test_a_long_first_inference_is_told():
    found = perf_test.parse("First inference time cost: 250 ms\n", "b,0.5,1,2,0\n", 1)
    assert found.first_ms == 250.0


def test_older_output_of_benchmark_model():
    """Without the heading of a line, and with a count whose runs all took the same time."""
    text = (
        "count=1 curr=400 p5=400 median=400 p95=400\n"
        "count=50 curr=81350(all same) p5=1 median=2 p95=3\n"
        "Inference timings in us: Init: 0, First inference: 400, Warmup (avg): 400, Inference (avg): 1.81e+06\n"
    )
    found = benchmark_model.parse(text)
    assert found.spans_ns == (1_810_000_000,) and (found.warmup, found.runs) == (1, 50)
    assert why(found.load_ms) == "benchmark_model tells it in whole microseconds: 0" and found.first_ms == 0.4


@pytest.mark.parametrize(
    "text", ["", "INFO: count=1 curr=4\n", "INFO: Inference timings in us: Init: 1, First inference: 2\n"]
)
def test_output_of_benchmark_model_that_is_refused(text):
    with pytest.raises(BrokenStreamError, match="it did not print one line 'Inference timings in us"):
        benchmark_model.parse(text)


def test_endless_lines_take_no_time():
    text = "I 00:00:00.000001 executorch:" * 50_000 + "\n" + "count=1 " * 50_000
    for read in (lambda: executor_runner.parse(text, 1), lambda: benchmark_model.parse(text)):
        with pytest.raises(BrokenStreamError):
            read()
