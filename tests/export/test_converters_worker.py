"""The worker process: answers, refusals, deaths."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from edgekit.errors import RefusedError
from edgekit.export import worker
from edgekit.export.jobs import Job, JobResult, read_result, write_job
from edgekit.sources.checkpoint import checkpoint_source
from tests.conftest import lacking
from tests.export.routes import run_worker
from tests.tiny import tiny_checkpoint

_T = TypeVar("_T")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("worker")).path


def make_job(folder: Path, checkpoint: Path, **fields: object) -> Job:
    given = {"op": "convert", "source": checkpoint_source(checkpoint, "torch"), "target": "pt2"}
    paths = {"output": str(folder / "model.pt2"), "result": str(folder / "result.json")}
    return Job.model_validate(given | paths | fields)


def failed(job: Job, folder: Path) -> JobResult:
    """The job ends with exit code 1, a result that says why, and nothing left behind."""
    run = run_worker(job, cwd=folder)
    result = read_result(Path(job.result))
    assert run.returncode == 1, run.stderr
    assert result is not None
    assert not result.ok
    assert result.error is not None
    assert "\n" not in result.error.message
    assert not Path(job.output).exists()
    assert not list(Path(job.output).parent.glob(".work-*"))
    return result


def test_a_job_survives_the_disk(tmp_path: Path, checkpoint: Path) -> None:
    job = make_job(tmp_path, checkpoint, length=7)
    write_job(job, tmp_path / "job.json")
    written = json.loads((tmp_path / "job.json").read_text())
    assert written["schema"] == 1
    assert Job.model_validate(written) == job


INCOMPLETE: list[dict[str, object]] = [
    {"target": None},
    {"source": None},
    {"op": "reference"},
    {"op": "compress"},
    {"schema": 2},
    {"length": 0},
    {"x": 1},
]


@pytest.mark.parametrize("fields", INCOMPLETE)
def test_incomplete_jobs_are_refused(tmp_path: Path, checkpoint: Path, fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"needs|schema|length|x"):
        make_job(tmp_path, checkpoint, **fields)


def test_a_file_that_is_no_job(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("{}")
    argv = [sys.executable, "-P", "-m", "edgekit.export.worker", str(tmp_path / "job.json")]
    run = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "is not a job" in run.stderr


def test_references_come_from_their_own_framework(tmp_path: Path, checkpoint: Path) -> None:
    job = make_job(tmp_path, checkpoint, target="savedmodel", output=str(tmp_path / "savedmodel"))
    error = failed(job, tmp_path).error
    assert error is not None
    assert error.kind == "RefusedError"
    assert "use --via tensorflow" in error.message


def test_references_are_float32(tmp_path: Path, checkpoint: Path) -> None:
    error = failed(make_job(tmp_path, checkpoint, scheme="fp16"), tmp_path).error
    assert error is not None
    assert "does not offer fp16" in error.message


def test_a_checkpoint_that_changed_meanwhile(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path).path
    job = make_job(tmp_path, path)
    labels = path / "labels.json"
    labels.write_text(labels.read_text() + "\n")
    error = failed(job, tmp_path).error
    assert error is not None
    assert error.kind == "CheckpointError"
    assert "has changed" in error.message


def test_too_many_tokens(tmp_path: Path, checkpoint: Path) -> None:
    error = failed(make_job(tmp_path, checkpoint, length=17), tmp_path).error
    assert error is not None
    assert "takes 1 to 16 tokens, not 17" in error.message


def test_what_is_compressed_must_be_a_model(tmp_path: Path) -> None:
    (tmp_path / "float.tflite").write_bytes(b"\0\0\0\0TFL3 and no more")
    paths = {"input": str(tmp_path / "float.tflite"), "output": str(tmp_path / "model.tflite")}
    given = {"op": "compress", "target": "tflite", "scheme": "fp16", "result": str(tmp_path / "result.json")}
    error = failed(Job.model_validate(given | paths), tmp_path).error
    assert error is not None
    assert error.kind == "BundleError"
    assert "truncated or broken" in error.message


def test_a_numpy_in_the_working_folder_is_not_run(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy was run')")
    (tmp_path / "torch.py").write_text("raise SystemExit('the wrong torch was run')")
    run = run_worker(make_job(tmp_path, checkpoint), cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    result = read_result(tmp_path / "result.json")
    assert result is not None
    assert result.files == ("model.pt2",)
    assert result.tools.keys() == {"torch"}


def test_a_full_disk_is_named(tmp_path: Path, checkpoint: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "none", small], check=False).returncode
    ):
        lacking("the right to mount a small file system")
    try:
        job = make_job(tmp_path, checkpoint, output=str(small / "model.pt2"))
        error = failed(job, tmp_path).error
    finally:
        subprocess.run(["umount", small], check=True)
    assert error is not None
    assert error.kind == "OutputError"
    assert error.message.endswith("the disk is full")


def test_errors_without_a_number_can_be_a_full_disk() -> None:
    low = RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")
    assert not worker.is_disk_full(low)
    low.__context__ = OSError(28, "No space left on device")
    assert worker.is_disk_full(low)
    assert worker.is_disk_full(RuntimeError("write failed: No space left on device"))


def test_explained_errors_are_one_line() -> None:
    out = Path(__file__).with_name("model.onnx")
    assert worker.explain(ValueError("\n first\nsecond"), out).message == "ValueError: first"
    assert worker.explain(ValueError(), out).message == "ValueError"
    assert worker.explain(RefusedError("no"), out).kind == "RefusedError"
    assert "memory" in worker.explain(MemoryError(), out).message


def test_a_worker_dies_with_its_parent(tmp_path: Path, checkpoint: Path) -> None:
    """The parent is killed as nothing can be: no handler runs, only its pipe ends."""
    job = make_job(tmp_path, checkpoint)
    write_job(job, tmp_path / "job.json")
    script = (
        "import sys; from pathlib import Path; from edgekit.processes import run_process\n"
        "run_process([sys.executable, '-P', '-m', 'edgekit.export.worker', sys.argv[1]], timeout_s=60, "
        "log=Path(sys.argv[2]))"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, tmp_path / "job.json", tmp_path / "log"])
    child = wait_for(lambda: next(iter(children_of(parent.pid)), None))
    wait_for(lambda: list(tmp_path.glob(".work-*")))  # it has begun
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not Path(f"/proc/{child}").exists() or state_of(child) == "Z", timeout_s=20)
    assert read_result(tmp_path / "result.json") is None


def test_a_worker_killed_by_a_signal_leaves_no_result(tmp_path: Path, checkpoint: Path) -> None:
    job = make_job(tmp_path, checkpoint)
    write_job(job, tmp_path / "job.json")
    argv = [sys.executable, "-P", "-m", "edgekit.export.worker", str(tmp_path / "job.json")]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    wait_for(lambda: list(tmp_path.glob(".work-*")))
    process.send_signal(signal.SIGSEGV)
    assert process.wait(timeout=60) == -signal.SIGSEGV  # standard input is still open: its end would be another death
    process.communicate()
    assert read_result(tmp_path / "result.json") is None


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


def wait_for(condition: Callable[[], _T], timeout_s: float = 60) -> _T:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found
