"""Makes every candidate's file: by `edgekit export`, and by each peer in its own environment; with what it took."""

import json
import os
import resource
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tables
from numpy.typing import NDArray
from peers_candidates import EMBEDDED, PEERS, RATES, WORK, Model, Peer, make_environment, python_of
from peers_texts import Texts

from edgekit.bundle import GOLDEN, LOG, MANIFEST, MANIFEST_SUM, Bundle, open_bundle, seal_bundle
from edgekit.proof.golden import Golden, Step, write_golden

HERE = Path(__file__).parent
TIMEOUT_S = 1800
KEPT = "kept.json"  # of each export: its time and where its file is, or the error
#: scheme of edgekit → scheme as peers call it
OURS = {"none": "none", "int8-dynamic": "int8"}
RateFiles = dict[tuple[str, str], dict[int, str]]
RUNTIMES = {"tflite": "litert", "onnx": "onnxruntime"}


@dataclass(kw_only=True)
class Candidate:
    """A file that is measured, or the error that it ended in."""

    name: str
    runtime: str
    scheme: str
    peer: Peer | None = None
    bundle: Bundle | None = None
    file: Path | None = None
    error: str = ""
    export_s: float | None = None
    export_cpu_s: float | None = None
    size_bytes: int | None = None
    stages_s: dict[str, float] = field(default_factory=dict)
    proven: bool = True  # False: edgekit itself wrote it as outside its tolerance


def export_ours(
    model: Model,
    texts: Texts,
    reference: NDArray[np.float64],
    options: tuple[str, ...],
    *,
    only: str = "",
    reuse: bool = False,
) -> list[Candidate]:
    """Each target by one command for both schemes, proof included; its golden data are then the timed texts.

    `only` is the name of the one bundle that is wanted.
    """
    made = []
    for target, runtime in RUNTIMES.items():
        names = {scheme: f"edgekit, {target} {scheme}" for scheme in OURS}
        wanted = [scheme for scheme, name in names.items() if only in ("", name)]
        if not wanted:
            continue
        output = WORK / "exports" / model.name / f"edgekit-{target}"
        if not (reuse and _has_kept(output, wanted)):
            print(f"  exporting: edgekit, {target}", flush=True)
            shutil.rmtree(output, ignore_errors=True)
            source = texts.source if model is EMBEDDED else f"hf:{texts.source}"
            command = ("export", source, "--target", target, "--quantize", ",".join(wanted), *options, "-o", output)
            _keep(output, _edgekit_export(command, wanted))
        kept = json.loads((output / KEPT).read_text())
        for scheme in wanted:
            candidate = Candidate(name=names[scheme], runtime=runtime, scheme=OURS[scheme])
            _take(candidate, kept[scheme])
            if not candidate.error:
                bundle = open_bundle(tables.ROOT / kept[scheme]["bundle"])
                candidate.size_bytes, candidate.proven = bundle.model_size_bytes, bundle.manifest.proven
                candidate.bundle = with_texts(bundle, texts, reference, output / f"timed-{scheme}.edgekit")
            made.append(candidate)
    return made


def _edgekit_export(command: tuple[str | Path, ...], schemes: list[str]) -> dict[str, Any]:
    """What is kept of one `edgekit export`, by scheme: the time of the whole command, or the error."""
    started, spent = time.monotonic(), cpu_seconds()
    try:
        outcomes = tables.edgekit(*command)
    except SystemExit as error:
        return {scheme: {"error": str(error)} for scheme in schemes}
    took = {"export_s": time.monotonic() - started, "export_cpu_s": cpu_seconds() - spent}
    kept = {}
    for outcome in outcomes:
        fields = {"error": outcome["error"] or "", "stages_s": outcome["seconds"], "bundle": outcome["bundle"]}
        kept[outcome["scheme"]] = took | fields
    return kept


def _keep(output: Path, kept: dict[str, Any]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / KEPT).write_text(json.dumps(kept))


def _has_kept(output: Path, wanted: list[str]) -> bool:
    """Whether an earlier run made all that is wanted: `--check` makes one bundle alone."""
    return (output / KEPT).is_file() and set(wanted) <= json.loads((output / KEPT).read_text()).keys()


def _take(candidate: Candidate, kept: dict[str, Any]) -> None:
    candidate.error = kept["error"]
    candidate.export_s, candidate.export_cpu_s = kept.get("export_s"), kept.get("export_cpu_s")
    candidate.stages_s = kept.get("stages_s", {})


def with_texts(bundle: Bundle, texts: Texts, reference: NDArray[np.float64], folder: Path) -> Bundle:
    """The same bundle with the timed texts as golden data, each in the smallest signature that holds it."""
    leave = shutil.ignore_patterns(GOLDEN, MANIFEST, MANIFEST_SUM, LOG)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bundle.path, folder, ignore=leave)
    steps = tuple(_step(bundle, ids, answer) for ids, answer in zip(texts.ids, reference, strict=True))
    write_golden(folder / GOLDEN, Golden(steps=steps, labels=np.full(len(steps), -1, np.int32)))
    manifest = bundle.manifest
    fields = {name: getattr(manifest, name) for name in type(manifest).model_fields if name != "files"}
    seal_bundle(folder, **fields)
    return open_bundle(folder)


def _step(bundle: Bundle, ids: tuple[int, ...], answer: NDArray[np.float64]) -> Step:
    """One text as edgekit's own `predict` feeds it: at the shortest length of the file that holds it."""
    manifest = bundle.manifest
    length = manifest.length_for(len(ids))
    named = manifest.lengths.get(length, manifest.signatures[0].name)
    signature = next(each for each in manifest.signatures if each.name == named)
    inputs = {}
    for port in signature.inputs:
        value = np.zeros((1, length), port.dtype)
        value[0, : len(ids)] = 1 if "mask" in port.name else 0 if "type" in port.name else ids
        inputs[port.name] = value
    output = signature.outputs[0]
    return Step(signature=signature.name, inputs=inputs, outputs={output.name: answer[None].astype(output.dtype)})


def export_peers(model: Model, texts: Texts, names: list[str], *, reuse: bool = False) -> list[Candidate]:
    """Every peer that can take the model, or those named; what fails is kept with its error."""
    made: dict[str, Candidate] = {}
    for peer in PEERS:
        if model.name in peer.models and (not names or peer.name in names):
            made[peer.name] = _export(peer, model, texts, made, reuse=reuse)
    return list(made.values())


def export_rates(rows: list[int], texts: Texts, *, reuse: bool = False) -> RateFiles:
    """The one matrix product at each number of rows, by each runtime and scheme; those that fail are left out."""
    found: RateFiles = {}
    for key, peer in RATES.items():
        floats = found.get((peer.runtime, "none"), {}) if peer.scheme != "none" else {}
        fields = {"model": "matmul", "rows": rows, "float": floats, "source": ""}
        candidate, told = _run_export(peer, "matmul", fields, texts, reuse=reuse)
        found[key] = {int(count): file for count, file in told.get("files", {}).items()}
        if candidate.error:
            print(f"  no matrix product by {peer.name}: {candidate.error}", flush=True)
    return found


def _export(peer: Peer, model: Model, texts: Texts, made: dict[str, Candidate], *, reuse: bool) -> Candidate:
    before = made.get(peer.after)
    if before is not None and before.file is None:
        return Candidate(name=peer.name, runtime=peer.runtime, scheme=peer.scheme, peer=peer,
                         error=f"{peer.after}, whose file it starts from, failed")  # fmt: skip
    fields = {"model": model.name, "source": str(texts.source), "length": model.length}
    fields["float"] = str(before.file) if before else ""
    candidate, told = _run_export(peer, model.name, fields, texts, reuse=reuse)
    if not peer.export:
        candidate.file = _torch_job(peer, model, fields)
    elif told:
        candidate.file = Path(told["file"])
        parts = (candidate.file, candidate.file.with_suffix(".bin"))  # OpenVINO keeps the weights beside the graph
        candidate.size_bytes = sum(part.stat().st_size for part in dict.fromkeys(parts) if part.is_file())
    if before is not None and candidate.export_s is not None:
        candidate.export_s += before.export_s or 0.0
        candidate.export_cpu_s = (candidate.export_cpu_s or 0.0) + (before.export_cpu_s or 0.0)
    return candidate


def _torch_job(peer: Peer, model: Model, fields: dict[str, Any]) -> Path:
    """PyTorch exports nothing: it runs the module that a job names."""
    file = WORK / "exports" / model.name / "torch" / "job.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(fields))
    return file


def _run_export(
    peer: Peer, folder: str, fields: dict[str, Any], texts: Texts, *, reuse: bool
) -> tuple[Candidate, dict[str, Any]]:
    """One export in a process of the peer's environment, with its time, imports included; and what it told."""
    candidate = Candidate(name=peer.name, runtime=peer.runtime, scheme=peer.scheme, peer=peer)
    if not peer.export:
        return candidate, {}
    output = WORK / "exports" / folder / peer.export
    if not (reuse and (output / KEPT).is_file()):
        print(f"  exporting: {folder} by {peer.name}", flush=True)
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)
        job = fields | {"peer": peer.export, "output": str(output), "calibration": str(texts.calibration)}
        problem = make_environment(peer.environment)
        _keep(output, {"error": problem} if problem else _peer_export(peer, job, output / "log.txt"))
    kept = json.loads((output / KEPT).read_text())
    _take(candidate, kept)
    return candidate, kept.get("told", {})


def _peer_export(peer: Peer, job: dict[str, Any], log: Path) -> dict[str, Any]:
    """What is kept of one export of a peer: its time and what it told, or the error."""
    started, spent = time.monotonic(), cpu_seconds()
    with log.open("w") as stream:
        run = _start(python_of(peer.environment), HERE / "peers_export.py", job, stream)
    if run is None:
        return {"error": f"no end within {TIMEOUT_S} s"}
    if run.returncode:
        return {"error": last_line(log.read_text())}
    told = json.loads(run.stdout.splitlines()[-1])
    return {"error": "", "export_s": time.monotonic() - started, "export_cpu_s": cpu_seconds() - spent, "told": told}


def _start(python: Path, script: Path, job: dict[str, Any], log: Any) -> Any:
    """Run a script with a job on its standard input; None where it does not end in time."""
    command = [python, "-P", script]
    try:
        return subprocess.run(
            command, input=json.dumps(job), stdout=subprocess.PIPE, stderr=log, text=True, check=False,
            timeout=TIMEOUT_S, env=clean_environment(python), cwd=WORK,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None


def cpu_seconds() -> float:
    """The processor time of all processes that were started from here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def clean_environment(python: Path) -> dict[str, str]:
    """What a peer's process sees: its own interpreter first, and our modules."""
    return os.environ | {"PATH": f"{python.parent}:{os.environ['PATH']}", "PYTHONPATH": str(HERE)}


def last_line(text: str) -> str:
    """The line of a log that says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if "Error" in line and not line.startswith(("File ", "Traceback", "WARNING"))]
    return (told or lines or ["it said nothing"])[-1].replace(str(tables.ROOT), ".")[:300]
