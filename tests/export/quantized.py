"""Real conversions of one small checkpoint, one per target and route, from which all schemes are made."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from edgekit.checkpoint import Checkpoint, load_checkpoint
from edgekit.export.jobs import Job, JobResult
from edgekit.export.quantize.calibration import choose_calibration
from edgekit.export.schemes import CALIBRATED
from edgekit.export.targets import TARGETS
from edgekit.program import Framework
from tests.export.routes import LENGTH, Routes
from tests.tiny import write_data


def trained_checkpoint(folder: Path, **changes: int) -> Checkpoint:
    """A checkpoint that has learnt its data: random weights amplify the rounding of others as no trained model does."""
    write_data(folder / "data.tsv")
    shape = {"max-length": LENGTH, "hidden-size": 64, "ffn-size": 128, "embedding-size": 32, "num-layers": 2}
    options = shape | {"num-heads": 2, "epochs": 10, "batch-size": 16, "seed": 0, "tokenizer": "byte"} | changes
    argv = [sys.executable, "-P", "-m", "edgekit", "train", "--data", "data.tsv", "-o", "tiny"]
    argv += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    subprocess.run(argv, cwd=folder, check=True, capture_output=True)
    return load_checkpoint(folder / "tiny")


@dataclass
class Quantized:
    """Makes each file when it is first asked for, and keeps it."""

    routes: Routes
    folder: Path
    _made: dict[str, tuple[Path, JobResult]] = field(default_factory=dict)

    @property
    def checkpoint(self) -> Checkpoint:
        return self.routes.checkpoint

    def source(self, target: str, framework: Framework = "torch") -> Path:
        """The float32 file."""
        return self.routes.convert(target, framework)[0]

    def calibration(self) -> Path:
        """Steps of real text."""
        path = self.folder / "calibration.npz"
        if not path.exists():
            choose_calibration(self.checkpoint).write_steps(path)
        return path

    def make(self, target: str, scheme: str, framework: Framework = "torch") -> tuple[Path, JobResult]:
        """The file of a route in a scheme, and what the operation answered; in this process: workers have tests."""
        from edgekit.export.operations import run_job

        key = f"{target}-{framework}-{scheme}"
        if key not in self._made:
            (self.folder / key).mkdir()
            output = self.folder / key / TARGETS[target].file
            job = Job(
                op="compress",
                target=target,  # type: ignore[arg-type]  # checked by pydantic
                scheme=scheme,
                input=str(self.source(target, framework)),
                output=str(output),
                result="",
                calibration=str(self.calibration()) if scheme in CALIBRATED else None,
            )
            self._made[key] = (output, run_job(job))
        return self._made[key]
