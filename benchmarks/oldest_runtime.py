"""Which TFLite schemes run on tflite-runtime 2.14, the last of its name, still that of old device images.

    python benchmarks/oldest_runtime.py [CHECKPOINT]

It needs numpy < 2 and Python ≤ 3.11, so it lives in an environment of its own, in benchmarks/.work. Each file is run
there on held-out text by the same runner that runs it on a device, and its outputs are compared with the source's.
The result is kept in export/oldest_runtime.json, which tells manifests what a file requires.
"""

import datetime
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import tables

from edgekit.bundle import Bundle, open_bundle
from edgekit.checkpoint import embedded_checkpoint_path
from edgekit.errors import RunnerError
from edgekit.export.schemes import SCHEMES, tolerance_of
from edgekit.proof.golden import read_golden
from edgekit.proof.parity import compare_outputs

VERSION = "2.14.0"
PYTHON = "python3.11"
RESULT = tables.ROOT / "export" / "oldest_runtime.json"
COMMAND = "python benchmarks/oldest_runtime.py"


def main() -> None:
    """Export every TFLite scheme by both routes, run each on the old runtime, and keep what happened."""
    checkpoint = Path(sys.argv[1]) if len(sys.argv) > 1 else embedded_checkpoint_path()
    schemes = [scheme for scheme, targets in SCHEMES.items() if "tflite" in targets]
    output = tables.WORK / "oldest-runtime"
    shutil.rmtree(output, ignore_errors=True)
    options = ("--target", "tflite", "--via", "torch,tensorflow", "--quantize", ",".join(schemes))
    options += tables.one_length(checkpoint)
    exported = tables.edgekit("export", checkpoint, *options, "--eval-samples", "100", "-o", output)
    python = old_environment()
    rows = [measure(python, outcome) for outcome in exported]
    document = {"command": COMMAND, "date": datetime.date.today().isoformat(), "runtime": VERSION, "rows": rows}
    RESULT.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    for row in rows:
        print(f"{row['file']}: {row['result']}")


def old_environment() -> Path:
    """The python of an environment with the old runtime, made if it is not there."""
    folder = tables.WORK / f"tflite-runtime-{VERSION}"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([PYTHON, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", f"tflite-runtime=={VERSION}", "numpy<2"], check=True)
    return python


def measure(python: Path, outcome: dict[str, Any]) -> dict[str, str]:
    """Run one exported file on the old runtime; its row says from which version it runs, or why not."""
    row = {"file": f"{outcome['scheme']}-via-{outcome['via']}"}
    bundle = open_bundle(tables.ROOT / outcome["bundle"])
    try:
        wrong = run_old(python, bundle)
    except RunnerError as error:
        return row | {"result": f"newer than {VERSION}: {error}"}
    return row | {"result": f"newer than {VERSION}: {wrong}" if wrong else VERSION}


def run_old(python: Path, bundle: Bundle) -> str:
    """Replay the golden steps in the old environment; return what is wrong with the outputs, "" where nothing is.

    Raises RunnerError where the runtime refuses the file.
    """
    outputs, job = bundle.path.with_suffix(".npz"), bundle.path.with_suffix(".json")
    fields = {"schema": 1, "runtime": "tflite-runtime", "model": str(bundle.model_path.absolute())}
    paths = {"steps": str(bundle.golden_path.absolute()), "outputs": str(outputs), "num_threads": 1}
    job.write_text(json.dumps(fields | paths))
    argv = [python, "-m", "runner", job]
    run = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tables.ROOT / "devices")
    events = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    if run.returncode != 0:
        said = next((event["message"] for event in events if event["event"] == "error"), f"exit {run.returncode}")
        raise RunnerError(" ".join(said.split()).split(". ")[0])
    tolerance = tolerance_of([bundle.manifest.scheme])
    golden, produced = read_golden(bundle.golden_path), read_golden(outputs)
    parity = compare_outputs(golden, produced, tolerance.relative, tolerance.labels_changed)
    if parity.verdict == "within-tolerance":
        return ""
    return f"it answers wrongly (|Δ| {parity.max_abs_difference:.2g}, tolerance {parity.tolerance:.2g})"


if __name__ == "__main__":
    main()
