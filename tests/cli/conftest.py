"""The command, run in this process as a user's shell would: arguments in, exit code and two streams out."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from edgekit.cli.main import main


@dataclass(frozen=True, kw_only=True)
class Shown:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


class Edgekit(Protocol):
    def __call__(self, *argv: str | Path) -> Shown: ...


@pytest.fixture
def edgekit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Edgekit:
    """Runs the command in a folder of its own, with a results store of its own there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEKIT_DB", str(tmp_path / "results.sqlite"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*argv: str | Path) -> Shown:
        monkeypatch.setattr(sys, "argv", ["edgekit", *map(str, argv)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return Shown(code=int(ended.value.code or 0), out=shown.out, err=shown.err)

    return run
