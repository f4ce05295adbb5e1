"""What all benchmarks share: results as JSON with the machine they were measured on, and tables in the README."""

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
WORK = ROOT / "benchmarks" / ".work"  # checkpoints, bundles and environments that benchmarks make; never committed


def edgekit(*argv: str | Path) -> Any:
    """Run the command as a user would, with --json, and return what it printed."""
    command = [sys.executable, "-P", "-m", "edgekit", *map(str, argv), "--json"]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    if not run.stdout:
        raise SystemExit(f"failed with exit code {run.returncode}: {' '.join(command)}")
    return json.loads(run.stdout)


def save_result(name: str, command: str, rows: Any) -> None:
    """Write benchmarks/results/NAME.json: the rows, the command that made them, date and machine."""
    RESULTS.mkdir(exist_ok=True)
    document = {"command": command, "date": datetime.date.today().isoformat(), "machine": machine(), "rows": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def load_result(name: str) -> Any:
    """The saved document of a benchmark."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def machine() -> str:
    """The processor and how many cores of it there are."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return f"{line.split(':')[1].strip()}, {os.cpu_count()} cores, {platform.system()}"
    return f"{platform.machine()}, {platform.system()}"


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as GitHub renders it; a | in a cell is escaped."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (headers, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in escaped]
    return "\n".join([lines[0], "|" + "---|" * len(headers), *lines[1:]])


def put_in_readme(name: str, table: str, note: str) -> None:
    """Replace what stands in the README between `<!-- NAME -->` and `<!-- /NAME -->`."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if start not in text or end not in text:
        raise SystemExit(f"README.md has no place for the table {name}")
    before, after = text.split(start)[0], text.split(end)[1]
    readme.write_text(f"{before}{start}\n{table}\n\n{note}\n{end}{after}")
