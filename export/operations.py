"""What a worker does for each kind of job: convert, compress, and compute references."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.checkpoint import load_checkpoint
from edgekit.errors import EdgekitError, ExportError, RefusedError
from edgekit.export.checks import check_signatures, check_weights
from edgekit.export.describe import SignatureDescription, describe_file
from edgekit.export.jobs import Evidence, Job, JobDetails, JobResult, WeightCount
from edgekit.export.quantize.mixture import Mixture, mixture_of
from edgekit.export.schemes import refusal
from edgekit.export.targets import TARGETS
from edgekit.export.unsupported import explain_failure
from edgekit.extras import EXTRAS, installed_version, skip_frameworks
from edgekit.program import Program, Signature, SourceRef
from edgekit.proof.golden import Arrays, Golden, Step, read_golden, write_golden
from edgekit.sources.opening import open_source
from edgekit.sources.rewrites import rewrite_program

Compress = Callable[[Path, Path, Mixture, Path | None], Evidence | None]

#: modules whose versions decide what is written
TOOLS = {
    "tflite": ("litert_torch", "ai_edge_litert", "ai_edge_quantizer"),
    "onnx": ("onnx", "onnxscript", "onnxruntime", "tf2onnx"),
    "coreml": ("coremltools",),
}


#: kinds of sources that import no code of the user's → what building and converting them needs, by framework
_LOADS: dict[str, dict[str, set[str]]] = {
    "checkpoint": {"torch": {"torch"}, "tensorflow": {"tensorflow"}},
    "huggingface": {"torch": {"torch", "torchao", "transformers"}},
}


def run_job(job: Job) -> JobResult:
    """Do one job.

    Raises EdgekitError for what edgekit refuses or finds broken; converters raise what they like.
    """
    operations = {
        "convert": _convert,
        "compress": _compress,
        "reference": _reference,
        "prepare": _prepare,
        "write": _write_texts,
        "quantize-cache": _quantize_cache,
        "score": _score,
    }
    return operations[job.op](job)


def _convert(job: Job) -> JobResult:
    source = _source(job)
    if job.target == "coreml" and source.kind in _LOADS:
        skip_frameworks(but=_LOADS[source.kind][source.framework])
    program = rewrite_program(open_source(source, length=job.length), job.rewrites)
    convert, options = _converter(str(job.target)), {}
    if job.signatures:
        program = replace(program, signatures=job.signatures)
    if job.coreml:
        options["options"] = job.coreml

    def write(path: Path) -> Evidence | None:
        try:
            return convert(program, path, scheme=job.scheme, **options)
        except Exception as error:
            explained = explain_failure(program, error)
            if explained is error:
                raise
            raise explained from error

    return _write(
        job,
        write,
        source_weights=count_parameters(program),
        signatures=program.signatures,
    )


def _compress(job: Job) -> JobResult:
    source = Path(str(job.input))
    if job.target == "coreml":
        skip_frameworks()
    compress = find_compressor(str(job.target), job.scheme)
    asked = _mixture(job)
    before = describe_file(source)
    calibration = Path(job.calibration) if job.calibration else None
    return _write(
        job,
        lambda path: compress(source, path, asked, calibration),
        source_weights=before.weights,
        source_operators=before.operators,
        signatures=before.signatures,
    )


def _mixture(job: Job) -> Mixture:
    """What a compress job asks for: its scheme, or its recipe resolved for the modules of its checkpoint."""
    if job.recipe is None:
        return Mixture(scheme=job.scheme)
    return mixture_of(job.recipe, load_checkpoint(Path(_source(job).path)), str(job.target))


def _write(
    job: Job,
    write: Callable[[Path], Evidence | None],
    *,
    source_weights: dict[str, WeightCount],
    source_operators: dict[str, int] | None = None,
    signatures: Sequence[Signature] | Sequence[SignatureDescription],
) -> JobResult:
    """Let `write` make the output in the temporary folder, read it back and check it, and move it to its place."""
    output = Path(job.output)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / output.name
        evidence = write(path)
        description = describe_file(path)
        check_signatures(description, signatures)
        check_weights(description, job.scheme)
        path.replace(output)
    return JobResult(
        ok=True,
        files=_files(output),
        details=JobDetails(
            source_weights=source_weights,
            weights=description.weights,
            source_operators=source_operators or {},
            operators=description.operators,
            version=description.version,
            evidence=evidence,
        ),
        tools=tool_versions(job),
    )


def _reference(job: Job) -> JobResult:
    program = open_source(_source(job), length=job.length)
    given = read_golden(Path(str(job.steps)))
    run = program_runner(program)
    steps = tuple(
        Step(signature=step.signature, inputs=step.inputs, outputs=run(step.signature, step.inputs))
        for step in given.steps
    )
    output = Path(job.output)
    write_golden(output, Golden(steps=steps, labels=given.labels))
    details = JobDetails(source_weights=count_parameters(program), steps=len(steps))
    return JobResult(ok=True, files=(output.name,), details=details, tools=tool_versions(job))


def _write_texts(job: Job) -> JobResult:
    from edgekit.export.writer_steps import writer_steps
    from edgekit.proof.golden_texts import GoldenTexts, pack_texts, unpack_texts
    from edgekit.proof.in_framework import ProgramBackend, run_backend
    from edgekit.proof.written import write_reference
    from edgekit.sources.writers import without_shorter, writer_signatures

    program = open_source(_source(job))
    signatures = job.signatures or (writer_signatures(program.module.model.config, job.lengths) if job.lengths else ())
    if signatures:
        program = replace(program, signatures=signatures)
    if job.texts is not None:
        from edgekit.export.prepare_writer import prepare_writer

        texts: GoldenTexts | None = prepare_writer(_source(job), program, Path(job.texts), Path(job.output).parent)
    else:
        texts = unpack_texts(read_golden(Path(str(job.steps))))
    if texts is None:
        raise RefusedError(f"{job.steps} has no texts to write after")
    call = program_runner(program)
    plain = replace(program, signatures=without_shorter(program.signatures))  # files' short ones are held to its text
    written, loss = write_reference(run_backend(ProgramBackend(plain, call), Path(_source(job).path).name), texts)
    steps = writer_steps(program.signatures, texts.scored or texts.prompts, call)
    packed = pack_texts(replace(texts, written=written, loss=loss))
    output = Path(job.output)
    write_golden(output, Golden(steps=steps, labels=np.full(len(steps), -1, np.int32), texts=packed))
    details = JobDetails(source_weights=count_parameters(program), steps=len(steps))
    return JobResult(ok=True, files=(output.name,), details=details, tools=tool_versions(job))


def _quantize_cache(job: Job) -> JobResult:
    from edgekit.export.quantize.tflite_cache import quantize_cache
    from edgekit.proof.golden_texts import unpack_texts

    texts = unpack_texts(read_golden(Path(str(job.steps))))
    if texts is None:
        raise RefusedError(f"{job.steps} has no texts to calibrate with")
    given, source = texts.scored, Path(str(job.input))
    return _write(job, lambda path: quantize_cache(source, path, given), source_weights={}, signatures=job.signatures)


def _prepare(job: Job) -> JobResult:
    from edgekit.export.prepare import Texts, prepare

    source = _source(job)
    program = open_source(source, length=job.length)
    run = program_runner(program)
    texts = Texts.model_validate_json(Path(str(job.texts)).read_bytes())
    steps = prepare(source, program, texts, run, Path(job.output))
    details = JobDetails(source_weights=count_parameters(program), steps=steps)
    return JobResult(ok=True, files=_files(Path(job.output)), details=details, tools=tool_versions(job))


def _score(job: Job) -> JobResult:
    from edgekit.export.quantize.scores import Scorer, score_candidates
    from edgekit.export.quantize.writer_scores import WriterScorer

    checkpoint, target = load_checkpoint(Path(_source(job).path)), TARGETS[str(job.target)]
    writes = checkpoint.config.task != "classify"
    scorer = (WriterScorer if writes else Scorer)(
        Path(str(job.input)),
        target.name,
        target.shared_runtime if writes else target.runtime,
        checkpoint,
        Path(str(job.steps)),
        Path(job.calibration) if job.calibration else None,
    )
    output = Path(job.output)
    score_candidates(scorer, job.candidates, output, timed=job.timed)
    return JobResult(ok=True, files=(output.name,), tools=tool_versions(job))


def program_runner(program: Program) -> Callable[[str, Arrays], Arrays]:
    """What calls a signature of a live program, by name, with inputs and outputs as arrays."""
    return _torch_runner(program) if program.framework == "torch" else _tensorflow_runner(program)


def _torch_runner(program: Program) -> Callable[[str, Arrays], Arrays]:
    import torch

    from edgekit.export.torch_modules import SignatureModule

    modules = {s.name: SignatureModule(program, s).eval() for s in program.signatures}

    def run(signature: str, inputs: Arrays) -> Arrays:
        with torch.inference_mode():
            outputs = modules[signature](**{name: torch.from_numpy(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def _tensorflow_runner(program: Program) -> Callable[[str, Arrays], Arrays]:
    from edgekit.export.tf_graphs import signature_function

    # Eagerly a step of a small encoder takes 50 ms, traced 2 ms; the operations are the same.
    functions = {s.name: (s, signature_function(program, s)) for s in program.signatures}

    def run(name: str, inputs: Arrays) -> Arrays:
        signature, call = functions[name]
        outputs = call(*_ordered(signature, inputs))
        return {key: value.numpy() for key, value in outputs.items()}

    return run


def _ordered(signature: Signature, inputs: Arrays) -> list[Any]:
    return [inputs[spec.name] for spec in signature.inputs]


def count_parameters(program: Program) -> dict[str, WeightCount]:
    """The weights of a source module by dtype (float32 as a rule), each counted once."""
    if program.framework == "torch":
        values = [(str(p.dtype).removeprefix("torch."), p.numel()) for p in program.module.parameters()]
    else:
        values = [
            (str(getattr(w.dtype, "name", w.dtype)), int(np.prod(w.shape))) for w in program.module.trainable_weights
        ]
    counts: dict[str, WeightCount] = {}
    for dtype, elements in values:
        seen = counts.get(dtype, WeightCount(tensors=0, elements=0, bytes=0))
        counts[dtype] = WeightCount(
            tensors=seen.tensors + 1,
            elements=seen.elements + elements,
            bytes=seen.bytes + elements * np.dtype(dtype).itemsize,
        )
    return counts


def tool_versions(job: Job) -> dict[str, str]:
    """The installed versions of what had a part in a job, by module."""
    modules = ["torch" if job.source.framework == "torch" else "tensorflow"] if job.source else []
    if modules == ["tensorflow"]:
        modules.append("keras")
    modules += TOOLS.get(job.target or "", ())
    foreign = {"torch": ("tf2onnx",), "tensorflow": ("litert_torch", "onnxscript")}
    skipped = foreign[job.source.framework] if job.source else ()
    versions = {m: installed_version(m) for m in modules if m in EXTRAS and m not in skipped}
    return {module: version for module, version in versions.items() if version}


def _source(job: Job) -> SourceRef:
    if job.source is None:
        raise RefusedError(f"a {job.op} job needs a source")
    return job.source


def _converter(target: str) -> Callable[..., Evidence | None]:
    """The `convert(program, output, *, scheme)` of a target; only its own libraries are loaded."""
    if target == "tflite":
        from edgekit.export import to_tflite

        return to_tflite.convert
    if target == "onnx":
        from edgekit.export import to_onnx

        return to_onnx.convert
    if target == "coreml":
        from edgekit.export import to_coreml

        return to_coreml.convert
    from edgekit.export import to_reference

    return to_reference.convert_savedmodel if target == "savedmodel" else to_reference.convert_pt2


def find_compressor(target: str, scheme: str) -> Compress:
    """The `compress(source, output, asked, calibration)` of a target; only its own libraries are loaded.

    `scheme` is "none" for a mixture of schemes. Raises RefusedError for what the target does not offer.
    """
    refused = refusal(scheme, target)
    if refused:
        raise RefusedError(refused)
    if target == "tflite":
        from edgekit.export import to_tflite
        from edgekit.export.quantize import for_tflite

        return _fp16(to_tflite.compress_fp16) if scheme == "fp16" else _checked(for_tflite.compress)
    if target == "onnx":
        from edgekit.export import to_onnx
        from edgekit.export.quantize import for_onnx

        return _fp16(to_onnx.compress_fp16) if scheme == "fp16" else _checked(for_onnx.compress)
    if scheme == "fp16":
        raise RefusedError(f"a finished {target} file can't be made fp16: export it from its checkpoint")
    from edgekit.export.quantize import for_coreml

    return _checked(for_coreml.compress)


def _checked(compress: Compress) -> Compress:
    """`compress`, with an ExportError where it had only activations to quantize and changed no operator."""

    def checked(source: Path, output: Path, asked: Mixture, calibration: Path | None) -> Evidence | None:
        evidence = compress(source, output, asked, calibration)
        if evidence is None and describe_file(output).operators == describe_file(source).operators:
            raise ExportError(f"{asked.scheme} did not take: no operator of the file changed")
        return evidence

    return checked


def _fp16(compress: Callable[[Path, Path], None]) -> Compress:
    return lambda source, output, asked, calibration: compress(source, output)


def _files(output: Path) -> tuple[str, ...]:
    """The files written, relative to the folder of `output`."""
    if output.is_file():
        return (output.name,)
    found = sorted(path for path in output.rglob("*") if path.is_file())
    if not found:
        raise EdgekitError(f"the converter wrote nothing to {output}")
    return tuple(path.relative_to(output.parent).as_posix() for path in found)
