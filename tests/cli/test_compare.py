"""`edgekit compare`: runs, labels and bundles; limits, Markdown, JUnit and exit codes."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from edgekit.measurement import Measurement
from edgekit.results import Results
from tests.cli.conftest import Edgekit
from tests.devices.bundles import write_bundle
from tests.measurements import measurement

LIMITS = "p50>5%,size>2%,accuracy<-0.2"


@pytest.fixture
def kept(edgekit: Edgekit) -> list[Measurement]:
    """Two bundles measured on main and on a pull request: one as before, one slower."""
    with Results() as results:
        return [
            results.add(measurement(median, seed=seed, bundle=bundle), label=label)
            for seed, (label, bundle, median) in enumerate(
                [("main", "x", 3.0), ("main", "y", 2.0), ("pr", "x", 3.0), ("pr", "y", 2.4), ("main", "only", 1.0)]
            )
        ]


def test_two_runs_are_compared(edgekit: Edgekit, kept: list[Measurement]) -> None:
    shown = edgekit("compare", kept[1].id, kept[3].id)
    assert shown.code == 0
    assert "+20." in shown.out
    (comparison,) = edgekit("compare", kept[1].id[:7], kept[3].id[:7], "--json").json()
    p50 = comparison["changes"][0]
    assert (p50["metric"], p50["relative"]) == ("p50", pytest.approx(0.2, abs=0.02))
    assert 0.1 < p50["low"] < p50["high"] < 0.3


def test_limits_decide_the_exit_code_and_go_to_ci(edgekit: Edgekit, kept: list[Measurement], tmp_path: Path) -> None:
    files = ("--markdown", "change.md", "--junit", "change.xml")
    shown = edgekit("compare", "main", "pr", "--fail-on", LIMITS, *files)
    assert shown.code == 1
    assert "p50 changed by +20." in shown.out
    assert "only · cpu · ssh:pi@board has no partner in B" in shown.err
    tree = ElementTree.parse(tmp_path / "change.xml").getroot()
    assert (tree.get("tests"), tree.get("failures")) == ("8", "1")
    failed = [case for case in tree.iter("testcase") if case.find("failure") is not None]
    assert [(case.get("name"), (case.get("classname") or "")[:1]) for case in failed] == [("p50>5%", "y")]
    markdown = (tmp_path / "change.md").read_text()
    assert markdown.count("| p50>5% | FAILED |") == 1
    assert markdown.count("| p50>5% | ok |") == 1
    assert edgekit("compare", "main", "pr", "--fail-on", "p50>30%", "--fail-on", "size>2%").code == 0


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (("main", "nothing"), 1, "no run 'nothing'"),
        (("main", "pr", "--fail-on", "p5>3%"), 2, "did you mean p50"),
        (("main", "pr", "--fail-on", "p50"), 2, "is no limit"),
        (("main", "pr", "--junit", "no/where.xml"), 1, "there is no folder"),
    ],
)
def test_what_can_not_be_compared_is_said(
    edgekit: Edgekit, kept: list[Measurement], argv: tuple[str, ...], code: int, message: str
) -> None:
    shown = edgekit("compare", *argv)
    assert shown.code == code
    assert message in " ".join(shown.err.replace("│", " ").split())


def test_labels_without_a_pair_are_an_error(edgekit: Edgekit, kept: list[Measurement]) -> None:
    with Results() as results:
        for bundle in ("a", "b"):
            results.add(measurement(bundle=bundle), label="other")
    shown = edgekit("compare", "main", "other")
    assert shown.code == 1
    assert "no run of main is alike one of other" in shown.err


def test_two_bundles_are_run_in_turns(edgekit: Edgekit, tmp_path: Path) -> None:
    first, second = (write_bundle(tmp_path, target).path for target in ("onnx", "tflite"))
    shown = edgekit("compare", first, second, "--num-runs", "20", "--min-secs", "0", "--rounds", "2", "--json")
    assert shown.code == 0, shown.err
    (comparison,) = shown.json()
    assert comparison["a_name"] == "divide.onnx-none · cpu · local"
    assert not any("not run in turns" in remark for remark in comparison["remarks"])
    with Results() as results:
        kept = {run.measurement.id: run.measurement for run in results.find()}
    assert set(kept[comparison["a"]].samples.rounds) == {0, 1}
    assert edgekit("compare", first, "main").code == 1
    assert edgekit("compare", first, first).code == 2
