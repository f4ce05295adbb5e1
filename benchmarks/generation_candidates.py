"""Who writes in `generation.py`: edgekit's files and the peers', and how each is made."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import generation_models as models
import tables
from peers_candidates import MAIN, make_environment

from edgekit.bundle import open_bundle

#: what edgekit exports, and the runtime of each
TARGETS = {"tflite": "LiteRT", "onnx": "ONNX Runtime"}
SCHEMES = ("none", "int8-dynamic", "int4-weight")
#: environment → what is installed in it; onnxruntime-genai's own builder of models needs the rest
ENVIRONMENTS = {
    "onnxruntime-genai": ("onnxruntime-genai==0.18.0", "onnxruntime==1.31.1", "onnx-ir==1.1.0", "onnx==1.23.2",
                          "transformers==5.23.0", "torch==2.13.0"),
    "litert-lm": ("litert-lm-api==0.18.1",),
    "llama-cpp": ("llama-cpp-python==0.3.36", "gguf==0.19.0"),  # built from its source package: cmake and a compiler
}  # fmt: skip


@dataclass(kw_only=True)
class Candidate:
    """One file of one tool; `make` gives its path, which may take a while, `precision` what its weights are."""

    name: str
    precision: str
    runtime: str
    environment: str
    make: Callable[[int], Path]
    ours: bool = False
    peer: str = ""
    error: str = ""
    weights_bytes: int = 0


def candidates() -> list[Candidate]:
    """Everyone, edgekit first; the float32 of each runtime before what is smaller."""
    hub = models.WORK / "hf"
    found = [
        Candidate(name=f"edgekit, {target} {scheme}", precision=scheme, runtime=runtime, environment=MAIN, ours=True,
                  make=lambda _, target=target, scheme=scheme: bundle_path(target, scheme))
        for target, runtime in TARGETS.items()
        for scheme in SCHEMES
    ]  # fmt: skip
    found.append(Candidate(name="transformers, float32", precision="none", runtime="PyTorch", environment=MAIN,
                           peer="transformers", make=lambda _: hub))  # fmt: skip
    found += [
        Candidate(name=f"onnxruntime-genai, {precision}", precision=scheme, runtime="ONNX Runtime",
                  environment="onnxruntime-genai", peer="genai",
                  make=lambda threads, precision=precision: models.build_genai(hub, precision, threads))
        for precision, scheme in (("fp32", "none"), ("int8", "int8-dynamic"), ("int4", "int4-weight"))
    ]  # fmt: skip
    found += [
        Candidate(name=f"LiteRT-LM, {recipe}", precision=scheme, runtime="LiteRT", environment="litert-lm",
                  peer="litert-lm", make=lambda _, recipe=recipe: models.build_litertlm(hub, recipe))
        for recipe, scheme in (("none", "none"), ("dynamic_wi8_afp32", "int8-dynamic"),
                               ("dynamic_wi4_afp32", "int4-weight"))
    ]  # fmt: skip
    found += [
        Candidate(name=f"llama.cpp, {kind.lower()}", precision=scheme, runtime="llama.cpp", environment="llama-cpp",
                  peer="llama-cpp", make=lambda _, kind=kind: models.write_gguf(models.make_checkpoint(), kind))
        for kind, scheme in (("F32", "none"), ("Q8_0", "int8-dynamic"), ("Q4_0", "int4-weight"))
    ]  # fmt: skip
    return found


def bundle_path(target: str, scheme: str) -> Path:
    """The bundle of edgekit's export; raises RuntimeError with its reason where there is none."""
    path = models.WORK / "bundles" / f"{models.NAME}.{target}-{scheme}.edgekit"
    if not path.is_dir():
        raise RuntimeError(f"{path.name} was not exported: see {path.parent / 'export.json'}")
    return path


def prepare(everyone: list[Candidate], *, reuse: bool) -> None:
    """Make each candidate's file; what can't be had keeps its reason."""
    if not reuse:
        shutil.rmtree(models.WORK, ignore_errors=True)
    models.WORK.mkdir(parents=True, exist_ok=True)
    checkpoint = models.make_checkpoint()
    models.make_hub_folder(checkpoint)
    if not (models.WORK / "bundles").is_dir():
        export_ours(checkpoint.path)
    for name in ENVIRONMENTS:
        problem = make_environment(name, ENVIRONMENTS[name])
        for candidate in everyone:
            candidate.error = problem if candidate.environment == name else candidate.error
    for candidate in everyone:
        if not candidate.error:
            try:
                candidate.weights_bytes = size_of(candidate.make(1))
            except (RuntimeError, OSError, StopIteration) as error:
                candidate.error = str(error)[:200]
        print(f"{candidate.name}: {candidate.error or 'ready'}", file=sys.stderr, flush=True)


def export_ours(checkpoint: Path, targets: str = ",".join(TARGETS), schemes: str = ",".join(SCHEMES)) -> None:
    """Export with the command line; a scheme that fails leaves its reason in export.json."""
    output = models.WORK / "bundles"
    options = ("--quantize", schemes, "--eval-samples", "4", "--prefill-length", "8,32,128", "--force")
    outcomes = tables.edgekit("export", checkpoint, "--target", targets, *options, "-o", output)
    (output / "export.json").write_text(json.dumps(outcomes, indent=1))


def size_of(path: Path) -> int:
    """Bytes of the weights: of the file of a bundle, or of what a folder has beside its small files."""
    if (path / "manifest.json").is_file():
        return open_bundle(path).model_size_bytes
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.suffix != ".json"]
    return sum(each.stat().st_size for each in files if each.is_file())
