"""Real conversions of one tiny checkpoint, each made once per test session in a real worker process."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgekit.checkpoint import Checkpoint
from edgekit.export.jobs import Job, JobResult, read_result, write_job
from edgekit.export.targets import TARGETS
from edgekit.model.rewrites import rewrite_signature
from edgekit.program import Framework, Signature
from edgekit.proof.golden import Golden, fit_inputs, read_golden, text_steps, write_golden
from edgekit.proof.replay import runner_module
from edgekit.sources.checkpoint import SIGNATURE, checkpoint_source, encoder_signature

SIX = [(target, framework) for target in ("tflite", "onnx", "coreml") for framework in ("torch", "tensorflow")]
REFERENCES = [("savedmodel", "tensorflow"), ("pt2", "torch")]
LENGTH = 12


def run_worker(job: Job, *, cwd: Path, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """Run a job as the pipeline does: hashes fixed, the file system's own `numpy.py` out of reach."""
    path = Path(f"{job.result}.job")
    write_job(job, path)
    return subprocess.run(
        [sys.executable, "-P", "-m", "edgekit.export.worker", str(path)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=cwd,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        check=False,
    )


def run_runner(job: dict[str, object], folder: Path, *, cwd: Path | None = None) -> tuple[int, list[dict[str, object]]]:
    """Run the on-device runner on this host (the evaluator for Core ML); return its exit code and events."""
    path = folder / "runner-job.json"
    path.write_text(json.dumps(job))
    argv = [sys.executable, "-P", "-m", runner_module(str(job["runtime"])), str(path)]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd=cwd or folder, check=False)
    return run.returncode, [json.loads(line) for line in run.stdout.splitlines()]


@dataclass
class Routes:
    """Makes each file when it is first asked for, and keeps it."""

    folder: Path
    checkpoint: Checkpoint
    _made: dict[str, tuple[Path, JobResult]] = field(default_factory=dict)
    _replayed: dict[Path, Golden] = field(default_factory=dict)

    def convert(
        self,
        target: str,
        framework: Framework,
        scheme: str = "none",
        name: str = "",
        signatures: tuple[Signature, ...] = (),
    ) -> tuple[Path, JobResult]:
        """The file of a route in a scheme, and what the worker answered."""
        key = name or f"{target}-{framework}-{scheme}"
        if key not in self._made:
            output = self._folder(key) / TARGETS[target].file
            fields = {"op": "convert", "source": self.source(framework), "target": target, "scheme": scheme}
            fields["signatures"] = signatures
            self._made[key] = (output, self._work(key, fields | {"output": str(output), "length": LENGTH}))
        return self._made[key]

    def rewrite(self, target: str, framework: Framework, rewrites: tuple[str, ...]) -> tuple[Path, Path]:
        """The float32 file of a route with `rewrites`, and the steps as it takes them."""
        key = "+".join((f"{target}-{framework}", *rewrites))
        if key not in self._made:
            output = self._folder(key) / TARGETS[target].file
            fields = {"op": "convert", "source": self.source(framework), "target": target, "rewrites": rewrites}
            self._made[key] = (output, self._work(key, fields | {"output": str(output), "length": LENGTH}))
        signature = rewrite_signature(encoder_signature(self.checkpoint, framework, LENGTH), rewrites)
        steps = self.folder / f"{key}.npz"
        given = read_golden(self.steps())
        write_golden(steps, replace(given, steps=fit_inputs(given.steps, signature)))
        return self._made[key][0], steps

    def compress(self, target: str, framework: Framework) -> tuple[Path, JobResult]:
        """The float32 file of a route made fp16 by a job of its own."""
        key = f"{target}-{framework}-compressed"
        if key not in self._made:
            source, _ = self.convert(target, framework)
            output = self._folder(key) / TARGETS[target].file
            fields = {"op": "compress", "target": target, "scheme": "fp16", "input": str(source)}
            self._made[key] = (output, self._work(key, fields | {"output": str(output)}))
        return self._made[key]

    def golden(self, framework: Framework) -> Golden:
        """The source module's own outputs for the steps."""
        key = f"golden-{framework}"
        if key not in self._made:
            output = self._folder(key) / "golden.npz"
            fields = {"op": "reference", "source": self.source(framework), "steps": str(self.steps())}
            self._made[key] = (output, self._work(key, fields | {"output": str(output), "length": LENGTH}))
        return read_golden(self._made[key][0])

    def replay(self, model: Path, target: str, steps: Path | None = None) -> Golden:
        """The outputs of a file for the steps, through the runner."""
        if model not in self._replayed:
            outputs = model.parent / "outputs.npz"
            job = {
                "schema": 1,
                "runtime": TARGETS[target].runtime,
                "model": str(model),
                "steps": str(steps or self.steps()),
            }
            code, events = run_runner(job | {"outputs": str(outputs)}, model.parent)
            assert code == 0, events
            assert [event["event"] for event in events] == ["loaded", "done"]
            self._replayed[model] = read_golden(outputs)
        return self._replayed[model]

    def steps(self) -> Path:
        """Twelve rows of random ids, from one token to no padding at all."""
        path = self.folder / "steps.npz"
        if not path.exists():
            generator = np.random.default_rng(0)
            ids = generator.integers(3, self.checkpoint.config.vocab_size, (LENGTH, LENGTH)).astype(np.int32)
            mask = np.tril(np.ones((LENGTH, LENGTH), np.int32))
            steps = text_steps({"ids": ids * mask, "mask": mask}, SIGNATURE)
            write_golden(path, Golden(steps=steps, labels=np.arange(LENGTH, dtype=np.int32)))
        return path

    def source(self, framework: Framework) -> object:
        """The checkpoint, to be built in `framework`."""
        return checkpoint_source(self.checkpoint.path, framework)

    def _folder(self, key: str) -> Path:
        folder = self.folder / key
        folder.mkdir()
        return folder

    def _work(self, key: str, fields: dict[str, object]) -> JobResult:
        job = Job.model_validate(fields | {"result": str(self.folder / f"{key}.json")})
        run = run_worker(job, cwd=self.folder)
        result = read_result(Path(job.result))
        assert result is not None, f"{run.returncode}: {run.stderr}"
        assert result.ok, f"{result.error}\n{run.stderr}"
        assert run.returncode == 0
        assert run.stdout == ""
        return result
