"""`python -P -m edgekit.mil JOB.json`: evaluate a package on steps, in a process of its own.

It takes the jobs and gives the events of the runner on devices (runtime "coreml"), so that edgekit handles both alike:
JSON lines on standard output, {"schema": 1, "event": "loaded" | "done" | "error", ...}; exit code 0, 2 for a job that
is none, 3 with an error event. A job may name a `precision`, as the evaluator knows them, and with `random_steps` the
process writes that many steps of random inputs to the file `steps` before it reads them.
"""

import json
import os
import sys
import threading
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any, TextIO, get_args

SCHEMA = 1
_SIGNATURE = "serving_default"  # edgekit's name for the only entry of a file, everywhere
_FIELDS = {
    "schema": int,
    "runtime": str,
    "model": str,
    "steps": str,
    "outputs": str,
    "num_threads": int,
    "die_with_parent": bool,
    "precision": str,
    "random_steps": int,
}
_REQUIRED = ("runtime", "model", "steps", "outputs")


def main(arguments: list[str]) -> int:
    """Run the job whose file is the only argument; return the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -P -m edgekit.mil JOB.json\n")
        return 2
    from edgekit.mil.failures import MilError, first_line
    from edgekit.mil.package import hide_frameworks

    hide_frameworks()
    events = _keep_stdout_for_events()
    try:
        job = _read_job(arguments[0])
        if job.get("die_with_parent"):
            threading.Thread(target=_end_with_stdin, name="parent-watch", daemon=True).start()
        _run(job, events)
    except MilError as failure:
        _emit(events, "error", kind=failure.kind, message=str(failure))
        return 2 if failure.kind == "bad-job" else 3
    except (OSError, MemoryError) as error:
        _emit(events, "error", kind="run-failed", message=first_line(error))
        return 3
    return 0


def _run(job: dict[str, Any], events: TextIO) -> None:
    import numpy as np

    from edgekit.mil.evaluator import holds_float16, load_evaluator, operation_kinds

    steps = {} if job.get("random_steps") else _read_steps(job["steps"])
    started = time.monotonic()
    evaluator = load_evaluator(Path(job["model"]), precision=job.get("precision", "program"))
    _emit(
        events,
        "loaded",
        runtime=job["runtime"],
        version=f"edgekit's evaluator, numpy {np.__version__}",
        signatures=_described(evaluator),
        operations=dict(Counter(operation_kinds(evaluator))),
        float16=holds_float16(evaluator),
        load_s=round(time.monotonic() - started, 4),
    )
    if job.get("random_steps"):
        steps = _write_random_steps(evaluator, job["random_steps"], job["steps"])
    started = time.monotonic()
    outputs: dict[str, Any] = {}
    non_finite: dict[str, int] = {}
    for (number, signature), inputs in steps.items():
        function = "" if list(evaluator.inputs) == [""] else signature
        for name, value in run_step(evaluator, inputs, function).items():
            outputs[f"{number}/{signature}/out/{name}"] = value
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                non_finite[name] = non_finite.get(name, 0) + int(np.count_nonzero(~np.isfinite(value)))
    new = Path(f"{job['outputs']}.new")
    with new.open("wb") as stream:
        np.savez(stream, **outputs)
    new.replace(job["outputs"])
    run_s = round(time.monotonic() - started, 4)
    _emit(events, "done", steps=len(steps), run_s=run_s, non_finite=non_finite)


def run_step(evaluator: Any, inputs: dict[str, Any], function: str) -> dict[str, Any]:
    """Call a function; what is given for a state is written to it first, and what it holds then is an output.

    A state `past_key_values…` comes out as `present…`, as in files that take their states as inputs.
    """
    states = evaluator.states.get(function, {})
    for name in states:
        if name in inputs:
            evaluator.write_state(name, inputs[name])
    outputs = evaluator.run({name: value for name, value in inputs.items() if name not in states}, function)
    return {**outputs, **{present_name(name): evaluator.read_state(name) for name in states if name in inputs}}


def present_name(state: str) -> str:
    """The output that replaces a state in the next call, by the state's name."""
    return state.replace("past_key_values", "present", 1)


def described_ports(evaluator: Any, function: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and outputs of a function, states among both."""
    states = evaluator.states[function]
    after = {present_name(name): port for name, port in states.items()}
    return {**evaluator.inputs[function], **states}, {**evaluator.outputs[function], **after}


def _described(evaluator: Any) -> dict[str, Any]:
    return {
        name: {
            side: {port: {"dtype": p.dtype, "shape": list(p.shape)} for port, p in ports.items()}
            for side, ports in zip(("inputs", "outputs"), described_ports(evaluator, name), strict=True)
        }
        for name in evaluator.inputs
    }


def _read_job(path: str) -> dict[str, Any]:
    from edgekit.mil.failures import MilError
    from edgekit.mil.values import Precision

    try:
        job = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MilError("bad-job", f"can't read the job {path}: {error}") from error
    if not isinstance(job, dict) or job.get("schema") != SCHEMA:
        raise MilError("bad-job", f"the job is not of schema {SCHEMA}")
    for name, value in job.items():
        if name not in _FIELDS or type(value) is not _FIELDS[name]:
            raise MilError("bad-job", f"the job's field {name!r} is unknown or of the wrong type")
    for name in _REQUIRED:
        if name not in job:
            raise MilError("bad-job", f"the job lacks {name!r}")
    if job["runtime"] != "coreml":
        raise MilError("bad-job", f"edgekit.mil evaluates coreml, not {job['runtime']!r}")
    if job.get("precision", "program") not in get_args(Precision):
        raise MilError("bad-job", f"the precision {job['precision']!r} is not one of {', '.join(get_args(Precision))}")
    return job


def _read_steps(path: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The inputs of each (step, signature), in order; all other keys are passed over."""
    import numpy as np

    from edgekit.mil.failures import MilError

    found: dict[tuple[str, str], dict[str, Any]] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                parts = key.split("/", 3)
                if len(parts) == 4 and parts[0].isdigit() and parts[2] == "in":
                    found.setdefault((parts[0], parts[1]), {})[parts[3]] = archive[key]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise MilError("bad-input", f"can't read the steps {path}: {error}") from error
    if not found:
        raise MilError("bad-input", f"{path} holds no step")
    return dict(sorted(found.items()))


def _write_random_steps(evaluator: Any, count: int, path: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Steps of the first function, written where a runner reads steps from."""
    import numpy as np

    from edgekit.mil.samples import random_inputs

    function = next(iter(evaluator.inputs))
    steps = {(f"{seed:05d}", function or _SIGNATURE): random_inputs(evaluator, function, seed) for seed in range(count)}
    arrays: dict[str, Any] = {
        f"{number}/{name}/in/{key}": v for (number, name), given in steps.items() for key, v in given.items()
    }
    with Path(path).open("wb") as stream:
        np.savez(stream, **arrays)
    return steps


def _emit(events: TextIO, event: str, **fields: Any) -> None:
    events.write(json.dumps({"schema": SCHEMA, "event": event, **fields}) + "\n")
    events.flush()


def _keep_stdout_for_events() -> TextIO:
    """Give events a standard output of their own: what libraries print goes to standard error."""
    sys.stdout.flush()
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
