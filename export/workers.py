"""Runs one job in a worker process and turns whatever becomes of it into a result or one clear error."""

import shutil
import sys
from pathlib import Path

from edgekit.errors import EdgekitError, ExportError, OutputError
from edgekit.export.jobs import Job, JobResult, read_result, write_job
from edgekit.processes import run_process

#: the same hashes in every worker, so that two exports of one checkpoint give the same bytes
ENVIRONMENT = {"PYTHONHASHSEED": "0", "TF_CPP_MIN_LOG_LEVEL": "2"}  # the rest is the worker's own

#: a disk with less room is full: not even the worker's answer fits
_LEAST_BYTES = 4096


def run_worker(job: Job, name: str, *, folder: Path, log: Path, timeout_s: float) -> JobResult:
    """Run one worker process to its end, in `folder`, which also takes the job's file; `log` takes all that it prints.

    Raises ExportError where it raised, crashed, was killed or hung, OutputError where the disk is full.
    """
    path = folder / f"{name}.job.json"
    write_job(job, path)
    log.unlink(missing_ok=True)
    argv = [sys.executable, "-P", "-m", "edgekit.export.worker", str(path)]
    try:
        run = run_process(argv, timeout_s=timeout_s, log=log, cwd=folder, env=ENVIRONMENT)
    except EdgekitError as error:
        raise ExportError(f"{name}: {error}", log=log) from error
    result = read_result(Path(job.result))
    if result is None:
        # LLVM inside litert-torch 0.10 prints this and ends the process; where the log is on a full disk, nothing does
        if "No space left on device" in run.stderr or shutil.disk_usage(folder).free < _LEAST_BYTES:
            raise OutputError(f"{name}: can't write {job.output}: the disk is full; nothing was changed there")
        ended = f"died of signal {-run.returncode}" if run.returncode < 0 else f"ended with {run.returncode}"
        raise ExportError(f"{name}: the converter {ended}{_last_words(run.stderr)}", returncode=run.returncode, log=log)
    if result.error:
        raise ExportError(f"{name}: {result.error.message}", returncode=run.returncode, log=log)
    return result


def _last_words(text: str) -> str:
    """The last line that says something, for an error message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f": {lines[-1][:300]}" if lines else ""
