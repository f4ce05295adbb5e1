"""A stand-in for Google's benchmark_model, which is on no registry: it takes its options, really runs the file on the
inputs in the value files, really writes the outputs, and prints in its format (recorded in OUTPUT).

What it is to lack or do wrong is in TOOL_MODE, words separated by commas: old (no --output_filepath and no
--signature_to_run_for), no-values, gpu-fails, truncated, segv, wrong. It runs on the CPU whatever is asked for, and
exits with 0, as Google's does with --use_nnapi=true.
"""

import sys
from pathlib import Path

OUTPUT = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Num threads: [1]
INFO: Graph: [model.tflite]
INFO: Loaded model model.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
VERBOSE: Replacing 6 out of 6 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions for subgraph 0.
INFO: The input model file size (MB): 0.008464
INFO: Initialized session in 69.34ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=52 first=12960 curr=9421 min=9118 max=12960 avg=9630 std=612 p5=9200 median=9580 p95=10800
INFO: Running benchmark for at least 20 iterations and at least 0.1 seconds but terminate if exceeding 150 seconds.
INFO: count=20 first=7766 curr=6701 min=6253 max=8219 avg=6904.1 std=477 p5=6334 median=6724 p95=8219
INFO: Inference timings in us: Init: 69340, First inference: 12960, Warmup (avg): 9630, Inference (avg): 6904.1
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual \
memory footprint of the model at runtime. Take the information at your discretion.
INFO: Memory footprint delta from the start of the tool (MB): init=3.26172 overall=5.53125
"""
#: as --help prints it, shortened to what is used
HELP = """\
usage: benchmark_model
Flags:
\t--num_runs=50                           \tint32\toptional\texpected number of runs, see also min_secs, max_secs
\t--min_secs=1                            \tfloat\toptional\tminimum number of seconds to rerun for
\t--max_secs=150                          \tfloat\toptional\tmaximum number of seconds to rerun for
\t--num_threads=-1                        \tint32\toptional\tnumber of threads
\t--warmup_runs=1                         \tint32\toptional\tminimum number of runs performed on initialization
\t--warmup_min_secs=0.5                   \tfloat\toptional\tminimum number of seconds to rerun for
\t--graph=                                \tstring\trequired\tgraph file name
\t--input_layer=                          \tstring\toptional\tinput layer names
\t--input_layer_shape=                    \tstring\toptional\tinput layer shape
\t--input_layer_value_files=              \tstring\toptional\tA map-like string representing value file.
\t--enable_op_profiling=false             \tbool\toptional\tenable op profiling
\t--output_filepath=                      \tstring\toptional\tFile path to export outputs layer as binary data.
\t--signature_to_run_for=                 \tstring\toptional\tIf the model contains multiple signatures, use this flag
\t--use_gpu=false                         \tbool\toptional\tuse gpu
\t--use_nnapi=false                       \tbool\toptional\tuse nnapi delegate api
"""
PROFILE = """\
Operator-wise Profiling Info for Regular Benchmark Runs:
====== Run Order ======
\t[node type]\t[start]\t[first]\t[avg ms]\t[%]\t[cdf%]\t[mem KB]\t[times called]\t[Name]
\tCAST\t0.000\t0.002\t0.001\t33.378%\t33.378%\t0.000\t5\t[Builtin]:0
\tDIV\t0.002\t0.003\t0.002\t66.378%\t100.000%\t0.000\t5\t[logits]:2
"""


def write_tool(path: Path) -> Path:
    """Write the stand-in as a program that runs with this Python."""
    source = Path(__file__).read_text(encoding="utf-8")
    path.write_text(f"#!{sys.executable}\n{source}", encoding="utf-8")
    path.chmod(0o755)
    return path


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main(arguments: list[str], mode: set[str]) -> int:
    options = dict(argument.removeprefix("--").split("=", 1) for argument in arguments if "=" in argument)
    if arguments == ["--help"]:
        lacking = {"output_filepath", "signature_to_run_for"} if "old" in mode else set()
        lacking |= {"input_layer_value_files"} if "no-values" in mode else set()
        kept = [line for line in HELP.splitlines() if not any(f"--{name}=" in line for name in lacking)]
        sys.stderr.write("\n".join(kept))  # as it does
        return 1
    if "gpu-fails" in mode:
        say("INFO: STARTING!\nERROR: Can not open OpenCL library on this device")
        say("ERROR: Failed to apply GPU delegate.")
        sys.stderr.write("ERROR: Benchmarking failed.\n")
        return 1
    outputs = run(options)
    if "segv" in mode:
        __import__("ctypes").string_at(0)
    if "output_filepath" in options:
        Path(options["output_filepath"]).write_bytes((outputs + ("wrong" in mode)).astype("<f4").tobytes())
    lines = OUTPUT.splitlines()
    say("\n".join(lines[: 11 if "truncated" in mode else None]))
    if options.get("enable_op_profiling") == "true":
        say(PROFILE)
    return 0


def run(options: dict[str, str]):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """Feed the value files by position, as the tool does, and return the only output."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=options["graph"], num_threads=int(options["num_threads"]))
    interpreter.allocate_tensors()
    names, shapes = options["input_layer"].split(","), options["input_layer_shape"].split(":")
    files = dict(item.rsplit(":", 1) for item in options["input_layer_value_files"].split(","))
    for detail, name, shape in zip(interpreter.get_input_details(), names, shapes, strict=True):
        if detail["name"] != name:
            say(f"WARN: Tensor # {detail['index']} is named {detail['name']} but flags call it {name}")
        values = np.fromfile(files[name], dtype=detail["dtype"]).reshape([int(size) for size in shape.split(",")])
        interpreter.set_tensor(detail["index"], values)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


if __name__ == "__main__":
    import os

    sys.exit(main(sys.argv[1:], set(os.environ.get("TOOL_MODE", "").split(","))))
