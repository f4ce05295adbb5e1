"""Runs an exported file through `devices/runner` on this host: the same code that runs on a device.

Core ML runs on Apple systems only: elsewhere `edgekit.mil` evaluates its programs, in a process of the same protocol.
"""

import importlib.util
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.environments import environment_python
from edgekit.errors import RunnerError
from edgekit.processes import run_process
from edgekit.proof.golden import Golden, read_golden
from edgekit.proof.runner_events import Event, check_run, find_event, job_text, parse_event

OnEvent = Callable[[Event], None]
#: what a manifest says of a file that was evaluated instead of run
EVALUATED = (
    "evaluated on Linux by edgekit, not on Apple hardware: every value rounded to the type that the program declares, "
    "products summed in float32. A device may sum in another order or precision, for which the tolerance leaves room"
)
NOWHERE = "vela"  # the runtime of what Vela compiled
#: runtime of compiled files → the environment that has it
ELSEWHERE = {"qnn-simulator": "onnxruntime-qnn", "litert-openvino": "litert-openvino"}


def is_evaluated(runtime: str) -> bool:
    """Whether this system has no such runtime, and edgekit evaluates the file itself."""
    return runtime == "coreml" and sys.platform != "darwin"


def runner_module(runtime: str, operation: object = None) -> str:
    """The module that runs files of this runtime as a process; texts are written by the runner's own loop."""
    if not is_evaluated(runtime):
        return "edgekit.devices.runner"
    return "edgekit.proof.evaluated" if operation == "generate" else "edgekit.mil"


def _start(runtime: str, job: Path, operation: object) -> tuple[list[str], dict[str, str]]:
    """How the runner is started for a runtime: the command, and what is added to its environment."""
    if runtime == NOWHERE:
        raise RunnerError("no such file runs here: it is for Ethos-U, in a microcontroller")
    if runtime not in ELSEWHERE:
        return [sys.executable, "-P", "-m", runner_module(runtime, operation), str(job)], {}
    name = ELSEWHERE[runtime]
    python = environment_python(name)
    if python is None:
        message = f"such files need {name}, which is not set up here: edgekit devices setup local --runtime {name}"
        raise RunnerError(message)
    found = importlib.util.find_spec("edgekit.devices.runner")
    start = Path(str(found.origin if found else "")).with_name("start.py")
    # the plugin of ai-edge-litert 2.3.0 opens OpenVINO by name: the loader must know the folder from the beginning
    libraries = ":".join(map(str, python.parent.parent.glob("lib/python*/site-packages/openvino/libs")))
    return [str(python), str(start), str(job)], {"LD_LIBRARY_PATH": libraries} if libraries else {}


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What the runner answered: the outputs of each step, and the event that it reported for the loaded file."""

    produced: Golden
    loaded: dict[str, Any]


def replay_steps(
    model: Path, runtime: str, steps: Path, *, num_threads: int = 1, timeout_s: float = 900, random_steps: int = 0
) -> Replay:
    """Load `model` in a fresh process and feed it the inputs of every step of the file `steps`.

    With `random_steps`, that many steps are drawn first and written to `steps`: for what edgekit evaluates only.
    Raises RunnerError: the runtime is missing, refuses the file, crashes, or hangs.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-replay-") as folder:
        outputs = Path(folder) / "outputs.npz"
        fields: dict[str, Any] = {"steps": str(steps.absolute()), "outputs": str(outputs)}
        fields |= {"random_steps": random_steps} if random_steps else {}
        events = run_job(model, runtime, Path(folder), timeout_s=timeout_s, num_threads=num_threads, **fields)
        return Replay(produced=read_golden(outputs), loaded=find_event(events, "loaded"))


def run_job(
    model: Path,
    runtime: str,
    folder: Path,
    *,
    timeout_s: float,
    num_threads: int = 1,
    on_event: OnEvent | None = None,
    **fields: object,
) -> list[Event]:
    """Run a job on `model` in a fresh process in `folder`, which is empty; its events, each also told as it comes.

    Raises RunnerError: the runtime is missing, refuses the file, crashes, or hangs.
    """
    job = folder / "job.json"
    events: list[Event] = []
    common: dict[str, object] = {
        "runtime": runtime,
        "model": str(model.absolute()),
        "num_threads": num_threads,
        "die_with_parent": True,
    }
    common |= {"accelerator": "npu"} if runtime in ELSEWHERE else {}
    common |= {"openvino_device": "CPU"} if runtime == "litert-openvino" else {}
    job.write_text(job_text(**common, **fields))

    def take(line: str) -> None:
        if event := parse_event(line):
            events.append(event)
            if on_event:
                on_event(event)

    argv, added = _start(runtime, job, fields.get("operation"))
    env = added | {"TF_CPP_MIN_LOG_LEVEL": "3", "OPENBLAS_NUM_THREADS": str(num_threads)}  # numpy's, in edgekit.mil
    run = run_process(argv, timeout_s=timeout_s, cwd=folder, env=env, on_line=take)
    check_run(model.name, run, events)
    return events
