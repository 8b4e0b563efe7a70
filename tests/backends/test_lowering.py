"""Programs of both runtimes: that they compute what the model computes, and what they say fell back and why."""

from __future__ import annotations

import pytest
from _models import Pooled, captioner, conv_model, exact, example, flat, mlp_model, nn, run, seeded, tiny, torch

import edge_sdk
from edge_sdk.errors import ModelError

RUNTIMES = ["executorch", "onnxruntime"]


def compiled(model, runtime: str, **options):
    return edge_sdk.compile(model, "desktop-cpu", runtime=runtime, **options)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("build", [conv_model, captioner])
def test_a_program_computes_what_the_model_computes(build, runtime):
    model = build()
    bundle = compiled(model, runtime)
    samples = model.samples("reference")
    assert abs(flat(run(bundle, samples)) - flat(exact(model, samples))).max() < 1e-5
    assert [part.name for part in bundle.manifest.parts] == [part.name for part in model.parts()]
    for part in model.parts():
        spec = next(spec for spec in bundle.manifest.parts if spec.name == part.name)
        assert [tensor.name for tensor in spec.inputs] == list(part.input_names)
        assert [tensor.name for tensor in spec.outputs] == list(part.output_names)


def test_the_parts_of_an_executorch_program_share_one_file_and_those_of_onnx_have_one_each():
    assert {part.program for part in compiled(captioner(), "executorch").manifest.parts} == {"model.pte"}
    names = [part.program for part in compiled(captioner(), "onnxruntime").manifest.parts]
    assert names == ["encoder.onnx", "step.onnx"]


def test_a_mean_over_height_and_width_does_not_cut_the_graph():
    whole = compiled(conv_model(), "executorch").manifest.partition
    assert (whole.pieces, whole.fallback) == (1, [])
    assert {one.name: one.count for one in whole.rewrites} == {
        "drop_identities": 1,
        "fold_batch_norm": 2,
        "fold_symmetric_padding": 1,
        "mean_to_average_pool": 1,
    }
    cut = compiled(conv_model(), "executorch", rewrites=False).manifest.partition
    assert cut.rewrites == []
    assert cut.pieces > 1 and "mean.out" in [one.op for one in cut.fallback]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_without_rewrites_the_numbers_are_the_same(runtime):
    model = conv_model()
    samples = model.samples("reference")
    plain, rewritten = (compiled(model, runtime, rewrites=on) for on in (False, True))
    assert plain.manifest.partition.rewrites == [] and rewritten.manifest.partition.rewrites
    assert plain.manifest.key != rewritten.manifest.key
    assert abs(flat(run(plain, samples)) - flat(run(rewritten, samples))).max() < 1e-5


class Sorter(nn.Module):
    """Operators that XNNPACK does not have, between some that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = torch.cumsum(torch.cumsum(self.before(x), 1), 1)
        return self.after(torch.topk(x, 8).values)


def test_what_xnnpack_lacks_is_listed_with_count_and_reason():
    model = tiny(seeded(Sorter), example(1, 8))
    bundle = compiled(model, "executorch")
    partition = bundle.manifest.partition
    assert partition.delegate == "xnnpack" and partition.delegated >= 2 and partition.pieces == 2
    listed = {one.op: (one.count, one.reason) for one in partition.fallback}
    assert listed["cumsum.out"] == (2, "XNNPACK has no operator for it")
    assert listed["topk.values"] == (1, "XNNPACK has no operator for it")
    assert set(listed) == {"cumsum.out", "topk.values"}
    samples = model.samples("reference")
    assert abs(flat(run(bundle, samples)) - flat(exact(model, samples))).max() < 1e-5


def test_what_xnnpack_takes_only_in_some_forms_is_listed_with_its_own_reason():
    class Rows(nn.Module):
        def forward(self, x):
            return torch.relu(x).mean(1)

    (left,) = compiled(tiny(Rows(), example(3, 8)), "executorch").manifest.partition.fallback
    assert left.op == "mean.out" and left.count == 1 and "4D tensors" in left.reason


def test_onnxruntime_takes_every_operator():
    partition = compiled(tiny(seeded(Sorter), example(1, 8)), "onnxruntime").manifest.partition
    assert (partition.delegate, partition.pieces, partition.fallback) == ("cpu", 1, [])
    assert partition.delegated >= 4


def test_sizes_that_vary_stay_open_in_an_onnx_program():
    model = tiny(seeded(lambda: nn.Linear(8, 4)), example(2, 8), dynamic={"x": {0: (1, 16)}})
    bundle = compiled(model, "onnxruntime")
    for rows in (1, 5, 16):
        sample = {"forward": {"x": example(rows, 8).numpy()}}
        assert abs(flat(run(bundle, [sample])) - flat(exact(model, [sample]))).max() < 1e-5
    assert bundle.manifest.parts[0].inputs[0].shape == [None, 8]


class Histogram(nn.Module):
    """An operator that neither exporter has."""

    def forward(self, x):
        return torch.histc(x, 10)


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ("executorch", "ExecuTorch cannot lower the model: "),
        ("onnxruntime", "part 'forward' cannot be exported to ONNX: "),
    ],
)
def test_a_graph_that_a_runtime_cannot_express(runtime, message):
    with pytest.raises(ModelError) as caught:
        compiled(tiny(Histogram(), example(4, 4)), runtime)
    text = str(caught.value)
    assert message in text and text.isprintable() and "histc" in text
    other = "onnxruntime" if runtime == "executorch" else "executorch"
    assert text.endswith(f"Try --runtime {other}, or another quantizer.")


def test_an_onnx_program_quotes_no_line_and_no_path_of_this_machine():
    bundle = compiled(mlp_model(), "onnxruntime")
    content = (bundle.path / "forward.onnx").read_bytes()
    for word in (b".py", b"site-packages", b"stack_trace"):
        assert word not in content


def test_a_pooled_image_alone_is_delegated_whole():
    partition = compiled(tiny(Pooled(), example(1, 3, 4, 4)), "executorch").manifest.partition
    assert (partition.pieces, partition.fallback) == (1, [])
