"""`edgekit bench`, on this machine and on a real board by ssh, to the end and cut short."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer

from edgekit.bundle import Bundle
from edgekit.cli.measuring import CampaignView, parse_cores, parse_duration
from edgekit.devices import ssh
from edgekit.devices.campaign import Outcome
from edgekit.measurement import Measurement
from edgekit.results import Results
from tests.cli.conftest import Edgekit
from tests.devices.bundles import write_bundle
from tests.rigs.machine import wait_for
from tests.rigs.ssh_board import SshBoard

QUICK = ("--num-runs", "20", "--min-secs", "0", "--cold-starts", "0")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    folder = tmp_path_factory.mktemp("made")
    return [write_bundle(folder, target) for target in ("onnx", "tflite")]


@pytest.fixture
def bundles(made: list[Bundle], tmp_path: Path) -> list[Path]:
    """Two bundles in bundles/ of the folder that the command runs in."""
    return [Path(shutil.copytree(each.path, tmp_path / "bundles" / each.path.name)) for each in made]


def kept(tmp_path: Path) -> list[Measurement]:
    with Results(tmp_path / "results.sqlite") as results:
        return [run.measurement for run in results.find()]


def test_every_bundle_is_measured_and_every_number_has_its_samples(
    edgekit: Edgekit, bundles: list[Path], tmp_path: Path
) -> None:
    shown = edgekit("bench", *QUICK, "--label", "first", "--json")
    assert shown.code == 0, shown.err
    document = shown.json()
    assert [Path(each["bundle"]).name for each in document["outcomes"]] == [path.name for path in bundles]
    assert all(each["complete"] and each["device"] == "local" for each in document["outcomes"])
    told = [Measurement.model_validate(each["measurement"]) for each in document["outcomes"]]
    assert sorted(each.id for each in told) == sorted(each.id for each in kept(tmp_path))
    assert all(each.parity.verdict == "within-tolerance" and len(each.samples.latency_ms) >= 20 for each in told)
    assert f"edgekit report --runs {document['session']}" in shown.err

    listed = edgekit("runs", "--label", "first", "--json").json()
    assert len(listed) == 2
    for each in listed:
        raw = next(m for m in told if m.id == each["measurement"]["id"]).samples.latency_ms
        assert each["latency"]["p50_ms"] == pytest.approx(np.median(raw))


def test_the_table_has_a_line_for_each_and_evidence_where_it_is_not_valid(
    edgekit: Edgekit, bundles: list[Path]
) -> None:
    shown = edgekit("bench", bundles[0], *QUICK)
    assert shown.code == 0
    assert re.search(r"divide\.onnx-none │ local +│ cpu +│ CPU +│ (valid|noisy) ", shown.out)
    assert "divide.tflite-none" not in shown.out


def test_without_bundles_it_says_how_to_make_one(edgekit: Edgekit) -> None:
    shown = edgekit("bench")
    assert shown.code == 1
    assert "edgekit export" in shown.err


def test_wrong_outputs_are_exit_code_1_with_the_evidence(edgekit: Edgekit, tmp_path: Path) -> None:
    wrong = write_bundle(tmp_path, "onnx", shift=0.5)
    shown = edgekit("bench", wrong.path, *QUICK, "--allow-fallback")
    assert shown.code == 1
    assert "wrong-output" in shown.out
    assert "divide.onnx-none · cpu · local is wrong-output:" in shown.out


def test_turns_end_in_a_ratio(edgekit: Edgekit, bundles: list[Path]) -> None:
    shown = edgekit("bench", *QUICK, "--interleave", "--rounds", "2", "--json")
    assert shown.code == 0, shown.err
    (comparison,) = shown.json()["comparisons"]
    p50 = comparison["changes"][0]
    assert p50["metric"] == "p50"
    assert p50["low"] <= p50["relative"] <= p50["high"]
    assert not any("not run in turns" in remark for remark in comparison["remarks"])
    alone = edgekit("bench", bundles[0], "--interleave")
    assert alone.code == 2
    assert "two bundles or accelerators" in alone.err


def test_full_delegation_can_be_asked_for(edgekit: Edgekit, bundles: list[Path]) -> None:
    onnx, tflite = bundles
    assert edgekit("bench", onnx, *QUICK, "--require-full-delegation").code == 0
    shown = edgekit("bench", tflite, *QUICK, "--require-full-delegation", "--json")
    covered = shown.json()["outcomes"][0]["measurement"]["coverage"]
    whole = covered["nodes"] == covered["nodes_on_accelerator"]
    assert shown.code == (0 if whole else 1)
    assert ("not fully delegated" in shown.err) is not whole


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--device", "bord"), 1, "unknown device 'bord'"),
        (("--accelerator", "gpuu"), 1, "did you mean gpu"),
        (("--use-nnapi",), 1, "local has no NNAPI"),
        (("--sustained", "3x"), 2, "is no duration"),
        (("--pin-cores", "3-1"), 2, "neither a core nor a range"),
        (("--benchmark-model", "nowhere"), 1, "there is no file nowhere"),
        (("--resume",), 1, "nothing to resume"),
        (("--num-runs", "0"), 2, "--num-runs"),
    ],
)
def test_what_can_not_be_is_said(
    edgekit: Edgekit, bundles: list[Path], options: tuple[str, ...], code: int, message: str
) -> None:
    shown = edgekit("bench", bundles[0], *options)
    assert shown.code == code
    assert message in " ".join(shown.err.replace("│", " ").split())
    assert "For the rest" not in shown.err  # nothing was measured


def test_a_store_that_can_not_be_used_is_said_before_anything_is_measured(
    edgekit: Edgekit, bundles: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "results.sqlite").write_text("not a database" * 100)
    shown = edgekit("bench", bundles[0], *QUICK)
    assert shown.code == 1
    assert "EDGEKIT_DB" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("10 min", 600), ("1h", 3600)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text, "--sustained") == seconds


def test_cores() -> None:
    assert parse_cores(["0,2-3", "3"], "--pin-cores") == (0, 2, 3)
    with pytest.raises(typer.BadParameter):
        parse_cores(["a"], "--pin-cores")


class Started:
    """The command in a process of its own, its remarks read as they come."""

    def __init__(self, folder: Path, *argv: str | Path) -> None:
        command = [sys.executable, "-P", "-m", "edgekit", *map(str, argv)]
        environment = {**os.environ, "EDGEKIT_DB": str(folder / "results.sqlite")}
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def lines(self) -> Iterator[str]:
        """Its remarks, to the end."""
        assert self.process.stderr
        yield from self.process.stderr

    def end(self) -> int:
        try:
            return self.process.wait(timeout=120)
        finally:
            self.process.kill()


def test_ctrl_c_keeps_what_was_measured_and_resume_does_the_rest(
    edgekit: Edgekit, bundles: list[Path], tmp_path: Path
) -> None:
    options = ("--num-runs", "20", "--min-secs", "4", "--cold-starts", "0")  # the second is not done before the signal
    running, said = Started(tmp_path, "bench", *options), []
    for line in running.lines():
        if line.startswith("divide.onnx-none · cpu · local: ") and not any(s.startswith("divide") for s in said):
            running.process.send_signal(signal.SIGINT)  # once: a second one ends even a command that is saying good-bye
        said.append(line)
    assert running.end() == 130, said
    assert said[-1].strip() == f"edgekit bench {' '.join(options)} --resume"
    first = [each for each in kept(tmp_path) if not each.fault]
    assert [each.bundle for each in first] == ["divide.onnx-none"]

    shown = edgekit("bench", *options, "--resume", "--json")
    assert shown.code == 0, shown.err
    outcomes = shown.json()["outcomes"]
    assert [each["resumed"] for each in outcomes] == [True, False]
    assert outcomes[0]["measurement"]["id"] == first[0].id


@pytest.mark.slow
def test_a_board_whose_link_drops_loses_nothing_and_resume_does_the_rest(
    edgekit: Edgekit, bundles: list[Path], tmp_path: Path, ssh_board: SshBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ssh._OPTIONS, "ServerAliveInterval", "1")
    monkeypatch.setitem(ssh._OPTIONS, "ServerAliveCountMax", "2")
    told = CampaignView.on_outcome

    def drop_after_the_first(view: CampaignView, outcome: Outcome) -> None:
        told(view, outcome)
        if outcome.complete and outcome.cell.device == ssh_board.name:
            ssh_board.machine.link_down()

    options = ("--device", f"{ssh_board.name},local", *QUICK)
    with monkeypatch.context() as dropping:
        dropping.setattr(CampaignView, "on_outcome", drop_after_the_first)
        shown = edgekit("bench", *options)
    ssh_board.machine.link_up()
    assert shown.code == 1
    assert f"edgekit: error: divide.tflite-none · cpu · {ssh_board.name}: " in shown.err
    whole = {(each.bundle, each.device.address.partition(":")[0]) for each in kept(tmp_path)}
    assert whole == {("divide.onnx-none", "ssh"), ("divide.onnx-none", "local"), ("divide.tflite-none", "local")}

    resumed = edgekit("bench", *options, "--resume", "--json")
    assert resumed.code == 0, resumed.err
    assert [each["resumed"] for each in resumed.json()["outcomes"]] == [True, True, True, False]
    wait_for(lambda: not ssh_board.left_behind(), "the end of the folder", timeout_s=60)


def test_a_fallback_is_exit_code_1_unless_it_is_allowed(
    edgekit: Edgekit, bundles: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No driver of a GPU: the CPU ran it, rightly, and that is not what was asked for."""
    monkeypatch.setenv("VK_ICD_FILENAMES", "/nonexistent")
    tflite = next(path for path in bundles if "tflite" in path.name)
    shown = edgekit("bench", tflite, *QUICK, "--use-gpu")
    assert shown.code == 1, shown.err
    for part in ("asked for", "ran on", "fell-back", "gpu was asked for and took no node"):
        assert part in shown.out
    allowed = edgekit("bench", tflite, *QUICK, "--use-gpu", "--allow-fallback")
    assert allowed.code == 0, allowed.err
    assert "fell-back" in allowed.out  # and it is said all the same


def test_xnnpack_can_be_left_out(edgekit: Edgekit, bundles: list[Path]) -> None:
    tflite = next(path for path in bundles if "tflite" in path.name)
    for runtime in ("litert", "litert-compiled"):
        measured = edgekit("bench", tflite, *QUICK, "--no-xnnpack", "--runtime", runtime, "--json").json()
        found = Measurement.model_validate(measured["outcomes"][0]["measurement"])
        assert found.settings.xnnpack is False
        assert found.coverage.actual == "CPU"
        assert found.parity.verdict == "within-tolerance"


def test_a_device_of_openvino_that_is_none(edgekit: Edgekit, bundles: list[Path]) -> None:
    shown = edgekit("bench", bundles[0], "--openvino-device", "tpu")
    assert shown.code == 2
    assert "NPU" in shown.err
