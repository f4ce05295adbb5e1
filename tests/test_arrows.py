"""The arrows between the rooms: import-linter sees what a planted import breaks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    linter = Path(sys.executable).parent / "lint-imports"
    return subprocess.run(
        [linter, "--config", ROOT / "pyproject.toml", "--no-cache"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "."},
        check=False,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the package as the tools see it: `export` and `devices` inside `edgekit`."""
    ignore = shutil.ignore_patterns("__pycache__", "assets")
    shutil.copytree(ROOT / "edgekit", tmp_path / "edgekit", ignore=ignore)
    for room in ("export", "devices"):
        shutil.copytree(ROOT / room, tmp_path / "edgekit" / room, ignore=ignore)
    return tmp_path


def test_the_tree_keeps_its_arrows(tree: Path) -> None:
    checked = lint(tree)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("edgekit/checkpoint.py", "import edgekit.export.plan"),
        ("edgekit/proof/parity.py", "import edgekit.devices.runner"),
        ("edgekit/export/plan.py", "import edgekit.devices.runner"),
        ("edgekit/devices/runner/__init__.py", "import edgekit.errors"),
        ("edgekit/model/sizes.py", "from edgekit.cli import main"),
        ("edgekit/newcomer.py", "import edgekit.errors"),
    ],
)
def test_a_planted_import_is_found(tree: Path, module: str, planted: str) -> None:
    with (tree / module).open("a") as file:
        file.write(f"\n{planted}\n")
    checked = lint(tree)
    assert checked.returncode == 1, checked.stdout
    assert "BROKEN" in checked.stdout or "newcomer" in checked.stdout + checked.stderr
