"""Does one job of an export in a process of its own: `python -P -m edgekit.export.worker JOB.json`.

Converters crash, leak, print and set global state, so each conversion has its own process (`-P`: a `numpy.py` in the
user's folder is not run). The answer is a `JobResult` written to the job's `result`; exit code 0 where it is good,
1 where not. A worker that dies of a signal writes none.

- Everything printed, by Python or by C++, goes to standard error: the parent keeps it as the log.
- Standard input, where it is a pipe, is watched: its end means that the parent died, and the worker ends with it.
- Temporary files live beside the output, in a folder that the parent removes with its own.
- The parent sets PYTHONHASHSEED=0: converters iterate over sets of strings, and files would differ from run to run.
"""

import errno
import logging
import os
import shutil
import stat
import sys
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path

from pydantic import ValidationError

from edgekit.errors import EdgekitError
from edgekit.export.jobs import Job, JobError, JobResult, write_result

#: set before any framework is loaded; the parent's own settings win
ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",  # oneDNN's rounding depends on the processor; references should not
    "CUDA_VISIBLE_DEVICES": "-1",
    # One thread: workers run side by side, and sums in another order would round differently on other machines.
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "GRPC_VERBOSITY": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",  # coremltools' progress bars
}

#: with less than this left, a failure is one of the disk: C++ writers fail with texts of their own, or write less
NEARLY_FULL_BYTES = 16_384


def main(argv: list[str]) -> int:
    """Run the job whose file is the only argument; return the exit code."""
    if len(argv) != 1:
        sys.stderr.write("usage: python -P -m edgekit.export.worker JOB.json\n")
        return 2
    try:
        job = Job.model_validate_json(Path(argv[0]).read_bytes())
    except (OSError, ValidationError) as error:
        sys.stderr.write(f"{argv[0]} is not a job: {error}\n")
        return 2
    die_with_parent()
    quieten()
    output = Path(job.output)
    scratch = Path(tempfile.mkdtemp(prefix=".work-", dir=output.parent))
    tempfile.tempdir = os.environ["TMPDIR"] = str(scratch)
    try:
        result = attempt(job)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    write_result(result, Path(job.result))
    return 0 if result.ok else 1


def attempt(job: Job) -> JobResult:
    """Run a job; whatever goes wrong becomes a result that says so."""
    from edgekit.export.operations import run_job

    started = time.monotonic()
    try:
        result = run_job(job)
    except Exception as error:  # noqa: BLE001  (converters raise anything; the parent tells the user)
        traceback.print_exc()
        return JobResult(ok=False, error=explain(error, Path(job.output)))
    details = result.details.model_copy(update={"seconds": round(time.monotonic() - started, 3)})
    return result.model_copy(update={"details": details})


def explain(error: Exception, output: Path) -> JobError:
    """One clear line for an error: edgekit's own as it is, a full disk as such, a library's with its class."""
    if is_disk_full(error) or shutil.disk_usage(output.parent).free < NEARLY_FULL_BYTES:
        return JobError(kind="OutputError", message=f"can't write {output}: the disk is full")
    if isinstance(error, EdgekitError):
        return JobError(kind=type(error).__name__, message=str(error))
    if isinstance(error, MemoryError):
        return JobError(kind="ConverterError", message="the conversion needs more memory than this machine has")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    name = type(error).__name__
    return JobError(kind="ConverterError", message=f"{name}: {lines[0]}" if lines else name)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is a full disk; C++ converters tell by their text only."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def die_with_parent() -> None:
    """End this process as soon as the pipe on standard input ends; do nothing where it is no pipe."""
    try:
        if not stat.S_ISFIFO(os.fstat(0).st_mode):
            return
    except OSError:
        return  # no standard input at all

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def quieten() -> None:
    """Send what is printed to standard error, and stop the warnings that converters give on every run."""
    sys.stdout.flush()
    os.dup2(2, 1)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)  # errors come with a traceback; warnings are the same on every good run


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
