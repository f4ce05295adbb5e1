"""One process of one of the runtimes' own tools or loops; started by fidelity.py.

Reads {"peer", "model", "golden", "num_threads", "num_runs"} as JSON on standard input, writes ms of each run as JSON.
"""

import json
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import numpy as np

WARMUP_RUNS = 200


def litert_benchmark(job: dict[str, Any]) -> list[float]:
    """`litert-benchmark` of the wheel, its code unchanged but for two things that it can't be told on its command line.

    It is fed the tokens instead of random ids, and the times that it computes its statistics of are kept: its own
    report rounds them to 0.01 ms.
    """
    import statistics

    from ai_edge_litert.tools import benchmark_litert_model as tool

    inputs, kept = read_inputs(job), []
    names = iter(inputs)

    def fill(buffer: Any, details: Any) -> None:
        buffer.write(inputs[next(names)])

    def median(values: list[float]) -> float:
        kept.extend(values)
        return statistics.median(values)

    tool.fill_random_input = fill
    tool.statistics = types.SimpleNamespace(mean=statistics.mean, median=median, stdev=statistics.stdev)
    options = (f"--num_runs={job['num_runs']}", f"--warmup_runs={WARMUP_RUNS}", f"--num_threads={job['num_threads']}")
    sys.argv = ["litert-benchmark", f"--model={job['model']}", *options]
    tool.run_benchmark(tool.parse_args())
    return kept


def litert_loop(job: dict[str, Any]) -> list[float]:
    """Interpreter: tensors set once, then invoke."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=job["model"], num_threads=job["num_threads"])
    interpreter.allocate_tensors()
    inputs = read_inputs(job)
    named = Interpreter(model_path=job["model"]).get_signature_runner().get_input_details()
    for name, detail in named.items():
        interpreter.set_tensor(detail["index"], inputs[name])
    return timed(interpreter.invoke, job)


def onnxruntime_loop(job: dict[str, Any]) -> list[float]:
    """InferenceSession.run for all outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["num_threads"]
    session = onnxruntime.InferenceSession(job["model"], options, providers=["CPUExecutionProvider"])
    inputs = read_inputs(job)
    return timed(lambda: session.run(None, inputs), job)


def timed(run: Callable[[], Any], job: dict[str, Any]) -> list[float]:
    """The loop that everybody writes."""
    for _ in range(WARMUP_RUNS):
        run()
    times = []
    for _ in range(job["num_runs"]):
        started = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - started))
    return times


def read_inputs(job: dict[str, Any]) -> dict[str, Any]:
    """The tokens of the first golden step."""
    with np.load(job["golden"], allow_pickle=False) as golden:
        parts = {key: key.split("/", 3) for key in golden.files}
        return {p[3]: golden[key] for key, p in parts.items() if p[0] == "00000" and p[2] == "in"}


PEERS = {
    "litert-benchmark": litert_benchmark,
    "plain loop of Interpreter.invoke": litert_loop,
    "plain loop of InferenceSession.run": onnxruntime_loop,
}

if __name__ == "__main__":
    given = json.load(sys.stdin)
    print("\n" + json.dumps(PEERS[given["peer"]](given)))
