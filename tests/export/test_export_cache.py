"""Exports by way of the cache: the same again without a framework, a changed scheme alone, damage and a full disk."""

import datetime
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle import check_files, open_bundle
from edgekit.export.job_cache import READ, job_key
from edgekit.export.jobs import Job
from edgekit.program import SourceOptions, SourceRef
from tests.conftest import lacking
from tests.tiny import tiny_checkpoint

#: stages that need a worker process
WORKED = {"converting", "quantizing", "computing"}
FRAMEWORKS = {"torch", "tensorflow", "onnx", "onnxruntime", "coremltools", "litert_torch"}


def export(folder: Path, *argv: str, before: tuple[str, ...] = ()) -> tuple[list[Any], set[str], list[str]]:
    """Export `tiny`: the outcomes, the stages that were shown, and the warnings."""
    command = [*before, sys.executable, "-P", "-m", "edgekit", "export", "tiny", *argv, "--json"]
    env = {**os.environ, "EDGEKIT_CACHE_SIZE": "100MB", "EDGEKIT_CACHE_DIR": str(folder / "cache")}
    run = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env, check=False, timeout=300)
    if "unshare" in run.stderr:
        lacking(f"mount namespaces: {run.stderr.strip()}")
    assert run.returncode == 0, run.stderr
    stages = {line.split(": ", 1)[1] for line in run.stderr.splitlines() if ": " in line}
    warnings = [line for line in run.stderr.splitlines() if line.startswith("edgekit: warning:")]
    return json.loads(run.stdout), stages & (WORKED | {"found in the cache"}), warnings


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where `tiny` was exported to ONNX in float32, with a cache that was empty."""
    folder = tmp_path_factory.mktemp("workspace")
    tiny_checkpoint(folder)
    (cold,), stages, warnings = export(folder, "--target", "onnx")
    assert (cold["cached"], stages, warnings) == ([], {"converting", "computing"}, [])
    assert cold["manifest"]["proven_before"] == ""
    return folder


def test_the_same_again_is_the_same_without_a_worker(workspace: Path) -> None:
    (warm,), stages, _ = export(workspace, "--target", "onnx", "-o", "again")
    assert stages == {"found in the cache"}
    assert warm["cached"] == ["convert", "prove"]
    assert sum(warm["seconds"].values()) == 0
    first, second = (open_bundle(workspace / place / "tiny.onnx-none.edgekit") for place in ("bundles", "again"))
    check_files(second)
    assert second.manifest.proven_before in {
        str(datetime.date.today() - datetime.timedelta(days=days)) for days in (0, 1)
    }
    assert second.manifest.model_copy(update={"proven_before": ""}) == first.manifest


def test_the_same_again_loads_no_framework(workspace: Path) -> None:
    argv = ("export", "tiny", "--target", "onnx", "-o", "bare", "--cache-dir", "cache", "--cache-size", "100MB")
    code = (
        f"import sys; sys.argv = ['edgekit', *{list(argv)!r}]\n"
        "from edgekit.cli.main import main\ntry: main()\nexcept SystemExit as ended: assert not ended.code\n"
        f"assert not {FRAMEWORKS} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-P", "-c", code], cwd=workspace, check=True, capture_output=True)


def test_a_changed_scheme_redoes_its_own_step_and_nothing_is_taken_where_not_asked(workspace: Path) -> None:
    (outcome,), stages, _ = export(workspace, "--target", "onnx", "--quantize", "int8-dynamic", "-o", "scheme")
    assert stages == {"quantizing", "found in the cache"}
    assert outcome["cached"] == []
    (fewer,), stages, _ = export(workspace, "--target", "onnx", "--eval-samples", "5", "-o", "fewer")
    assert stages == {"computing", "found in the cache"}
    assert fewer["cached"] == ["convert"]


def test_damage_is_told_and_the_work_done_again(workspace: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(workspace, tmp_path / "damaged")
    broken = 0
    for entry in (folder / "cache" / "entries").glob("*/*"):
        for file in (entry / "files").rglob("*"):
            if file.name in ("proof.json", "value") or (file.name == "output" and file.read_bytes()[:2] == b"PK"):
                file.write_bytes(file.read_bytes()[:-1] + b"!")
                broken += 1
    assert broken >= 3
    (outcome,), stages, warnings = export(folder, "--target", "onnx", "-o", "redone")
    assert stages == {"found in the cache", "computing"}
    assert outcome["cached"] == ["convert"]
    assert 3 <= len(warnings) <= broken
    assert all("is damaged" in line for line in warnings)
    (outcome,), stages, warnings = export(folder, "--target", "onnx", "-o", "third")
    assert (outcome["cached"], warnings) == (["convert", "prove"], [])


def test_a_full_disk_under_the_cache_is_a_warning(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path)
    (tmp_path / "cache").mkdir()
    mounted = 'mount -t tmpfs -o size=64k tmpfs cache && shift && exec "$@"'
    isolate = ("unshare", "-m") if os.geteuid() == 0 else ("unshare", "-rm")
    (outcome,), _, warnings = export(tmp_path, "--target", "pt2", before=(*isolate, "sh", "-c", mounted, "sh", "-"))
    assert outcome["ok"]
    assert len(warnings) == 1
    assert "disk is nearly full" in warnings[0]


def test_a_job_is_known_by_content_not_by_place(tmp_path: Path) -> None:
    def job(place: str, text: str, **source: Any) -> Job:
        folder = tmp_path / place
        folder.mkdir(exist_ok=True)
        (folder / "steps").write_text(text)
        fields = {"kind": "checkpoint", "path": str(folder), "framework": "torch", "task": "classify", "sha256": "0"}
        paths = {"steps": str(folder / "steps"), "output": str(folder / "golden.npz"), "result": str(folder / "r")}
        return Job.model_validate({"op": "reference", "source": SourceRef.model_validate(fields | source)} | paths)

    assert job_key(job("a", "one")) == job_key(job("b", "one"))
    keys = {job_key(job("a", "one")), job_key(job("a", "two")), job_key(job("a", "one", sha256="1"))}
    assert len(keys) == 3
    assert job_key(job("a", "one", kind="factory")) is None
    assert job_key(job("a", "one", options=SourceOptions(trust_remote_code=True))) is None


def test_every_file_that_a_job_reads_has_a_part() -> None:
    assert {name for name, each in Job.model_fields.items() if each.annotation == (str | None)} == set(READ)


def test_what_the_user_sets_for_workers_has_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.onnx").write_text("x")
    fields = {"op": "compress", "target": "onnx", "scheme": "int8-dynamic", "input": str(tmp_path / "m.onnx")}
    job = Job.model_validate(fields | {"output": "o.onnx", "result": "r"})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one = job_key(job)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert job_key(job) != one
