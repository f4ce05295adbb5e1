"""`edgekit bench` of models that write: raw samples at each length of the context, in the store and in every table."""

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from edgekit.bundle import Bundle
from edgekit.results import Results
from tests.cli.conftest import Edgekit
from tests.devices.benchmark_tool import write_tool
from tests.devices.test_measure_remote import PYTHON
from tests.devices.writers import CONTEXT, write_onnx_bundle, writer_checkpoint
from tests.rigs.adb_phone import AdbPhone
from tests.rigs.ssh_board import SshBoard

QUICK = ("--num-runs", "40", "--min-secs", "0.1", "--cold-starts", "1")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("writer")
    return write_onnx_bundle(folder, writer_checkpoint(folder, "generate", num_heads=2))  # of 16, kept in place


def check_measured(made: Any, lengths: list[int]) -> None:
    """A measurement as JSON: samples of each length, all of them in `latency_ms` too."""
    samples = made["samples"]
    assert made["parity"]["verdict"] == "within-tolerance"
    assert [each["context_length"] for each in samples["writing"]] == lengths
    tokens = CONTEXT - lengths[-1]
    for each in samples["writing"]:
        assert len(each["first_token_ms"]) * tokens == len(each["decode_ms"]) >= 40
        assert all(ms > 0 for ms in (*each["first_token_ms"], *each["decode_ms"]))
    assert sorted(samples["latency_ms"]) == sorted(ms for each in samples["writing"] for ms in each["decode_ms"])
    assert set(samples["steps"]) == set(range(len(lengths)))
    # keys and values of two layers, two heads of 16: what grows has room for 64 tokens before it is made anew
    for each in samples["writing"]:
        assert each["cache_bytes"] == 2 * 2 * 2 * 16 * 4 * 64


def test_samples_are_kept_and_every_table_is_made_of_them(edgekit: Edgekit, bundle: Bundle, tmp_path: Path) -> None:
    shown = edgekit("bench", bundle.path, "--context-length", "4,16", *QUICK)
    assert shown.code == 0, shown.err
    with Results(tmp_path / "results.sqlite") as results:
        (run,) = results.find()
    made = run.measurement
    check_measured(json.loads(made.model_dump_json()), [4, 16])
    assert made.settings.context_lengths == (4, 16)
    report = edgekit("report", "--runs", made.id, "-o", "report.json")
    assert report.code == 0, report.err
    (reported,) = json.loads((tmp_path / "report.json").read_text())["devices"]["runs"]
    for each, samples in zip(reported["writing"], made.samples.writing, strict=True):
        assert each["decode_per_second"] == pytest.approx(1000 / median(samples.decode_ms))
        assert each["prefill_per_second"] == pytest.approx(
            1000 * samples.context_length / median(samples.first_token_ms)
        )
    rates = [f"{each['decode_per_second']:,.0f}"[:3] for each in reported["writing"]]
    page = edgekit("report", "--runs", made.id, "-o", "report.md")
    assert page.code == 0
    for text in (shown.out, (tmp_path / "report.md").read_text()):
        assert "time to first token" in text
        assert all(rate in text for rate in rates)


def test_two_in_turns_are_compared_by_their_tokens(edgekit: Edgekit, bundle: Bundle, tmp_path: Path) -> None:
    import shutil

    other = tmp_path / "other.onnx-none.edgekit"
    shutil.copytree(bundle.path, other)
    shown = edgekit("compare", bundle.path, other, "--rounds", "3", "--num-runs", "30", "--min-secs", "0.2", "--json")
    assert shown.code == 0, shown.err
    (comparison,) = shown.json()
    changes = {change["metric"]: change for change in comparison["changes"]}
    for metric in ("first-token", "decode"):
        assert changes[metric]["unit"] == "ms"
        assert changes[metric]["low"] <= changes[metric]["relative"] <= changes[metric]["high"]
    assert changes["cache"]["absolute"] == 0
    with Results(tmp_path / "results.sqlite") as results:
        runs = results.find()
    assert all(set(each.rounds) == {0, 1, 2} for run in runs for each in run.measurement.samples.writing)


def test_a_board_measures_it_too(edgekit: Edgekit, bundle: Bundle, ssh_board: SshBoard) -> None:
    shown = edgekit("bench", bundle.path, "--device", ssh_board.name, "--context-length", "8", *QUICK, "--json")
    assert shown.code == 0, shown.err
    (outcome,) = shown.json()["outcomes"]
    check_measured(outcome["measurement"], [8])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--context-length", "24"), "--context-length 24: generate.onnx-none reads 24 tokens; give 23 at most"),
        (("--sustained", "5s"), "--sustained is for models that give one answer"),
        (("--energy",), "--energy"),
    ],
)
def test_what_is_not_measured_is_refused_by_name(
    options: tuple[str, ...], words: str, edgekit: Edgekit, bundle: Bundle
) -> None:
    shown = edgekit("bench", bundle.path, *options, *QUICK)
    assert (shown.code, words in shown.err) == (1, True), shown.err


def test_a_phone_without_python_is_refused(
    edgekit: Edgekit, adb_phone: AdbPhone, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    from tests.devices.bundles import write_bundle

    divide = write_bundle(tmp_path_factory.mktemp("divide"), "tflite")
    states = divide.manifest.signatures[0].model_copy(update={"states": {"ids": "logits"}})
    changed = divide.manifest.model_copy(update={"signatures": (states,)})
    from edgekit.bundle import MANIFEST, MANIFEST_SUM, file_sha256

    (divide.path / MANIFEST).write_text(changed.model_dump_json(indent=2) + "\n")
    (divide.path / MANIFEST_SUM).write_text(f"{file_sha256(divide.path / MANIFEST)}  {MANIFEST}\n")
    tool = write_tool(tmp_path / "benchmark_model")
    tool.write_text(tool.read_text().replace(tool.read_text().splitlines()[0], f"#!{PYTHON}", 1))
    shown = edgekit("bench", divide.path, "--device", adb_phone.address, "--benchmark-model", tool, *QUICK)
    assert shown.code == 1
    assert "benchmark_model times single calls" in shown.err
