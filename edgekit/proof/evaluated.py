"""Core ML packages that write, where there is no Core ML: edgekit's evaluator behind the loop of the runner.

`python -P -m edgekit.proof.evaluated JOB.json` takes the runner's jobs of the operation `generate`.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.devices.runner.__main__ import main
from edgekit.devices.runner.backend import Backend, Call, Port, Runtime, Signature, nothing
from edgekit.devices.runner.failures import RunError
from edgekit.devices.runner.job import RunnerJob
from edgekit.mil.__main__ import described_ports, run_step
from edgekit.mil.evaluator import load_evaluator
from edgekit.mil.failures import MilError
from edgekit.mil.package import hide_frameworks


class EvaluatedBackend(Backend):
    """A package in the evaluator: its states are inputs and outputs of every call."""

    def __init__(self, path: Path) -> None:
        self._evaluator = load_evaluator(path)
        self.version = "edgekit's evaluator"
        self.signatures = {name: _signature(self._evaluator, name) for name in self._evaluator.inputs}

    def prepare(self, signature: str, inputs: dict[str, Any]) -> Call:
        """Evaluate the function."""
        return Call(nothing, partial(run_step, self._evaluator, inputs, signature), lambda outputs: outputs)


def _signature(evaluator: Any, function: str) -> Signature:
    inputs, outputs = (
        {name: Port(port.dtype, port.shape) for name, port in ports.items()}
        for ports in described_ports(evaluator, function)
    )
    return Signature(inputs, outputs)


def load(runtime: None, job: RunnerJob) -> Backend:
    """Load a package; raises RunError for what the evaluator refuses."""
    try:
        return EvaluatedBackend(Path(job.model))
    except MilError as error:
        raise RunError(error.kind, str(error)) from error


if __name__ == "__main__":
    hide_frameworks()
    sys.exit(main(sys.argv[1:], lambda job: Runtime(sys.modules[__name__], None)))
