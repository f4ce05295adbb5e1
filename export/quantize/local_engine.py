"""Runs the batches of a sweep in worker processes on this machine, as many side by side as there are cores."""

import os
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from edgekit.errors import ExportError
from edgekit.export.quantize.scores import Score
from edgekit.export.quantize.sweep import TIMEOUT_S, Sweep, read_scores
from edgekit.export.recipes import Recipe
from edgekit.export.workers import run_worker
from edgekit.processes import kill_running


def run_batches(
    sweep: Sweep,
    batches: Sequence[Sequence[Recipe]],
    timed: bool,
    keep: Callable[[Sequence[Score]], None],
) -> None:
    """Score all batches; `keep` gets the scores of each in this thread. On Ctrl-C what is finished is kept too."""
    workers = 1 if timed else os.cpu_count() or 1  # what is timed must not share the cores
    stop = threading.Event()
    pool = ThreadPoolExecutor(max_workers=workers)
    futures: list[Future[list[Score]]] = [pool.submit(run_batch, sweep, batch, timed, stop) for batch in batches]
    try:
        for future in as_completed(futures):
            keep(future.result())
    except BaseException:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
        kill_running()
        pool.shutdown(wait=True)
        for future in futures:
            if future.done() and not future.cancelled() and not future.exception():
                keep(future.result())
        raise
    finally:
        pool.shutdown(wait=True)


def run_batch(sweep: Sweep, batch: Sequence[Recipe], timed: bool, stop: threading.Event | None = None) -> list[Score]:
    """Score one batch in one process; after a crash go on with the rest in another, and say what it died of."""
    scores: list[Score] = []
    left = list(batch)
    while left and not (stop and stop.is_set()):
        name = f"part-{uuid.uuid4().hex[:12]}"
        output, log = sweep.folder / f"{name}.jsonl", sweep.folder / f"{name}.log"
        error = _run(sweep, left, timed, output, log)
        made = read_scores(output)
        scores += made
        left = left[len(made) :]
        if left and error and not (stop and stop.is_set()):
            scores.append(Score(recipe=left.pop(0), error=error))
        _remove(sweep.folder, name, keep_log=bool(error))
    return scores


def _run(sweep: Sweep, candidates: Sequence[Recipe], timed: bool, output: Path, log: Path) -> str:
    """Run the worker; return why it failed, or nothing."""
    job = sweep.job(candidates, timed=timed, output=output)
    try:
        run_worker(job, output.stem, folder=sweep.folder, log=log, timeout_s=TIMEOUT_S)
    except ExportError as error:
        return str(error)
    return ""


def _remove(folder: Path, name: str, *, keep_log: bool) -> None:
    for path in folder.glob(f"{name}*"):
        if not (keep_log and path.suffix == ".log"):
            path.unlink()
