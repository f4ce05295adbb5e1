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
ALONE = ("--num-runs", "12", "--min-secs", "0.1", "--max-secs", "12", "--cold-starts", "0")
QUICK = ("--interleave", "--rounds", "2", *ALONE)


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
    Route(
        target="tflite",
        schemes=("none", "int8"),
        accelerator="cpu",
        runtime="litert",
        options=("--no-xnnpack",),
        remark="XNNPACK off",
    ),
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
#: what is compiled before it runs: LiteRT's plugin of QNN, run on the simulator; Vela, which nothing runs here
COMPILED = (("qnn:SM8650", ("none", "int8")), ("ethos-u85-256", ("int8",)))
CHECKED = replace(PATHS[1], schemes=("fp16",))


def main() -> None:
    """Measure, save and print; with --check exit with 1 where a row is not as saved."""
    if "--check" in sys.argv:
        check_one_row()
        return
    set_up_environments()
    bundles = export({"tflite": TFLITE, "onnx": ONNX})
    rows = [row for path in PATHS for row in measure(path, bundles)] + compile_rows(bundles)
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


def compile_rows(work: Path) -> list[dict[str, Any]]:
    """A row for each compiled bundle: what its compiler took, and its outputs on what stands in for the NPU here."""
    rows = []
    for device, schemes in COMPILED:
        bundles = [work / "accelerators-tflite" / f"language-id.tflite-{scheme}.edgekit" for scheme in schemes]
        options = (
            "--for",
            device,
            "-o",
            work / "accelerators-compiled",
            "--force",
            "--eval-samples",
            str(GOLDEN_STEPS),
        )
        for scheme, made in zip(schemes, tables.edgekit("compile", *bundles, *options), strict=True):
            rows.append({"target": "tflite", "scheme": scheme, "accelerator": "npu"} | as_row(device, made))
    return rows


def as_row(device: str, made: dict[str, Any]) -> dict[str, Any]:
    """What of a compiled bundle is kept."""
    row = {"runtime": f"edgekit compile --for {device}", "remark": "", "used": False}
    if made["manifest"] is None:
        return row | {"error": made["error"], "parity": "not-run", "actual": "", "nodes": None}
    compiled, parity = made["manifest"]["compiled"], made["manifest"]["parity"]
    report = compiled["report"]
    return row | {
        "actual": compiled["ran_on"].partition(" (")[0],
        "nodes": report["operators"],
        "nodes_on_accelerator": report["operators_taken"],
        "partitions": report["partitions"],
        "left_behind": report["left"],
        "max_abs_difference": parity["max_abs_difference"],
        "labels_changed": parity["labels_changed"],
        "steps": parity["steps"],
        "parity": parity["verdict"],
        "precision": "",
        "verdict": {"within-tolerance": "valid", "failed": "wrong-output"}.get(parity["verdict"], "not run"),
        "evidence": parity["note"],
        "ratio": None,
    }


def run(path: Route, bundle: Path) -> dict[str, Any]:
    """Bench a bundle on the CPU and on the accelerator in turns; what of it is kept."""
    os.environ.update(path.environ)
    command = ("bench", bundle, "--runtime", path.runtime)
    if path.accelerator == "cpu":  # other kernels of the same processor, which are an option of the whole command
        cpu = tables.edgekit(*command, *ALONE)["outcomes"][0]
        other = tables.edgekit(*command, *path.options, *ALONE)["outcomes"][0]
    else:
        accelerators = ("--accelerator", f"cpu,{path.accelerator}")
        cpu, other = tables.edgekit(*command, *accelerators, *path.options, *QUICK)["outcomes"]
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
        "precision": parity["note"],
        "verdict": made["verdict"],
        "used": made["verdict"] != "fell-back",
        "evidence": made["evidence"][0],
        "ratio": spent(made) / spent(cpu["measurement"]) if cpu["measurement"] else None,
    }


def spent(made: dict[str, Any]) -> float:
    """The median time of one inference with its transfers: on an accelerator reading is part of the run."""
    samples = made["samples"]
    return median(run + move for run, move in zip(samples["latency_ms"], samples["transfer_ms"], strict=True))


def in_words(row: dict[str, Any]) -> str:
    """The verdict; whether other programs disturbed the times (noisy) is no finding about an accelerator."""
    if row["verdict"] in ("fell-back", "wrong-output"):
        return f"**{row['verdict']}**"
    if row["verdict"] == "not run":
        return "not run here"
    return "valid, in half precision" if "half precision" in row["precision"] else "valid"


def as_cells(row: dict[str, Any]) -> list[str]:
    """A row as the README shows it."""
    asked = f"{row['accelerator']}{', ' if row['remark'] else ''}{row['remark']}"
    first = [row["target"], row["scheme"], asked, row["runtime"]]
    if "error" in row:
        crash = "SIGSEGV" if "SIGSEGV" in row["error"] else "failed"
        return [*first, "–", "–", "–", "–", "–", f"**{crash}**", "–"]
    nodes = "–" if row["nodes"] is None else f"{row['nodes_on_accelerator']} of {row['nodes']}"
    return [
        *first,
        row["actual"] or "–",
        nodes,
        "–" if row["partitions"] is None else str(row["partitions"]),
        "–" if row["max_abs_difference"] is None else f"{row['max_abs_difference']:.1e}",
        "–" if row["labels_changed"] is None else f"{row['labels_changed']} of {row['steps']}",
        in_words(row),
        f"{row['ratio']:.3g} ×" if row["used"] and row["ratio"] else "–",
    ]


if __name__ == "__main__":
    main()
