"""Training in two processes has the losses of one with the same batches; one of them writes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.checkpoint import load_checkpoint
from edgekit.errors import RefusedError
from edgekit.program import FRAMEWORKS, Framework
from edgekit.train.workers import ONE, Worker, check_alone, this_worker

OPTIONS = [
    *("--task=translate", "--tokenizer=byte", "--max-length=32", "--hidden-size=16", "--num-layers=1", "--num-heads=2"),
    *("--ffn-size=32", "--embedding-size=0", "--epochs=2", "--batch-size=15", "--dropout=0", "--json"),
]
TIMEOUT_S = 600


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.tsv"
    path.write_text("source\ttarget\n" + "".join(f"text {n} of {n % 7}\tTexte {n} von {n % 7}\n" for n in range(90)))
    return path


def command(data: Path, framework: Framework, output: Path) -> list[str]:
    return ["edgekit", "train", "--data", str(data), "--framework", framework, *OPTIONS, "-o", str(output)]


def start(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> str:
    stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, stderr
    return stdout


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def in_two_processes(data: Path, framework: Framework, output: Path) -> str:
    arguments = command(data, framework, output)
    if framework == "torch":
        return answer(start(["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", *arguments]))
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    configs = [
        json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}) for index in range(2)
    ]
    processes = [start(arguments, TF_CONFIG=config) for config in configs]
    first, second = map(answer, processes)
    assert second == ""
    return first


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_two_processes_have_the_losses_of_one(framework: Framework, data: Path, tmp_path: Path) -> None:
    one = json.loads(answer(start(command(data, framework, tmp_path / "one"))))
    two = json.loads(in_two_processes(data, framework, tmp_path / "two"))
    for alone, shared in zip(one["history"], two["history"], strict=True):
        assert shared["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        bits = "validation_bits_per_byte"
        assert shared[bits] == pytest.approx(alone[bits], rel=1e-5)
    assert one["history"][1]["loss"] < one["history"][0]["loss"]
    assert two["test"]["bits_per_byte"] == pytest.approx(one["test"]["bits_per_byte"], rel=1e-5)
    assert load_checkpoint(tmp_path / "two").framework == framework


def test_the_environment_says_which_worker_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "TF_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    assert this_worker("torch") == this_worker("tensorflow") == ONE
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}')
    assert this_worker("torch") == Worker(rank=1, count=3)
    assert this_worker("tensorflow") == Worker(rank=1, count=2)


def test_a_classifier_trains_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    check_alone("torch", "classify")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RefusedError, match="--task classify trains in one process, not in 2"):
        check_alone("torch", "classify")


@pytest.mark.parametrize(
    ("framework", "name", "value"),
    [("torch", "RANK", "first"), ("tensorflow", "TF_CONFIG", "{"), ("tensorflow", "TF_CONFIG", "[1]")],
)
def test_an_environment_that_makes_no_sense_is_one_clear_error(
    framework: Framework, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(RefusedError, match="can't be read as a worker's place"):
        this_worker(framework)
