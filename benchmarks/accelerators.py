"""Every accelerator path that runs on a machine without accelerators, beside the same file on the CPU.

python benchmarks/accelerators.py            all rows, into the README
python benchmarks/accelerators.py --check    one row again, compared with the saved one (what CI runs)

The embedded model's bundles, each run in turns A B A B with its own runtime's CPU. The GPU is SwiftShader, the NPUs are
QNN's simulator of Qualcomm's HTP and OpenVINO compiled for the CPU: coverage, outputs and verdicts are what is learned;
the times are those of imitations. Environments that are missing are set up by `edgekit devices setup local`.
"""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import tables

from edgekit.checkpoint import embedded_checkpoint_path
from edgekit.environments import SEPARATE, environment_python
from edgekit.report.markdown import markdown_table

COMMAND = "python benchmarks/accelerators.py"
SWIFTSHADER = "/usr/lib/chromium/vk_swiftshader_icd.json"  # of Debian's chromium-common
HEADERS = [
    "target",
    "scheme",
    "asked for",
    "runtime",
    "ran on",
    "nodes on it",
    "partitions",
    "max |Δ| of the logits",
    "labels changed",
    "verdict",
    "time beside the CPU",
]
GOLDEN_STEPS = 24
QUICK = ("--interleave", "--rounds", "2", "--num-runs", "12", "--min-secs", "0.1", "--max-secs", "12")


@dataclass(frozen=True, kw_only=True)
class Route:
    """One way to run a target on an accelerator; `environ` is added to the environment of that run."""

    target: str
    schemes: tuple[str, ...]
    accelerator: str
    runtime: str
    options: tuple[str, ...] = ()
    environ: tuple[tuple[str, str], ...] = (("VK_ICD_FILENAMES", SWIFTSHADER),)
    remark: str = ""


TFLITE = ("none", "fp16", "int8-dynamic", "int8", "int8-weight")
ONNX = ("none", "fp16", "int8")
NO_DRIVER = (("VK_ICD_FILENAMES", "/nonexistent"),)
CPU_DEVICE = ("--openvino-device", "CPU")
PATHS = (
    Route(target="tflite", schemes=TFLITE, accelerator="gpu", runtime="litert-compiled"),
    Route(
        target="tflite",
        schemes=("none",),
        accelerator="gpu",
        runtime="litert-compiled",
        environ=NO_DRIVER,
        remark="no driver",
    ),
    Route(target="tflite", schemes=TFLITE, accelerator="npu", runtime="litert-openvino", options=CPU_DEVICE),
    Route(target="tflite", schemes=("none",), accelerator="npu", runtime="litert-openvino", remark="no driver"),
    Route(target="onnx", schemes=ONNX, accelerator="npu", runtime="onnxruntime-qnn"),
    Route(target="onnx", schemes=ONNX, accelerator="npu", runtime="onnxruntime-openvino", options=CPU_DEVICE),
    Route(target="onnx", schemes=ONNX, accelerator="gpu", runtime="onnxruntime-webgpu"),
)
CHECKED = replace(PATHS[0], schemes=("fp16",))


def main() -> None:
    """Measure, save and print; with --check exit with 1 where a row is not as saved."""
    if "--check" in sys.argv:
        check_one_row()
        return
    set_up_environments()
    bundles = export({"tflite": TFLITE, "onnx": ONNX})
    rows = [row for path in PATHS for row in measure(path, bundles)]
    tables.save_result("accelerators", COMMAND, rows)
    put_table(rows)


def put_table(rows: list[dict[str, Any]]) -> None:
    """Write the table into the README."""
    note = (
        f"Made by `{COMMAND}`: the embedded model, {GOLDEN_STEPS} texts. The GPU is SwiftShader (software), Qualcomm's "
        "NPU its x86_64 simulator, Intel's OpenVINO compiled for the CPU: **coverage, outputs and verdicts are real, "
        "times are those of imitations**. Not run for want of hardware: any real GPU or NPU, NNAPI on a phone, a Coral "
        "Edge TPU, Core ML on an Apple device.\n\n"
    )
    note += "\n".join(f"- {reason}" for reason in reasons(rows))
    tables.put_in_readme("accelerators", markdown_table(HEADERS, [as_cells(row) for row in rows]), note)


def reasons(rows: list[dict[str, Any]]) -> list[str]:
    """Why rows fell back, failed, or answered wrongly, in the words of their evidence."""
    said = []
    for row in rows:
        if why := row.get("error") or (row["evidence"] if row["verdict"] in ("fell-back", "wrong-output") else ""):
            what = f"{row['target']} {row['scheme']}, {row['runtime']}{', ' if row['remark'] else ''}{row['remark']}"
            said.append(f"{what}: {why.partition('could not be run')[2].lstrip(': ') or why}")
    return said


def check_one_row() -> None:
    """Measure one row again: what it ran on, how many nodes, and what came out must be as saved."""
    saved = tables.load_result("accelerators")["rows"]
    row = measure(CHECKED, export({CHECKED.target: CHECKED.schemes}))[0]
    was = next(each for each in saved if all(each[name] == row[name] for name in ("target", "scheme", "runtime")))
    same = ("actual", "nodes", "nodes_on_accelerator", "parity", "used")
    differences = [f"{name}: {was[name]} is now {row[name]}" for name in same if was[name] != row[name]]
    if differences:
        raise SystemExit(f"a saved row of accelerators.json no longer holds: {'; '.join(differences)}")


def set_up_environments() -> None:
    """Make the environments of provider packages that this machine lacks."""
    missing = [name for name in SEPARATE if environment_python(name) is None]
    if missing:
        tables.edgekit("devices", "setup", "local", "--runtime", ",".join(missing))


def export(wanted: dict[str, tuple[str, ...]]) -> Path:
    """The folder with the embedded model's bundles of these targets and schemes."""
    for target, schemes in wanted.items():
        options = ("--target", target, "--quantize", ",".join(schemes), "--eval-samples", str(GOLDEN_STEPS))
        tables.export_rows(f"accelerators-{target}", embedded_checkpoint_path(), *options)
    return tables.WORK


def measure(path: Route, work: Path) -> list[dict[str, Any]]:
    """A row for each scheme of a path."""
    rows = []
    for scheme in path.schemes:
        bundle = work / f"accelerators-{path.target}" / f"language-id.{path.target}-{scheme}.edgekit"
        print(f"{path.target} {scheme} {path.accelerator} {path.runtime} {path.remark}", file=sys.stderr, flush=True)
        row = {"target": path.target, "scheme": scheme, "accelerator": path.accelerator, "runtime": path.runtime}
        rows.append(row | {"remark": path.remark} | run(path, bundle))
    return rows


def run(path: Route, bundle: Path) -> dict[str, Any]:
    """Bench a bundle on the CPU and on the accelerator in turns; what of it is kept."""
    os.environ.update(path.environ)
    accelerators = ("--accelerator", f"cpu,{path.accelerator}", "--runtime", path.runtime)
    cpu, other = tables.edgekit("bench", bundle, *accelerators, *path.options, *QUICK, "--cold-starts", "0")["outcomes"]
    made = other["measurement"]
    if made is None:
        return {
            "error": " ".join(other["error"].split()),
            "used": False,
            "parity": "not-run",
            "actual": "",
            "nodes": None,
        }
    covered, parity = made["coverage"], made["parity"]
    return {
        "actual": covered["actual"],
        "nodes": covered["nodes"],
        "nodes_on_accelerator": covered["nodes_on_accelerator"],
        "partitions": covered["partitions"],
        "left_behind": covered["left_behind"],
        "max_abs_difference": parity["max_abs_difference"],
        "labels_changed": parity["labels_changed"],
        "steps": parity["steps"],
        "parity": parity["verdict"],
        "verdict": made["verdict"],
        "used": made["verdict"] != "fell-back",
        "evidence": made["evidence"][0],
        "ratio": spent(made) / spent(cpu["measurement"]) if cpu["measurement"] else None,
    }


def spent(made: dict[str, Any]) -> float:
    """The median time of one inference with its transfers: on an accelerator reading is part of the run."""
    samples = made["samples"]
    return median(run + move for run, move in zip(samples["latency_ms"], samples["transfer_ms"], strict=True))


def as_cells(row: dict[str, Any]) -> list[str]:
    """A row as the README shows it."""
    asked = f"{row['accelerator']}{', ' if row['remark'] else ''}{row['remark']}"
    first = [row["target"], row["scheme"], asked, row["runtime"]]
    if "error" in row:
        crash = "SIGSEGV" if "SIGSEGV" in row["error"] else "failed"
        return [*first, "–", "–", "–", "–", "–", f"**{crash}**", "–"]
    nodes = "–" if row["nodes"] is None else f"{row['nodes_on_accelerator']} of {row['nodes']}"
    bad = row["verdict"] in ("fell-back", "wrong-output")
    # whether other programs disturbed the times is no finding about an accelerator
    verdict = f"**{row['verdict']}**" if bad else "valid"
    return [
        *first,
        row["actual"],
        nodes,
        "–" if row["partitions"] is None else str(row["partitions"]),
        f"{row['max_abs_difference']:.1e}",
        f"{row['labels_changed']} of {row['steps']}",
        verdict,
        f"{row['ratio']:.3g} ×" if row["used"] and row["ratio"] else "–",
    ]


if __name__ == "__main__":
    main()
