"""`edgekit search`: a recipe file that export takes, or one clear line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.checkpoint import Checkpoint
from edgekit.export.recipes import read_recipe
from tests.export.sweeps import self_labelled_checkpoint

#: of few texts, and the same in all searches, which share what was made and run
BASE = ("--target", "tflite", "--schemes", "int4-weight", "--eval-samples", "40")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search-command")


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Checkpoint:
    return self_labelled_checkpoint(folder)


def edgekit(folder: Path, *argv: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "edgekit", *map(str, argv)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_recipe_found_is_written_and_exported(folder: Path, checkpoint: Checkpoint) -> None:
    options = (*BASE, "--max-drop", "12", "--max-evaluations", "12")
    run = edgekit(folder, "search", "own", *options, "--json")
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    path = folder / document["recipe"]
    assert path == folder / "recipes" / "own.tflite" / "mixed.toml"
    assert document["best"]["size_bytes"] < document["uniforms"][0]["size_bytes"]
    recipe = read_recipe(path)
    assert recipe.found["evaluated"] == document["evaluated"] <= 12
    assert "the best uniform scheme" in run.stderr or "No mixed recipe beats" in run.stderr
    command = run.stderr[run.stderr.index("edgekit export") :].split()[1:]
    exported = edgekit(folder, *command, "--json")
    assert exported.stdout, exported.stderr
    assert json.loads(exported.stdout)[0]["scheme"] == "mixed"
    kept = edgekit(folder, "search", "own", *options)
    assert kept.returncode == 1
    assert "mixed.toml exists and was kept: use --force" in kept.stderr


def test_limits_that_nothing_keeps_end_with_1(folder: Path, checkpoint: Checkpoint) -> None:
    options = (*BASE, "-o", "other.toml")
    run = edgekit(folder, "search", "own", *options, "--max-drop", "50", "--max-size", "1kB")
    assert run.returncode == 1
    assert "no recipe fits: the smallest, of int4-weight, has" in run.stderr
    assert not (folder / "other.toml").exists()
    few = edgekit(folder, "search", "own", *options, "--max-drop", "0.3", "--max-size", "1kB")
    assert "one of 40 validation texts is 2.50 points: within --max-drop 0.3 none may be lost" in few.stderr


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--target", "flite"), 1, "did you mean tflite"),
        (("--max-size", "big"), 2, "is no size"),
        (("--engine", "slurm"), 2, "neither local nor ray"),
        (("--schemes", "fp16"), 1, "fp16 is no scheme of single modules"),
        (("-o", "recipe.json"), 2, "must end in .toml"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(
    folder: Path, checkpoint: Checkpoint, options: tuple[str, ...], code: int, says: str
) -> None:
    run = edgekit(folder, "search", "own", *options)
    assert run.returncode == code
    assert says in " ".join(run.stderr.replace("│", " ").split())
    assert "Traceback" not in run.stderr
