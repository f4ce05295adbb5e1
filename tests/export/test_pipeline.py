"""The pipeline through the command line: proven bundles, and what it must withstand."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle import check_files, open_bundle
from edgekit.outputs import HIDDEN
from tests.conftest import keeping, lacking
from tests.tiny import tiny_checkpoint

EDGEKIT = (sys.executable, "-P", "-m", "edgekit")


def edgekit(*argv: str | Path, cwd: Path, code: int = 0, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    command = [*EDGEKIT, *map(str, argv)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=cwd, check=False)
    assert run.returncode == code, f"{argv}: {run.returncode}\n{run.stdout}\n{run.stderr}"
    return run


def error_lines(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("edgekit: error:")]


def refuses(*argv: str | Path, cwd: Path, message: str) -> None:
    """The command says one clear line on stderr and ends with exit code 1."""
    run = edgekit(*argv, cwd=cwd, code=1)
    assert len(error_lines(run.stderr)) == 1, run.stderr
    assert message in error_lines(run.stderr)[0]
    assert "Traceback" not in run.stderr


def workers_of(folder: Path) -> list[int]:
    """Processes with an open job in `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(str(folder).encode() in part for part in command) and b"edgekit.export.worker" in command:
                found.append(int(entry.name))
    return found


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, kept_exports: Path) -> Path:
    """A folder with a checkpoint `tiny`, exported once: TFLite float32 and float16, and pt2."""
    folder = tmp_path_factory.mktemp("workspace")
    tiny_checkpoint(folder)
    (folder / "numpy.py").write_text("raise SystemExit('the wrong numpy was run')")
    with keeping(kept_exports):
        edgekit("export", "tiny", "--target", "tflite", "--quantize", "none,fp16", cwd=folder)
    return folder


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A folder with the checkpoint `tiny` only."""
    tiny_checkpoint(tmp_path)
    return tmp_path


def test_bundles_are_whole_and_proven(workspace: Path) -> None:
    for scheme, dtype in (("none", "float32"), ("fp16", "float16")):
        bundle = open_bundle(workspace / "bundles" / f"tiny.tflite-{scheme}.edgekit")
        check_files(bundle)
        manifest = bundle.manifest
        assert manifest.proven
        assert manifest.parity.steps == manifest.accuracy.samples == manifest.accuracy.population > 5
        assert manifest.accuracy.reference_accuracy is not None
        assert manifest.scheme_details["weights"][dtype]["elements"] > 3000
        assert manifest.tools["litert_torch"]
        assert str(workspace) not in (bundle.path / "labels.json").read_text()
    assert sorted(p.name for p in (workspace / "bundles" / HIDDEN).iterdir() if p.name.startswith("scratch-")) == []


def test_sha256sum_agrees_with_the_manifest(workspace: Path) -> None:
    bundle = workspace / "bundles" / "tiny.tflite-none.edgekit"
    subprocess.run(["sha256sum", "-c", "manifest.sha256"], cwd=bundle, check=True, capture_output=True)


def test_verify_takes_every_bundle_and_finds_a_flipped_byte(workspace: Path, tmp_path: Path) -> None:
    run = edgekit("verify", "--json", cwd=workspace)
    assert [row["ok"] for row in json.loads(run.stdout)] == [True, True]
    shutil.copytree(workspace / "bundles", tmp_path / "bundles")
    model = tmp_path / "bundles" / "tiny.tflite-none.edgekit" / "model.tflite"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    refuses("verify", cwd=tmp_path, message="model.tflite was changed")


def test_verify_finds_wrong_outputs_behind_right_hashes(workspace: Path, tmp_path: Path) -> None:
    """A file that is what the manifest says, but does not compute what the source computed: not in float32."""
    from edgekit.bundle import seal_bundle

    bundle = tmp_path / "bundles" / "tiny.tflite-none.edgekit"
    shutil.copytree(workspace / "bundles" / bundle.name, bundle)
    other = workspace / "bundles" / "tiny.tflite-fp16.edgekit"
    shutil.copyfile(other / "model.tflite", bundle / "model.tflite")
    manifest = open_bundle(workspace / "bundles" / bundle.name).manifest
    for name in ("manifest.json", "manifest.sha256"):
        (bundle / name).unlink()
    seal_bundle(bundle, **{k: v for k, v in dict(manifest).items() if k not in ("files", "edgekit")})
    run = edgekit("verify", "--json", cwd=tmp_path, code=1)
    parity = json.loads(run.stdout)[0]["parity"]
    assert parity["verdict"] == "failed"
    assert parity["max_abs_difference"] > parity["tolerance"]


def test_predict_from_checkpoint_and_bundle_agree(workspace: Path) -> None:
    texts = ("open the window", "windowum openare", "", "🙂" * 100)
    answers = []
    for source in ("tiny", "bundles/tiny.tflite-none.edgekit"):
        run = edgekit("predict", source, *texts, "--json", cwd=workspace)
        answers.append(json.loads(run.stdout))
    for from_checkpoint, from_bundle in zip(*answers, strict=True):
        for a, b in zip(from_checkpoint["labels"], from_bundle["labels"], strict=True):
            assert a["label"] == b["label"]
            assert a["probability"] == pytest.approx(b["probability"], abs=1e-4)


def test_inspect_a_bundle(workspace: Path) -> None:
    run = edgekit("inspect", "bundles/tiny.tflite-none.edgekit", "--json", cwd=workspace)
    shown = json.loads(run.stdout)
    assert shown["description"]["signatures"][0]["name"] == "serving_default"
    assert shown["manifest"]["target"] == "tflite"
    assert "FULLY_CONNECTED" in edgekit("inspect", "bundles/tiny.tflite-none.edgekit", cwd=workspace).stdout


def test_dry_run_prints_routes_sizes_and_refusals_and_loads_no_framework(workspace: Path) -> None:
    argv = ("export", "tiny", "--target", "all,pt2", "--quantize", "none,fp16", "-o", "elsewhere", "--dry-run")
    code = (
        f"import sys; sys.argv = ['edgekit', *{[*argv, '--json']!r}]\n"
        "from edgekit.cli.main import main\ntry: main()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'tensorflow', 'coremltools', 'onnx'} & set(sys.modules)"
    )
    command = [sys.executable, "-P", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, cwd=workspace, check=True)
    rows = {(row["target"], row["scheme"]): row for row in json.loads(run.stdout)}
    assert len(rows) == 8
    assert "does not offer fp16" in rows["pt2", "fp16"]["problem"]
    assert rows["tflite", "fp16"]["expected_size_bytes"] * 2 == rows["tflite", "none"]["expected_size_bytes"]
    assert not (workspace / "elsewhere").exists()
    edgekit(*argv, cwd=workspace, code=1)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("export", "tiny", "--target", "tflight"), "did you mean tflite?"),
        (("export", "tiny", "--quantize", "fp61"), "did you mean fp16?"),
        (("export", "tiny", "--via", "pytorch"), "did you mean torch?"),
        (("export", "tiny", "--target", "savedmodel", "--via", "torch"), "can't be reached via torch"),
        (("export", "tiny", "--target", "pt2", "--quantize", "fp16"), "does not offer fp16"),
        (("export", "nowhere"), "there is no checkpoint"),
        (("predict", "nowhere", "text"), "there is no checkpoint"),
        (("export", "tiny"), "use --force"),
        (("verify", "nowhere"), "not a bundle"),
        (("inspect", "nowhere.tflite"), "there is no file"),
    ],
)
def test_refusals_are_one_clear_line(workspace: Path, argv: tuple[str, ...], message: str) -> None:
    refuses(*argv, cwd=workspace, message=message)


def test_missing_extra_is_named_before_any_work(workspace: Path) -> None:
    code = (
        "import sys, importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'coremltools' else find(name, *a)\n"
        "sys.argv = ['edgekit', 'export', 'tiny', '--target', 'coreml']\n"
        "from edgekit.cli.main import main\nmain()"
    )
    command = [sys.executable, "-P", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, cwd=workspace, check=False)
    assert run.returncode == 1
    assert "edgekit-toolkit[coreml]" in run.stderr


def test_force_replaces(fresh: Path, kept_exports: Path) -> None:
    with keeping(kept_exports):
        edgekit("export", "tiny", "--target", "pt2", "--eval-samples", "3", cwd=fresh)
        first = (fresh / "bundles" / "tiny.pt2-none.edgekit").stat().st_ino
        edgekit("export", "tiny", "--target", "pt2", "--eval-samples", "5", "--force", cwd=fresh)
    bundle = open_bundle(fresh / "bundles" / "tiny.pt2-none.edgekit")
    check_files(bundle)
    assert bundle.path.stat().st_ino != first
    assert bundle.manifest.parity.steps == 5


def test_data_that_changed_makes_accuracy_not_measured_never_absent(fresh: Path, kept_exports: Path) -> None:
    with (fresh / "data.tsv").open("a") as file:
        file.write("one more\ten\n")
    with keeping(kept_exports):
        edgekit("export", "tiny", "--target", "pt2", cwd=fresh)
    manifest = open_bundle(fresh / "bundles" / "tiny.pt2-none.edgekit").manifest
    assert manifest.accuracy.accuracy is None
    assert "has changed since training" in manifest.accuracy.note
    assert manifest.parity.verdict == "within-tolerance"
    assert manifest.parity.steps == 16


def test_other_targets_finish_when_one_fails(fresh: Path) -> None:
    """A time limit that the heavy converter can't meet and the light one can is no fixed number: kill it instead."""
    command = [*EDGEKIT, "export", "tiny", "--target", "coreml,pt2", "--json"]
    with subprocess.Popen(command, cwd=fresh, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as export:
        deadline = time.monotonic() + 120
        killed = False
        while not killed and time.monotonic() < deadline and export.poll() is None:
            for pid in workers_of(fresh):
                if b"coreml" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGSEGV)
                    killed = True
            time.sleep(0.05)
        stdout, stderr = export.communicate(timeout=300)
    assert killed
    assert export.returncode == 1
    rows: dict[str, Any] = {row["target"]: row for row in json.loads(stdout)}
    assert rows["pt2"]["ok"]
    assert "died of signal 11" in rows["coreml"]["error"]
    assert not (fresh / "bundles" / "tiny.coreml-none.edgekit").exists()
    log = rows["coreml"]["error"].split("(log: ")[1].rstrip(")")
    assert Path(log).is_file()
    assert len(error_lines(stderr)) == 1


def test_time_limit(fresh: Path) -> None:
    refuses("export", "tiny", "--target", "pt2", "--timeout", "1", cwd=fresh, message="did not finish within 1 s")
    assert not (fresh / "bundles" / "tiny.pt2-none.edgekit").exists()


@pytest.mark.parametrize("delay_s", [0.7, 2.0, 4.0, 6.0])
def test_sigkill_at_any_moment_leaves_nothing_half_written(fresh: Path, delay_s: float, kept_exports: Path) -> None:
    export = subprocess.Popen([*EDGEKIT, "export", "tiny", "--target", "pt2"], cwd=fresh, stderr=subprocess.DEVNULL)
    time.sleep(delay_s)
    export.kill()
    export.wait()
    bundle = fresh / "bundles" / "tiny.pt2-none.edgekit"
    if bundle.exists():
        check_files(open_bundle(bundle))
    deadline = time.monotonic() + 30
    while workers_of(fresh) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workers_of(fresh) == []
    with keeping(kept_exports):
        edgekit("export", "tiny", "--target", "pt2", "--force", cwd=fresh)
    check_files(open_bundle(bundle))
    left = [
        p.name
        for p in (fresh / "bundles" / HIDDEN).iterdir()
        if p.name.startswith(("scratch-", "tiny.pt2-none.edgekit.new"))
    ]
    assert left == []


def test_ctrl_c_ends_the_workers_and_leaves_nothing(fresh: Path) -> None:
    targets = "pt2,onnx,coreml"  # more than there are cores: what waits must not begin
    export = subprocess.Popen(
        [*EDGEKIT, "export", "tiny", "--target", targets], cwd=fresh, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not workers_of(fresh) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers_of(fresh)
    export.send_signal(signal.SIGINT)
    _, stderr = export.communicate(timeout=60)
    assert export.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert workers_of(fresh) == []
    assert not (fresh / "bundles" / "tiny.pt2-none.edgekit").exists()
    assert [p for p in (fresh / "bundles" / HIDDEN).iterdir() if p.name.startswith("scratch-")] == []


def test_two_exports_into_one_directory(fresh: Path) -> None:
    command = [*EDGEKIT, "export", "tiny", "--target", "pt2"]
    pair = [subprocess.Popen(command, cwd=fresh, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [export.communicate(timeout=300)[1] for export in pair]
    assert sorted(export.returncode for export in pair) == [0, 1], errors
    loser = errors[0] if pair[0].returncode else errors[1]
    assert "being written by another edgekit" in loser or "use --force" in loser
    check_files(open_bundle(fresh / "bundles" / "tiny.pt2-none.edgekit"))


@pytest.mark.parametrize(("options", "message"), [("size=200k", "the disk is full"), ("ro", "read-only")])
def test_full_and_read_only_output(fresh: Path, options: str, message: str) -> None:
    (fresh / "out").mkdir()
    command = f'mount -t tmpfs -o {options} tmpfs out && shift && "$@"; code=$?; ls -A out/*.edgekit >&2; exit $code'
    isolate = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    argv = [*EDGEKIT, "export", "tiny", "--target", "pt2", "-o", "out"]
    run = subprocess.run(
        [*isolate, "sh", "-c", command, "sh", "-", *argv], capture_output=True, text=True, cwd=fresh, check=False
    )
    if "unshare" in run.stderr:
        lacking(f"mount namespaces: {run.stderr.strip()}")
    assert run.returncode == 1
    assert len(error_lines(run.stderr)) == 1, run.stderr
    assert message in error_lines(run.stderr)[0]
    assert "cannot access 'out/*.edgekit'" in run.stderr  # nothing is there


@pytest.mark.slow
def test_all_six_routes_and_references_through_the_command(fresh: Path, kept_exports: Path) -> None:
    argv = ("export", "tiny", "--target", "all", "--via", "torch,tensorflow", "--quantize", "none,fp16", "--json")
    with keeping(kept_exports):
        rows = json.loads(edgekit(*argv, cwd=fresh, timeout_s=1800).stdout)
        references = json.loads(edgekit("export", "tiny", "--target", "savedmodel,pt2", "--json", cwd=fresh).stdout)
    assert len(rows) == 12
    for row in rows:
        parity, accuracy = row["manifest"]["parity"], row["manifest"]["accuracy"]
        assert parity["verdict"] == "within-tolerance"
        assert accuracy["accuracy"] is not None
        evaluated = row["target"] == "coreml" and sys.platform != "darwin"
        assert parity["evaluated"].startswith("evaluated on Linux by edgekit, not on Apple hardware") is evaluated
    assert [row["manifest"]["parity"]["verdict"] for row in references] == ["within-tolerance"] * 2
    one_of_each = {row["target"]: row["bundle"] for row in (*rows, *references)}.values()
    verified = json.loads(edgekit("verify", *one_of_each, "--json", cwd=fresh, timeout_s=900).stdout)
    assert [row["ok"] for row in verified] == [True] * 5
