"""Scores many candidate recipes of one checkpoint: side by side, resumable, each in the target's own runtime.

Everything lives in one folder of the hidden `.edgekit`, named by the hash of all that a score depends on:

    sweeps/NAME.TARGET-HASH/
      model.tflite  (…)   the float32 file that candidates are made from
      golden.npz  calibration.npz
      scores.jsonl        a line for each candidate; what stands here is never done again
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from pydantic import ValidationError

from edgekit import extras
from edgekit.checkpoint import Checkpoint
from edgekit.errors import CheckpointError, OutputError
from edgekit.export.jobs import Job
from edgekit.export.operations import TOOLS
from edgekit.export.quantize.calibration import Calibration
from edgekit.export.quantize.scores import Score
from edgekit.export.quantize.sweep_texts import SweepTexts, choose_sweep_texts
from edgekit.export.recipes import Recipe
from edgekit.export.targets import TARGETS
from edgekit.export.workers import run_worker
from edgekit.outputs import HIDDEN, explained
from edgekit.program import Framework, SourceRef
from edgekit.proof.golden import read_golden, stack_outputs
from edgekit.proof.parity import OUTPUT
from edgekit.sources.checkpoint import checkpoint_source

TIMEOUT_S = 3600.0
_FORMAT = 1  # of scores.jsonl; another number makes another folder

OnProgress = Callable[[int, int], None]  # (candidates done, of how many)
RunBatches = Callable[["Sweep", Sequence[Sequence[Recipe]], bool, Callable[[Sequence[Score]], None]], None]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What all candidates are made from and compared with; `texts` says where the texts come from."""

    checkpoint: Checkpoint
    target: str
    source: SourceRef
    folder: Path
    texts: str
    num_texts: int
    calibrated: bool

    @property
    def model(self) -> Path:
        """The float32 file."""
        return self.folder / TARGETS[self.target].file

    def job(self, candidates: Sequence[Recipe], *, timed: bool, output: Path) -> Job:
        """The job that scores these candidates."""
        return Job(
            op="score",
            source=self.source,
            target=self.target,  # type: ignore[arg-type]  # checked by pydantic
            input=str(self.model),
            steps=str(self.folder / "golden.npz"),
            calibration=str(self.folder / "calibration.npz") if self.calibrated else None,
            candidates=tuple(candidates),
            timed=timed,
            output=str(output),
            result=str(output.with_suffix(".result.json")),
        )


def prepare_sweep(
    checkpoint: Checkpoint,
    target: str,
    *,
    eval_samples: int | None,
    calibration: Calibration | None,
    parent: Path = Path(),
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Sweep:
    """Make (or find) the float32 file and the reference outputs on the validation part of the checkpoint's data.

    Raises CheckpointError where the source model itself answers NaN, naming the module; DataError where the data can't
    be read again: choices are made on real text only.
    """
    texts = choose_sweep_texts(checkpoint, eval_samples)
    route = TARGETS[target].default_route
    source = checkpoint_source(checkpoint.path, route)
    context = _context(source, target, texts, calibration)
    folder = parent.absolute() / HIDDEN / "sweeps" / f"{checkpoint.name}.{target}-{context}"
    sweep = Sweep(
        checkpoint=checkpoint,
        target=target,
        source=source,
        folder=folder,
        texts=f"{texts.count} texts of the {texts.origin}",
        num_texts=texts.count,
        calibrated=calibration is not None,
    )
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _Locked(folder):
        if calibration and not (folder / "calibration.npz").is_file():
            calibration.write_steps(folder / "calibration.npz")
        if not (folder / "golden.npz").is_file():
            on_stage("computing the reference")
            texts.write(folder / "steps.npz")
            fields = texts.reference | {"steps": str(folder / "steps.npz")}
            _work(sweep, "golden.npz", framework=checkpoint.framework, **fields)
        if checkpoint.config.task == "classify":  # what foretells texts stops at logits that are no numbers
            _check_finite(sweep)
        if not sweep.model.exists():
            on_stage("converting")
            _work(sweep, sweep.model.name, op="convert", target=target, framework=route, **texts.conversion)
    return sweep


def run_sweep(
    sweep: Sweep,
    candidates: Sequence[Recipe],
    run_batches: RunBatches,
    *,
    timed: bool = False,
    batch_size: int = 4,
    on_progress: OnProgress = lambda done, total: None,
) -> list[Score]:
    """The score of each candidate, in order; those of an earlier run are read, the rest is kept as it comes."""
    with _Locked(sweep.folder):
        store = _Store(sweep.folder / "scores.jsonl")
        wanted = {_key(recipe): recipe for recipe in candidates}
        missing = [recipe for key, recipe in wanted.items() if not store.has(key, timed=timed)]
        done = len(wanted) - len(missing)
        on_progress(done, len(wanted))

        def keep(scores: Sequence[Score]) -> None:
            nonlocal done
            store.add(scores)
            done += len(scores)
            on_progress(done, len(wanted))

        batches = [missing[i : i + batch_size] for i in range(0, len(missing), batch_size)]
        if batches:
            run_batches(sweep, batches, timed, keep)
        return [store.scores[_key(recipe)] for recipe in candidates]


def read_scores(path: Path) -> list[Score]:
    """The scores in a file, one a line; a line that was cut by a crash is passed over."""
    scores = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValidationError):
            scores.append(Score.model_validate_json(line))
    return scores


class _Store:
    """The scores on disk, by what a recipe does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.scores = {_key(score.recipe): score for score in read_scores(path)}
        if path.is_file() and not path.read_bytes().endswith(b"\n"):
            self._append("\n")  # a line was cut: the next one must not be lost with it

    def has(self, key: str, *, timed: bool) -> bool:
        score = self.scores.get(key)
        return score is not None and (not timed or bool(score.error) or score.latency_ms is not None)

    def add(self, scores: Iterable[Score]) -> None:
        for score in scores:
            self._append(score.model_dump_json() + "\n")
            self.scores[_key(score.recipe)] = score

    def _append(self, text: str) -> None:
        with explained(self._path), self._path.open("a", encoding="utf-8") as stream:
            stream.write(text)


def _key(recipe: Recipe) -> str:
    """What a recipe does, whatever its name."""
    return json.dumps([recipe.scheme, sorted((rule.modules, rule.scheme) for rule in recipe.rules)])


def _context(source: SourceRef, target: str, texts: SweepTexts, calibration: Calibration | None) -> str:
    """A hash of all that a score depends on."""
    digest = hashlib.sha256()
    versions = [(tool, extras.installed_version(tool)) for tool in TOOLS[target] if tool in extras.EXTRAS]
    digest.update(json.dumps([_FORMAT, source.sha256, source.framework, target, versions]).encode())
    for array in (*texts.arrays, *([calibration.ids] if calibration else [])):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]


def _work(sweep: Sweep, name: str, *, framework: Framework, **fields: Any) -> None:
    """Run a job that writes `name` into the sweep's folder, whole or not at all."""
    output = sweep.folder / "new" / name
    output.parent.mkdir(exist_ok=True)
    source = checkpoint_source(sweep.checkpoint.path, framework)
    job = Job.model_validate(fields | {"source": source, "output": str(output), "result": f"{output}.result.json"})
    run_worker(job, f"prepare-{fields['op']}", folder=sweep.folder, log=sweep.folder / "log.txt", timeout_s=TIMEOUT_S)
    output.replace(sweep.folder / name)


def _check_finite(sweep: Sweep) -> None:
    """Raise CheckpointError where the source model's own answers are NaN or infinite."""
    golden = read_golden(sweep.folder / "golden.npz")
    broken = np.any(~np.isfinite(stack_outputs(golden.steps, OUTPUT)), axis=1).tolist()
    if any(broken):
        module = ""
        if extras.is_installed("torch"):
            from edgekit.export.quantize.find_nan import first_non_finite_module

            found = first_non_finite_module(sweep.checkpoint, golden.steps[broken.index(True)].inputs)
            module = f"; the first module whose output is not finite is {found}"
        raise CheckpointError(
            f"{sweep.checkpoint.name} itself answers NaN or infinity on {sum(broken)} of "
            f"{len(broken)} texts, before any quantization{module}"
        )


class _Locked:
    """One process at a time in a sweep's folder."""

    def __init__(self, folder: Path) -> None:
        self._lock, self._folder = FileLock(folder / "lock"), folder

    def __enter__(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise OutputError(f"{self._folder} is being filled by another edgekit: wait for it, or end it") from error

    def __exit__(self, *_: object) -> None:
        self._lock.release()
