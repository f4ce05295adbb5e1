"""`edgekit train` as people run it: results on stdout, remarks on stderr, Ctrl-C and --resume."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgekit.checkpoint import content_sha256, load_checkpoint
from edgekit.cli.main import app
from edgekit.errors import EdgekitError
from edgekit.processes import run_process
from edgekit.train.state import state_path

ROOT = str(Path(__file__).parents[2])
SMALL = [
    "--tokenizer=byte",
    "--max-length=24",
    "--batch-size=16",
    "--learning-rate=0.001",
    "--test-fraction=0.2",
    "--validation-fraction=0.2",
]


@pytest.fixture
def arguments(data_file: Path) -> list[str]:
    return ["train", "--data", str(data_file), *SMALL]


def run(arguments: list[str]) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(arguments: list[str]) -> str:
    with pytest.raises(EdgekitError) as caught:
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    return str(caught.value)


def test_tables(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stdout = run([*arguments, "--epochs=2"])
    assert (tmp_path / "checkpoints" / "words-nano-torch" / "config.json").is_file()
    for word in ("accuracy", "macro-F1", "precision", "fruit", "metal"):
        assert word in stdout
    assert "exists and was kept" in refusal([*arguments, "--epochs=2"])
    run([*arguments, "--epochs=1", "--force"])


def test_json_alone_on_stdout(arguments: list[str], tmp_path: Path) -> None:
    result = json.loads(run([*arguments, "--epochs=1", "--json", "-o", str(tmp_path / "m")]))
    assert result["sha256"] == content_sha256(tmp_path / "m")
    assert result["test"]["examples"] > 0
    assert result["settings"]["epochs"] == 1


def test_refusals(arguments: list[str], tmp_path: Path) -> None:
    assert "did you mean torch" in refusal([*arguments, "--framework=pytorch"])
    assert "did you mean tiny" in refusal([*arguments, "--size=tinny"])
    assert "did you mean bpe" in refusal([*arguments, "--tokenizer=bpee"])
    assert "leave nothing to train on" in refusal([*arguments, "--test-fraction=0.9"])
    assert "--test-fraction" in refusal([*arguments, "--test-fraction=1.5"])
    assert "nothing to resume" in refusal([*arguments, "--resume", "-o", str(tmp_path / "m")])
    assert "language 'deutsch'" in refusal(["train", "--languages=deutsch,fr", "-o", str(tmp_path / "m")])


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, edgekit.cli.train; print(*sys.modules)"
    result = run_process([sys.executable, "-c", code], timeout_s=60, env={"PYTHONPATH": ROOT})
    assert result.returncode == 0, result.stderr
    assert {"numpy", "pydantic", "tokenizers", "torch", "tensorflow"}.isdisjoint(result.stdout.split())
    assert "--resume" in run(["train", "--help"])


def wait_for(path: Path, words: bytes, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while words not in path.read_bytes():
        assert process.poll() is None, path.read_text()
        assert time.monotonic() < deadline, path.read_text()
        time.sleep(0.05)


def test_ctrl_c_saves_and_resume_ends_alike(arguments: list[str], tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run([*arguments, "--epochs=30", "--patience=0", "-o", str(whole)])
    remarks = tmp_path / "remarks"
    command = [sys.executable, "-P", "-m", "edgekit", *arguments, "--epochs=30", "--patience=0", "-o", str(parts)]
    with remarks.open("wb") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ROOT}
        )
        wait_for(remarks, b"epoch 2/30", process)
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert stdout == b""
    assert f"edgekit train --resume -o {parts}" in remarks.read_text()
    assert (state_path(parts) / "state.json").is_file()
    assert not parts.exists()
    message = refusal([*arguments, "--epochs=31", "--resume", "-o", str(parts)])
    assert "--epochs 31" in message
    run([*arguments, "--epochs=30", "--resume", "-o", str(parts)])
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    assert load_checkpoint(parts).labels == ("fruit", "metal")
    assert not state_path(parts).exists()


WRITER = [
    *("--task=translate", "--tokenizer=byte", "--max-length=32", "--hidden-size=16", "--num-layers=1", "--num-heads=2"),
    *("--ffn-size=32", "--embedding-size=0", "--epochs=1"),
]


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.tsv"
    rows = "".join(f"text %({n})s\tTexte %({n})s\n" for n in range(90))
    path.write_text(f"source\ttarget\n{rows}one side\t\n")
    return path


def test_a_model_that_translates(pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["train", "--data", str(pairs_file), *WRITER], catch_exceptions=False)
    assert load_checkpoint(tmp_path / "checkpoints" / "pairs-translate-nano-torch").config.task == "translate"
    for word in ("chrF", "BLEU", "placeholders kept", "bits per byte"):
        assert word in result.stdout
    assert "90 sources have placeholders such as %(name)s; in 0 pairs" in result.stderr
    assert "1 rows with an empty side were skipped" in result.stderr
    assert "edgekit export" not in result.stderr  # not yet
    found = json.loads(run(["train", "--data", str(pairs_file), *WRITER, "--json", "-o", str(tmp_path / "m")]))
    assert "version:" in found["test"]["chrf_signature"]


def test_what_other_tasks_do_not_take(pairs_file: Path) -> None:
    translate = ["train", "--task=translate"]
    assert "--task translate with --data ui-strings needs --target-language" in refusal(translate)
    assert "say --target-language" in refusal([*translate, "--target-language=de", "--languages=de"])
    assert "leave it out" in refusal([*translate, "--data", str(pairs_file), "--target-language=de"])
    assert "unknown language to translate into" in refusal([*translate, "--target-language=xx"])
    assert "did you mean translate" in refusal(["train", "--task=translation"])
    assert "--teacher is not for --task translate" in refusal([*translate, "--target-language=de", "--teacher=x"])
