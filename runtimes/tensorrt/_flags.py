"""Command lines of ``trtexec``, with the flags pinned that change what is measured.

TensorRT 11 turns data transfers off, and CUDA graphs and spin wait on, by default; 10 does the opposite. Here both
transfer the data, and wait by spinning; CUDA graphs are on or off as the target says. Networks are strongly typed.
"""

from __future__ import annotations


def build(program, major, onnx, engine, layers, options):
    """Builds an engine, and writes its layer information.

    Args:
        program: Path of trtexec.
        major: TensorRT's major version.
        onnx: Path of the model.
        engine: Path to write.
        layers: Path to write.
        options: ``timing_cache``, ``profiles``, ``tf32``, ``dla_core``, ``workspace_mib`` of the specification of
            ``build.py``.
    """
    words = [program, "--onnx=" + onnx, "--saveEngine=" + engine, "--skipInference"]
    words += ["--profilingVerbosity=detailed", "--exportLayerInfo=" + layers]
    if options["timing_cache"]:
        words.append("--timingCacheFile=" + options["timing_cache"])
    if not options["tf32"]:
        words.append("--noTF32")
    if options["workspace_mib"]:
        words.append("--memPoolSize=workspace:%dM" % options["workspace_mib"])
    for place, edge in enumerate(("min", "opt", "max") if options["profiles"] else ()):
        of_edge = {name: profile[place] for name, profile in options["profiles"].items()}
        words.append("--%sShapes=%s" % (edge, shapes(of_edge)))
    if options["dla_core"] is not None:
        words += ["--useDLACore=%d" % options["dla_core"], "--allowGPUFallback"]
        # The DLA of TensorRT 10 knows no strong typing: the graph's own FP16 has to be allowed.
        words.append("--fp16" if major < 11 else "--adjustForDLA")
    elif major < 11:
        words.append("--stronglyTyped")
    return words


def run(program, major, engine, options):
    """Runs an engine; the length of the run and what is exported are added to it.

    Args:
        program: Path of trtexec.
        major: TensorRT's major version.
        engine: Path of the engine.
        options: ``cuda_graphs`` and ``dla_core``.
    """
    words = [program, "--loadEngine=" + engine]
    if options["dla_core"] is not None:
        words.append("--useDLACore=%d" % options["dla_core"])
    # A DLA's work cannot be captured.
    graphs = options["cuda_graphs"] and options["dla_core"] is None
    if major < 11:
        return [*words, "--useSpinWait", "--separateProfileRun", *(["--useCudaGraph"] if graphs else [])]
    return [*words, "--includeDataTransfers", *([] if graphs else ["--noCudaGraph"])]


def length(iterations, duration_s, warmup_ms):
    """At least so many iterations and so many seconds, after a warm-up."""
    return ["--iterations=%d" % iterations, "--duration=%g" % duration_s, "--warmUp=%d" % warmup_ms]


def shapes(of):
    """Input shapes in trtexec's own form, such as ``'x':1x3x8x8,'y':1x2``."""
    return ",".join("'%s':%s" % (name, "x".join(map(str, shape)) or "scalar") for name, shape in of.items())


def inputs(of):
    """Files of inputs in trtexec's own form."""
    return "--loadInputs=" + ",".join("'%s':%s" % (name, path) for name, path in of.items())
