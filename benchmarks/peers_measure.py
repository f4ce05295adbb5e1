"""Runs all candidates in turns, A B C … A B C …, each turn of each a fresh process, and keeps what it answered."""

import json
import os
import statistics
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peers_candidates import MAIN, RATES, SHORTEST, WORK, Model, python_of
from peers_exports import Candidate, RateFiles, clean_environment, last_line
from peers_models import MATMUL
from peers_texts import Texts

from edgekit.devices.local import LocalDevice
from edgekit.devices.measure import measure_bundle
from edgekit.errors import EdgekitError
from edgekit.measurement import Settings
from edgekit.proof.golden import read_golden, stack_outputs
from edgekit.proof.replay import replay_steps

RUN = Path(__file__).parent / "peers_run.py"
TIMEOUT_S = 600
ANSWERS = WORK / f"answers-{os.getpid()}.npy"
BUDGET_S = 3.0  # of samples of one candidate in one turn: as many texts as fit, from another one on in each turn
Rates = dict[tuple[str, str], dict[int, list[float]]]


@dataclass(kw_only=True)
class Measured:
    """What a candidate's turns gave: ms by turn, and text and rows (its tokens, with padding) of each sample."""

    candidate: Candidate
    turns: list[list[float]] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    cold_ms: list[float] = field(default_factory=list)
    added_bytes: list[int] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    parity: dict[str, Any] = field(default_factory=dict)
    operators: list[dict[str, Any]] = field(default_factory=list)
    answers: NDArray[np.float64] | None = None

    @property
    def error(self) -> str:
        """Why there is nothing."""
        return self.candidate.error

    def at_rows(self, count: int) -> list[float]:
        """The samples of texts that ran at so many rows."""
        flat = [ms for turn in self.turns for ms in turn]
        return [ms for ms, rows in zip(flat, self.rows, strict=True) if rows == count]


def measure_all(
    candidates: list[Candidate], model: Model, texts: Texts, rates: RateFiles,
    *, threads: int, turns: int, passes: int,
) -> tuple[list[Measured], Rates]:  # fmt: skip
    """Every candidate once in every turn, and the matrix products; an error ends a candidate, not the others."""
    measured = [Measured(candidate=candidate) for candidate in candidates]
    wanted = {int(statistics.median(texts.tokens)), SHORTEST, model.length}
    rates = {key: {rows: file for rows, file in files.items() if rows in wanted} for key, files in rates.items()}
    rated: Rates = {key: {rows: [] for rows in files} for key, files in rates.items()}
    for turn in range(turns):
        print(f"  turn {turn + 1} of {turns}, {threads} threads", flush=True)
        for one in measured:
            if not one.error:
                _take_turn(one, model, texts, threads, passes, turn)
        for key, files in rates.items():
            for rows, ms in _rate(key, files, threads).items():
                rated[key][rows].append(ms)
    return measured, rated


def answers(candidate: Candidate, model: Model, texts: Path) -> NDArray[np.float64]:
    """The answers of a peer's file to all texts of a file of ids, [texts, size]; sets its error where it has none."""
    told = _peer(candidate, model, texts, threads=1, passes=0, outputs=str(ANSWERS))
    return np.load(ANSWERS) if told else np.zeros((0, 0))


def bundle_answers(candidate: Candidate) -> NDArray[np.float64]:
    """The answers of one of edgekit's own to the texts that it is timed on, by its own runner."""
    assert candidate.bundle is not None
    bundle = candidate.bundle
    produced = replay_steps(bundle.model_path, bundle.manifest.runtime, bundle.golden_path).produced
    return stack_outputs(produced.steps, bundle.manifest.signatures[0].outputs[0].name)


def profile(one: Measured, threads: int = 1) -> None:
    """Where the time of one of edgekit's own goes, by operator, as its runtime says."""
    assert one.candidate.bundle is not None
    settings = Settings(num_threads=threads, num_runs=20, min_secs=0, max_secs=20, cold_starts=0, op_profile=True)
    with LocalDevice() as device:
        try:
            made = measure_bundle(device, one.candidate.bundle, settings=settings)
        except EdgekitError as error:
            print(f"  no profile of {one.candidate.name}: {error}")
            return
    spent: dict[str, list[float]] = {}
    for operator in made.operators:
        spent.setdefault(operator.kind, []).append(operator.ms)
    kinds = sorted(spent, key=lambda kind: -sum(spent[kind]))
    one.operators = [{"kind": kind, "count": len(spent[kind]), "ms": sum(spent[kind])} for kind in kinds]


def _take_turn(one: Measured, model: Model, texts: Texts, threads: int, passes: int, turn: int) -> None:
    if one.candidate.bundle:
        _edgekit_turn(one, threads, passes)
        return
    first = turn * len(texts.ids) // 3
    outputs = "" if turn else str(ANSWERS)
    told = _peer(one.candidate, model, texts.timed, threads=threads, passes=passes, first=first, outputs=outputs)
    if told:
        one.answers = np.load(ANSWERS) if outputs else one.answers
        padded = one.candidate.peer is not None and one.candidate.peer.padded
        one.turns.append(told["latency_ms"])
        one.texts += told["texts"]
        one.rows += [model.length if padded else texts.tokens[place] for place in told["texts"]]
        one.cold_ms.append(told["cold_ms"])
        one.peak_bytes.append(told["peak_bytes"])
        one.added_bytes.append(told["peak_bytes"] - told["baseline_bytes"])


def _edgekit_turn(one: Measured, threads: int, passes: int) -> None:
    """One turn of one of edgekit's own, by the runner that `edgekit bench` starts."""
    bundle = one.candidate.bundle
    assert bundle is not None
    steps = read_golden(bundle.golden_path).steps
    lengths = [next(iter(step.inputs.values())).shape[-1] for step in steps]
    runs = passes * len(steps)
    settings = Settings(num_threads=threads, num_runs=runs, min_secs=0, max_secs=BUDGET_S, cold_starts=1)
    try:
        with LocalDevice() as device:
            made = measure_bundle(device, bundle, settings=settings)
    except EdgekitError as error:
        one.candidate.error = str(error)
        return
    samples = made.samples
    one.turns.append([a + b for a, b in zip(samples.latency_ms, samples.transfer_ms, strict=True)][:runs])
    one.texts += samples.steps[:runs]
    one.rows += [lengths[step] for step in samples.steps[:runs]]
    one.cold_ms += [a + b for a, b in zip(samples.cold_start_ms, samples.first_inference_ms, strict=True)]
    one.peak_bytes.append(samples.peak_memory_bytes or 0)
    one.added_bytes.append((samples.peak_memory_bytes or 0) - (samples.baseline_memory_bytes or 0))
    one.parity = made.parity.model_dump(mode="json")


def _peer(
    candidate: Candidate, model: Model, texts: Path, *, threads: int, passes: int, outputs: str, first: int = 0
) -> dict[str, Any] | None:
    peer = candidate.peer
    assert peer is not None
    job = {"runtime": candidate.runtime, "model": str(candidate.file), "texts": str(texts), "threads": threads}
    job |= {"length": model.length if peer.padded else None, "passes": passes, "outputs": outputs}
    job |= {"first": first, "budget_s": BUDGET_S}
    environment = MAIN if candidate.runtime in ("litert", "onnxruntime") else peer.environment
    told, problem = _run(environment, job)
    candidate.error = candidate.error or problem
    return told


def _rate(key: tuple[str, str], files: dict[int, str], threads: int) -> dict[int, float]:
    """Billions of operations a second of the matrix product, by rows."""
    if not files:
        return {}
    job = {"runtime": key[0], "threads": threads, "rows": files, "columns": MATMUL[0]}
    environment = MAIN if key[0] in ("litert", "onnxruntime") else RATES[key].environment
    told, problem = _run(environment, job)
    if problem:
        print(f"  no rate of {key}: {problem}")
    return {int(rows): 2 * int(rows) * MATMUL[0] * MATMUL[1] / ms / 1e6 for rows, ms in (told or {}).items()}


def _run(environment: str, job: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """A process of peers_run.py in an environment: what it told, and why it did not."""
    python = python_of(environment)
    variables = clean_environment(python) | {"OMP_NUM_THREADS": str(job["threads"]), "HF_HUB_OFFLINE": "1"}
    try:
        run = subprocess.run(
            [python, "-P", RUN], input=json.dumps(job), capture_output=True, text=True, check=False,
            timeout=TIMEOUT_S, env=variables, cwd=WORK,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, f"no answer within {TIMEOUT_S} s"
    if run.returncode:
        return None, f"does not run: {last_line(run.stderr) if run.returncode > 0 else f'signal {-run.returncode}'}"
    return json.loads(run.stdout.splitlines()[-1]), ""


def median_by_turn(one: Measured) -> list[float]:
    """The p50 of each turn."""
    return [statistics.median(turn) for turn in one.turns]
