"""What a candidate recipe comes to: the file is really made, loaded by the runner's own code, and run on real text.

This is the worker's side of a sweep: many candidates in one process, each score written as soon as it is there.
"""

import shutil
import tempfile
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from edgekit.checkpoint import Checkpoint
from edgekit.devices.runner.backend import Backend, import_runtime, load_backend
from edgekit.devices.runner.failures import RunError
from edgekit.devices.runner.job import RunnerJob
from edgekit.devices.runner.replay import run_step
from edgekit.devices.runner.steps import Arrays, Step, read_steps
from edgekit.errors import EdgekitError, RefusedError
from edgekit.export.describe import size_on_disk
from edgekit.export.quantize.metrics import Logits, measure_distance
from edgekit.export.quantize.mixture import mixture_of
from edgekit.export.recipes import Recipe
from edgekit.mil.failures import MilError
from edgekit.proof.golden import Golden, read_golden, stack_outputs
from edgekit.proof.parity import OUTPUT
from edgekit.proof.replay import is_evaluated

#: texts that a candidate is timed on, each beside the float32 file
TIMED_TEXTS = 100
TIMED_ROUNDS = 3


class Score(BaseModel):
    """One candidate as measured; `error` is why it could not be, and then nothing else is there.

    `accuracy` is the share of labels right, in [0, 1], on the labelled ones of `texts`; distances are those of
    `Distance`. Of a model that writes it is the share of tokens that were the likeliest, and `bits_per_byte` stands for
    the distances, beside the source model's. `latency_ms` is the median of one text, `latency_ratio` that over the
    float32 file's in the same run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Recipe
    error: str = ""
    size_bytes: int = 0
    texts: int = 0
    accuracy: float | None = None
    reference_accuracy: float | None = None
    bits_per_byte: float | None = None
    reference_bits_per_byte: float | None = None
    labels_changed: int = 0
    max_abs_difference: float | None = None
    snr_db: float | None = None
    cosine: float | None = None
    kl: float | None = None
    non_finite: int = 0
    latency_ms: float | None = None
    latency_ratio: float | None = None

    @property
    def drop(self) -> float | None:
        """Percentage points of accuracy lost; None where accuracy is not known."""
        if self.accuracy is None or self.reference_accuracy is None:
            return None
        return 100 * (self.reference_accuracy - self.accuracy)


class Scorer:
    """Scores candidates against one float32 file and its golden steps."""

    def __init__(
        self, source: Path, target: str, runtime: str, checkpoint: Checkpoint, steps: Path, calibration: Path | None
    ) -> None:
        from edgekit.export.operations import find_compressor  # it imports this module

        self._source, self._target, self._runtime = source, target, runtime
        self._checkpoint, self._calibration = checkpoint, calibration
        self._golden: Golden = read_golden(steps)
        self._steps = read_steps(str(steps))
        self._compress = find_compressor(target, "none")

    def score(self, recipe: Recipe, *, timed: bool) -> Score:
        """Make the candidate's file, run it and compare; what goes wrong is the score's `error`."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / self._source.name
            try:
                self._make(recipe, path)
                facts = self._measure(path)
                latency = self._time(path) if timed else {}
            except (EdgekitError, RunError, MilError) as error:
                return Score(recipe=recipe, error=str(error))
            return Score(recipe=recipe, size_bytes=size_on_disk(path), **(facts | latency))

    def _measure(self, path: Path) -> dict[str, Any]:
        """What running the file shows."""
        outputs = self._evaluate(path) if is_evaluated(self._runtime) else self._run(path)
        logits = np.stack([np.asarray(produced[OUTPUT], np.float64).reshape(-1) for produced in outputs])
        return self._accuracy(logits) | self._distance(logits)

    @cached_property
    def _reference(self) -> Logits:
        return stack_outputs(self._golden.steps, OUTPUT)

    def _make(self, recipe: Recipe, path: Path) -> None:
        if recipe.schemes == ("none",):
            copy = shutil.copytree if self._source.is_dir() else shutil.copyfile
            copy(self._source, path)
            return
        self._compress(self._source, path, mixture_of(recipe, self._checkpoint, self._target), self._calibration)

    def _run(self, path: Path) -> list[Arrays]:
        backend = self._load(path)
        return [run_step(backend, step) for step in self._steps]

    def _evaluate(self, path: Path) -> list[Arrays]:
        """A Core ML package off a Mac: the outputs as edgekit.mil computes them."""
        from edgekit.mil.evaluator import load_evaluator

        evaluator = load_evaluator(path)
        return [evaluator.run(step.inputs) for step in self._steps]

    def _load(self, path: Path) -> Backend:
        job = RunnerJob(runtime=self._runtime, model=str(path), steps="", outputs="")
        return load_backend(import_runtime(job), job)

    def _distance(self, logits: Logits) -> dict[str, Any]:
        return vars(measure_distance(self._reference, logits))

    def _accuracy(self, logits: Logits) -> dict[str, Any]:
        labels = self._golden.labels
        known = labels >= 0
        if not np.any(known):
            return {"texts": len(logits)}
        right = [float(np.mean(np.argmax(values, 1)[known] == labels[known])) for values in (logits, self._reference)]
        return {"texts": len(logits), "accuracy": right[0], "reference_accuracy": right[1]}

    def _time(self, path: Path) -> dict[str, float]:
        """Medians of single texts, each run in turn by the float32 file and by the candidate: drift meets both."""
        if is_evaluated(self._runtime):
            raise RefusedError("Core ML is evaluated here, not run: latency can be compared on a Mac only")
        whole, own = self._load(self._source), self._load(path)
        chosen = self._steps[:TIMED_TEXTS]
        samples = np.array(
            [[_run_ms(each, step) for each in (whole, own)] for _ in range(TIMED_ROUNDS) for step in chosen]
        )[len(chosen) :]  # the first round warms up
        whole_ms, own_ms = np.median(samples, axis=0)
        return {"latency_ms": float(own_ms), "latency_ratio": float(own_ms / whole_ms)}


def _run_ms(backend: Backend, step: Step) -> float:
    started = time.perf_counter()
    run_step(backend, step)
    return 1000 * (time.perf_counter() - started)


def score_candidates(scorer: Scorer, candidates: Sequence[Recipe], output: Path, *, timed: bool) -> None:
    """Score each candidate and add its line to `output` at once: what is done stays done."""
    with output.open("a", encoding="utf-8") as stream:
        for recipe in candidates:
            stream.write(scorer.score(recipe, timed=timed).model_dump_json() + "\n")
            stream.flush()
