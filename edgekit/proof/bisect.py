"""Where a file departs from its source: the first module whose output is nowhere among the tensors of the file.

Converters rename, transpose, fold and split what modules compute, each in its own way: names are no bridge. Values are:
the output of a module is the tensor of as many elements whose sorted values are nearest, whatever its layout and name,
and but for a constant factor (TensorFlow's converter moves that of attention into the query's weights).
Leaves of the module tree are compared in the order in which the source calls them. One that is nowhere departs, unless
the file has a later one that is computed from it: then the converter folded it (litert-torch folds a norm's scale into
the next layer's weights). The first that departs is where the cause is, not where its consequences show.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle import Bundle
from edgekit.checkpoint import content_sha256, load_checkpoint
from edgekit.errors import CheckpointError, RefusedError, RunnerError
from edgekit.extras import require
from edgekit.processes import run_process
from edgekit.program import WRITING_TASKS
from edgekit.proof.golden import Step, read_golden, stack_outputs
from edgekit.proof.parity import OUTPUT
from edgekit.proof.replay import replay_steps
from edgekit.sources.checkpoint import build_program

RUNTIMES = ("coreml", "litert", "litert-compiled", "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class ModuleMatch:
    """One module of the source and the tensor of the file that is nearest to its output.

    `tensor` is "" where none has as many elements; `difference` is the largest of the sorted values, relative to
    max(1, max |output|).
    """

    module: str
    tensor: str
    difference: float


@dataclass(frozen=True, kw_only=True)
class Bisection:
    """All modules in the order of the source, and the first that departs, if any; on the step that differs most."""

    step: int
    matches: tuple[ModuleMatch, ...]
    departs: ModuleMatch | None


def bisect_bundle(bundle: Bundle, relative_tolerance: float) -> Bisection:
    """Find the first module of a bundle's source whose output the bundle's file does not compute.

    Raises RefusedError for runtimes that keep no tensors and for models of others, CheckpointError where the source is
    gone or was changed, RunnerError where the file can't be run, MissingExtraError without PyTorch.
    """
    manifest = bundle.manifest
    if manifest.runtime not in RUNTIMES:
        raise RefusedError(f"{bundle.path}: --bisect takes TFLite, ONNX and Core ML bundles, not {manifest.target}")
    if manifest.task in WRITING_TASKS:
        raise RefusedError(f"{bundle.path} writes texts, and --bisect takes classifiers only")
    if manifest.source.kind != "checkpoint":
        raise RefusedError(
            f"{bundle.path}: --bisect takes bundles of edgekit's own checkpoints, not {manifest.source.path}"
        )
    require("torch", "the source's own tensors")
    step, number = _worst_step(bundle)
    tensors = _file_tensors(bundle, number)
    outputs = _source_outputs(bundle, step)
    matches = [_nearest(name, output.detach().numpy().astype(np.float32), tensors) for name, output in outputs]
    equal = [match.difference <= relative_tolerance for match in matches]
    departs = None
    for index, match in enumerate(matches):
        later = [outputs[i][1] for i in range(index + 1, len(matches)) if equal[i]]
        if not equal[index] and not any(_depends(each, outputs[index][1]) for each in later):
            departs = match
            break
    return Bisection(step=number, matches=tuple(matches), departs=departs)


def _depends(later: Any, earlier: Any) -> bool:
    """Whether one tensor of the source was computed from another, as autograd recorded it."""
    import torch

    (gradient,) = torch.autograd.grad(later.sum(), earlier, retain_graph=True, allow_unused=True)
    return gradient is not None


def _worst_step(bundle: Bundle) -> tuple[Step, int]:
    golden = read_golden(bundle.golden_path)
    produced = replay_steps(bundle.model_path, bundle.manifest.runtime, bundle.golden_path).produced
    apart = np.abs(stack_outputs(produced.steps, OUTPUT) - stack_outputs(golden.steps, OUTPUT)).max(axis=1)
    number = int(np.argmax(np.where(np.isfinite(apart), apart, np.inf)))
    return golden.steps[number], number


def _file_tensors(bundle: Bundle, step: int) -> list[tuple[str, NDArray[np.float32]]]:
    """All tensors that the file computes, in order, by a process of its own."""
    with tempfile.TemporaryDirectory(prefix="edgekit-bisect-") as folder:
        job, output = Path(folder) / "job.json", Path(folder) / "tensors.npz"
        fields = {"model": bundle.model_path, "steps": bundle.golden_path, "output": output}
        paths = {name: str(path.absolute()) for name, path in fields.items()}
        job.write_text(json.dumps({"runtime": bundle.manifest.runtime, "step": step, **paths}))
        argv = [sys.executable, "-P", "-m", "edgekit.proof.intermediates", str(job)]
        run = run_process(argv, timeout_s=900, cwd=Path(folder))
        if run.returncode != 0:
            last = next((line for line in reversed(run.stderr.splitlines()) if line.strip()), "no word")
            raise RunnerError(f"the tensors of {bundle.model_path} can't be had: {last}", returncode=run.returncode)
        with np.load(output, allow_pickle=False) as archive:
            return [(key.split("/", 1)[1], archive[key]) for key in sorted(archive.files)]


def _source_outputs(bundle: Bundle, step: Step) -> list[tuple[str, Any]]:
    """What each leaf of the source's module tree gives for a step, in the order of the calls, with gradients."""
    import torch

    source = bundle.manifest.source
    if content_sha256(Path(source.path)) != source.sha256:
        raise CheckpointError(f"{source.path} is no longer the checkpoint that {bundle.path} was made of")
    module: Any = build_program(load_checkpoint(Path(source.path)), "torch").module
    outputs: list[tuple[str, Any]] = []

    def keep(name: str) -> Any:
        return lambda _module, _inputs, output: outputs.append((name, output))

    for name, each in module.named_modules():
        if name and not list(each.children()) and not isinstance(each, torch.nn.Dropout):
            each.register_forward_hook(keep(name))
    module.requires_grad_(True)
    module(*(torch.from_numpy(step.inputs[name]) for name in ("ids", "mask")))
    return outputs


def _nearest(
    module: str, output: NDArray[np.float32], tensors: Sequence[tuple[str, NDArray[np.float32]]]
) -> ModuleMatch:
    ordered, scale = np.sort(output, axis=None), max(1.0, float(np.max(np.abs(output))))
    found = ModuleMatch(module=module, tensor="", difference=float("inf"))
    for name, value in tensors:
        if value.size == ordered.size:
            given = np.sort(value, axis=None)
            factor = float(np.linalg.norm(ordered) / max(float(np.linalg.norm(given)), 1e-30))
            difference = min(float(np.max(np.abs(each - ordered))) for each in (given, given * factor)) / scale
            if difference < found.difference:
                found = ModuleMatch(module=module, tensor=name, difference=difference)
    return found
