"""What all benchmarks share: results as JSON with the machine they were measured on, and tables in the README."""

import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
WORK = ROOT / "benchmarks" / ".work"  # checkpoints, bundles and environments that benchmarks make; never committed


def edgekit(*argv: str | Path) -> Any:
    """Run the command as a user would, with --json, and return what it printed."""
    command = [sys.executable, "-P", "-m", "edgekit", *map(str, argv), "--json"]
    env = {**os.environ, "EDGEKIT_CACHE_SIZE": "0"}  # what is measured is done
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT, env=env)
    if not run.stdout:
        raise SystemExit(f"failed with exit code {run.returncode}: {' '.join(command)}")
    return json.loads(run.stdout)


def export_rows(name: str, checkpoint: Path, *options: str) -> list[dict[str, Any]]:
    """Export a checkpoint at one length with these options into a folder of this name; a row for each bundle."""
    output = WORK / name
    shutil.rmtree(output, ignore_errors=True)
    return [row_of(each) for each in edgekit("export", checkpoint, *one_length(checkpoint), *options, "-o", output)]


def one_length(checkpoint: Path) -> tuple[str, str]:
    """The option for files of one sequence length: what several of them give is benchmarks/lengths.py's to say."""
    config = json.loads((checkpoint / "config.json").read_text())
    return ("--sequence-length", str(config["model"]["max_length"]))


def row_of(outcome: dict[str, Any]) -> dict[str, Any]:
    """What tables and comparisons need of one exported bundle."""
    row = {name: outcome[name] for name in ("target", "via", "scheme", "ok")}
    row["error"] = outcome["error"] and outcome["error"].split(" (log:")[0]  # the log is on this machine only
    manifest = outcome["manifest"]
    if manifest is None:
        return row
    model = manifest["model"]
    files = [record for name, record in manifest["files"].items() if name.split("/")[0] == model]
    evidence = manifest["scheme_details"].get("evidence", {})
    recipe = manifest["scheme_details"].get("recipe")
    return (
        row
        | ({"recipe": recipe} if recipe else {})
        | {
            "checkpoint": Path(manifest["source"]["path"]).name,
            "checkpoint_sha256": manifest["source"]["sha256"],
            "size_bytes": sum(record["size_bytes"] for record in files),
            "parity": manifest["parity"],
            "accuracy": manifest["accuracy"],
            "requires": manifest["requires"],
            "evidence": {name: value for name, value in evidence.items() if name != "largest"},
        }
    )


def check_same_row(name: str, saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Exit with what differs between a saved row of benchmarks/results/NAME.json and the same row measured again."""
    same = ("checkpoint_sha256", "ok", "size_bytes")
    differences = [f"{field}: {saved[field]} is now {now[field]}" for field in same if saved[field] != now[field]]
    accuracy, was = now["accuracy"]["accuracy"], saved["accuracy"]["accuracy"]
    if abs(accuracy - was) > 0.001:  # another processor may round a tie the other way
        differences.append(f"accuracy: {was} is now {accuracy}")
    if saved["parity"]["steps"] != now["parity"]["steps"]:
        differences.append(f"steps: {saved['parity']['steps']} is now {now['parity']['steps']}")
    if differences:
        raise SystemExit(f"a saved row of benchmarks/results/{name}.json no longer holds: {'; '.join(differences)}")


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


def put_in_readme(name: str, table: str, note: str) -> None:
    """Replace what stands in the README between `<!-- NAME -->` and `<!-- /NAME -->`."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if start not in text or end not in text:
        raise SystemExit(f"README.md has no place for the table {name}")
    before, after = text.split(start)[0], text.split(end)[1]
    readme.write_text(f"{before}{start}\n{table}\n\n{note}\n{end}{after}")
