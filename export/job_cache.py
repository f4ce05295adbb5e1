"""Runs a job in a worker process, or takes what the same job left in the cache.

The same job means: the same fields, content of its source and of every file that it reads, and everything that
`edgekit.cache_keys` counts. Where its files are does not matter.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from edgekit.cache import Cache, tree_sha256
from edgekit.cache_keys import cache_key
from edgekit.export.jobs import Job, JobResult
from edgekit.export.worker import ENVIRONMENT
from edgekit.export.workers import run_worker

#: fields of a job that name a file or folder whose content it reads
READ = ("input", "steps", "texts", "calibration")
_RESULT, _LOG, _OUTPUT = "result.json", "log.txt", "output"


def run_job(
    job: Job,
    name: str,
    *,
    folder: Path,
    log: Path,
    timeout_s: float,
    cache: Cache | None,
    on_start: Callable[[], None] = lambda: None,
) -> JobResult:
    """As `run_worker`, after `on_start`; with `cache`, only where no such job was done before.

    The log of a result that is `cached` is that of the run which made it.
    """
    key = job_key(job) if cache else None
    found = _fetch(cache, key, job, folder / f"{name}.kept", log) if cache and key else None
    if found:
        return found
    on_start()
    result = run_worker(job, name, folder=folder, log=log, timeout_s=timeout_s)
    if cache and key:
        cache.store(key, {_RESULT: Path(job.result), _LOG: log, _OUTPUT: Path(job.output)})
    return result


def job_key(job: Job) -> str | None:
    """The key of what a job makes; None where code that edgekit can't see has a part in it."""
    if job.source and (job.source.kind == "factory" or job.source.options.trust_remote_code):
        return None  # its modules import others, whose changes no hash of one file shows
    fields = job.model_dump(mode="json", exclude={"result", "output", *READ})
    if job.source:
        del fields["source"]["path"]  # its content's hash stays
    read = {name: tree_sha256(Path(path)) for name in READ if (path := getattr(job, name))}
    settings = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}  # the user's, which win
    return cache_key("job", job=fields, read=read, output=Path(job.output).name, settings=settings)


def _fetch(cache: Cache, key: str, job: Job, folder: Path, log: Path) -> JobResult | None:
    if not cache.fetch(key, folder):
        return None
    (folder / _OUTPUT).rename(job.output)
    (folder / _LOG).replace(log)
    result = JobResult.model_validate_json((folder / _RESULT).read_bytes())
    shutil.rmtree(folder)
    return result.model_copy(update={"cached": True})
