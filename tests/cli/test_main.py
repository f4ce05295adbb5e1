"""The command's frame: what it imports, and how it ends."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.cli.main import VERBS

FRAMEWORKS = ("torch", "tensorflow", "keras", "coremltools", "onnx", "onnxruntime", "litert_torch", "ai_edge_litert")


def run(*argv: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "edgekit", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd, check=False)


def imported_by(code: str) -> set[str]:
    return printed_and_imported_by(code)[1]


def printed_and_imported_by(code: str) -> tuple[str, set[str]]:
    script = f"import sys\n{code}\nprint()\nprint(*sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    *printed, modules = run.stdout.splitlines()
    return "\n".join(printed), set(modules.split())


def test_import_edgekit_loads_nothing_else() -> None:
    modules = imported_by("import edgekit")
    assert not modules & {*FRAMEWORKS, "numpy", "pydantic", "typer", "rich"}


def test_help_loads_no_framework_and_no_verb() -> None:
    code = "sys.argv = ['edgekit', '--help']\nfrom edgekit.cli.main import main\ntry: main()\nexcept SystemExit: pass"
    modules = imported_by(code)
    assert not modules & {*FRAMEWORKS, "numpy", "pydantic", "tokenizers", "sqlalchemy", "jinja2"}
    assert not {f"edgekit.cli.{verb}" for verb in VERBS} & modules
    assert not {"rich.markdown", "rich.traceback", "markdown_it", "pygments"} & modules


def test_what_help_leaves_out_is_there_where_it_is_used() -> None:
    code = (
        "from edgekit.cli.help import load_help\nload_help()\n"
        "import rich.console, typer.rich_utils as used\n"
        "from rich.markdown import Markdown\nfrom rich.traceback import Traceback\n"
        "assert type(used.Markdown('*a*')) is Markdown\n"
        "assert used.Traceback.from_exception == Traceback.from_exception"
    )
    assert "rich.markdown" in imported_by(code)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example_and_loads_no_framework(verb: str) -> None:
    code = (
        f"sys.argv = ['edgekit', {verb!r}, '--help']\n"
        "from edgekit.cli.main import main\ntry: main()\nexcept SystemExit as ended: assert not ended.code"
    )
    printed, imported = printed_and_imported_by(code)
    assert not imported & {*FRAMEWORKS, "numpy", "sqlalchemy", "jinja2"}  # Typer itself imports pydantic here
    assert f"edgekit {verb}" in printed
    assert "Example" in printed


def test_unknown_verb_is_a_usage_error() -> None:
    shown = run("exprot")
    assert shown.returncode == 2
    assert "exprot" in shown.stderr


def test_version_and_completion() -> None:
    assert run("--version").stdout.startswith("edgekit ")
    assert "edgekit" in run("--show-completion", "bash").stdout


def test_python_m_does_not_run_the_working_folders_modules(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy was run')")
    (tmp_path / "typer.py").write_text("raise SystemExit('the wrong typer was run')")
    shown = subprocess.run(
        [sys.executable, "-m", "edgekit", "models"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    assert "nano" in shown.stdout
