"""Measures a bundle with Google's benchmark_model: for phones that have no Python.

The tool keeps its samples to itself and prints their summary: each sample here is the median of one process of it, so
that what differs from process to process is in the interval. Every process is fed the tokens of a real text.
"""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgekit.bundle import Bundle
from edgekit.devices.accelerators import RunPlan
from edgekit.devices.benchmark_model import BenchmarkTool
from edgekit.devices.benchmark_output import ToolOutput, failure_line, parse_flags, parse_output
from edgekit.devices.collected import Collected, OnProgress
from edgekit.devices.coverage import add_time
from edgekit.devices.device import Device
from edgekit.devices.operators import parse_summary
from edgekit.devices.tflite_layout import Layout, read_layouts
from edgekit.errors import ProcessError, RefusedError, RunnerError
from edgekit.measurement import DeviceParity, Settings
from edgekit.program import Signature
from edgekit.proof.golden import Golden, Step, read_golden

#: processes of the tool in one measurement: as many samples as the verdict wants at least
PROCESSES = 10
_OUTPUTS, _SIGNATURE, _VALUES = "output_filepath", "signature_to_run_for", "input_layer_value_files"
_HELP_TIMEOUT_S = 60.0


class ToolSession:
    """One bundle on one device without Python; see `collected.Session`."""

    def __init__(
        self,
        device: Device,
        bundle: Bundle,
        tool: BenchmarkTool,
        plan: RunPlan,
        settings: Settings,
        *,
        grace_s: float,
        say: OnProgress,
    ) -> None:
        self.collected = Collected(runtime_version=f"sha256 {tool.sha256[:12]}")
        self.tool = f"benchmark_model sha256:{tool.sha256}"
        self._device, self._bundle, self._binary, self._settings = device, bundle, tool, settings
        self._accelerator = plan.accelerator
        self._grace_s, self._say = grace_s, say
        self._name = bundle.manifest.model
        self._golden = read_golden(bundle.golden_path)
        self._answers: dict[int, Step] = {}
        _check_settings(settings)

    def place(self) -> None:
        """Bring the tool and the file there, and ask the tool what it can do."""
        self._say("sending")
        mark = self._bundle.manifest.files[self._name].sha256[:16]
        self._layouts = read_layouts(self._bundle.model_path)
        self._program = self._place_tool()
        self._model = self._device.push(self._bundle.model_path, f"{mark}.tflite")
        said = self._help()
        self._flags = parse_flags(said)
        if "graph" not in self._flags:
            why = failure_line(said)
            raise RunnerError(f"{self._binary.path} is no benchmark_model for {self._device.address}: {why}")
        self._check_flags()

    def _place_tool(self) -> str:
        """The path of the tool there; it is brought unless it was there before us."""
        if self._binary.on_device:
            return str(self._binary.path)
        program = self._device.push(self._binary.path, "benchmark_model")
        self._device.run(["chmod", "755", program], timeout_s=_HELP_TIMEOUT_S)
        return program

    def _help(self) -> str:
        """What `--help` prints, or why it can't be started (built for another processor)."""
        try:
            asked = self._device.run([self._program, "--help"], timeout_s=_HELP_TIMEOUT_S)
        except ProcessError as error:
            return str(error)
        return asked.stdout + asked.stderr

    def _check_flags(self) -> None:
        if self._accelerator != "cpu" and f"use_{self._accelerator}" not in self._flags:
            raise RefusedError(f"this benchmark_model has no --use_{self._accelerator}: take another build of it")
        if _VALUES not in self._flags:
            raise RefusedError(f"this benchmark_model has no --{_VALUES}: without it ids are random; take a newer one")
        if len(self._layouts) > 1 and _SIGNATURE not in self._flags:
            raise RefusedError(
                f"{self._name} has {len(self._layouts)} signatures and this benchmark_model can't choose one "
                f"(no --{_SIGNATURE}): take a newer one"
            )

    def cold_start(self) -> None:
        """Nothing of its own: every process of the tool starts cold, and tells what that took."""

    def measure(self, turn: int) -> None:
        """Run the processes of one turn, each on a text of its own, and compare what they answer."""
        count = math.ceil(PROCESSES / self._settings.rounds)
        for number in range(turn * count, (turn + 1) * count):
            step = self._step(number)
            self._take(self._run(step), step, turn)
        self._prove()

    def profile(self) -> None:
        """Run once more with the tool's own profiler."""
        if "enable_op_profiling" not in self._flags:
            raise RefusedError("this benchmark_model has no --enable_op_profiling: leave --op-profile out")
        self._say("profiling operators")
        text = self._call(self._step(0), "--enable_op_profiling=true")
        self.collected.operators = parse_summary(text)
        self.collected.coverage = add_time(self.collected.coverage, self.collected.operators)

    def _step(self, number: int) -> int:
        """Which golden step a process runs: one after the other, or always that of the largest inputs."""
        steps = self._golden.steps
        if self._settings.real_lengths:
            return number % len(steps)
        return max(range(len(steps)), key=lambda i: sum(value.size for value in steps[i].inputs.values()))

    def _run(self, step: int) -> ToolOutput:
        text = self._call(step)
        result = parse_output(text, self._accelerator)
        if result is None:
            where = f"{self._name} was not measured by benchmark_model on {self._device.address}"
            raise RunnerError(f"{where}: it ended before its result: {failure_line(text)}")
        return result

    def _call(self, step: int, *more: str) -> str:
        """Run the tool on one step and return all that it printed; raises RunnerError where it fails or hangs."""
        secs = self._settings.max_secs / PROCESSES
        argv = [self._program, *self._arguments(step), *more]
        try:
            run = self._device.run(argv, timeout_s=secs + self._grace_s)
        except ProcessError as error:
            raise RunnerError(f"benchmark_model did not finish on {self._device.address}: {error}") from error
        text = f"{run.stdout}\n{run.stderr}"
        if run.returncode:
            ended = f"died of signal {-run.returncode}" if run.returncode < 0 else f"exit code {run.returncode}"
            raise RunnerError(f"{self._name}: benchmark_model failed ({ended}): {failure_line(text)}")
        return text

    def _arguments(self, step: int) -> list[str]:
        settings, golden = self._settings, self._golden.steps[step]
        layout = self._layout(golden.signature)
        paths = [(tensor, self._push_values(name, golden, step)) for name, tensor in layout.inputs]
        shapes = (golden.inputs[name].shape for name, _ in layout.inputs)
        wanted = {
            "graph": self._model,
            "num_threads": settings.num_threads,
            "num_runs": math.ceil(settings.num_runs / PROCESSES),
            "min_secs": settings.min_secs / PROCESSES,
            "max_secs": settings.max_secs / PROCESSES,
            "warmup_runs": max(1, settings.warmup_runs),
            "warmup_min_secs": 0.2,
            "input_layer": ",".join(tensor for tensor, _ in paths),
            "input_layer_shape": ":".join(",".join(map(str, shape)) for shape in shapes),
            _VALUES: ",".join(f"{_escaped(tensor)}:{_escaped(path)}" for tensor, path in paths),
            _OUTPUTS: self._outputs,
            _SIGNATURE: golden.signature,
            "use_xnnpack": str(settings.xnnpack).lower(),
            **({f"use_{self._accelerator}": "true"} if self._accelerator != "cpu" else {}),
        }
        return [f"--{name}={value}" for name, value in wanted.items() if name in self._flags]

    @property
    def _outputs(self) -> str:
        return f"{self._device.folder}/benchmark-outputs.bin"

    def _layout(self, signature: str) -> Layout:
        return self._layouts.get(signature) or next(iter(self._layouts.values()))

    def _push_values(self, name: str, golden: Step, step: int) -> str:
        """Write one input of a step as the tool reads it, little-endian and without a header, and send it."""
        value = golden.inputs[name]
        with tempfile.TemporaryDirectory(prefix="edgekit-values-") as folder:
            local = Path(folder) / "values.bin"
            local.write_bytes(np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes())
            return self._device.push(local, f"step{step}-{_plain(name)}.bin")

    def _take(self, result: ToolOutput, step: int, turn: int) -> None:
        into = self.collected
        into.latency_ms.append(result.median_ms)
        into.steps.append(step)
        into.rounds.append(turn)
        into.coverage = result.coverage
        for told, kept in (
            (result.init_ms, into.load_ms),
            (result.first_ms, into.first_inference_ms),
            (result.warmup_ms, into.warmup_ms),
        ):
            if told is not None:
                kept.append(told)
        if result.peak_memory_bytes is not None:  # the tool counts from its own start
            into.baseline_memory_bytes = 0
            into.peak_memory_bytes = max(into.peak_memory_bytes or 0, result.peak_memory_bytes)
        self._say(f"measuring: process {len(into.latency_ms)} of {PROCESSES}, median {result.median_ms:.3g} ms")
        if _OUTPUTS in self._flags:
            self._fetch(step)

    def _fetch(self, step: int) -> None:
        """Read the outputs of the last run; the tool writes those of the last inference."""
        golden = self._golden.steps[step]
        specs = _outputs_of(self._bundle.manifest.signatures, golden.signature)
        with tempfile.TemporaryDirectory(prefix="edgekit-outputs-") as folder:
            local = Path(folder) / "outputs.bin"
            self._device.pull("benchmark-outputs.bin", local)
            raw = local.read_bytes()
        outputs, offset = {}, 0
        for name, _ in self._layout(golden.signature).outputs:
            dtype, shape = specs[name]
            size = int(np.prod(shape)) * dtype.itemsize
            outputs[name] = np.frombuffer(raw[offset : offset + size].ljust(size, b"\xff"), dtype).reshape(shape)
            offset += size
        self._answers[step] = Step(signature=golden.signature, inputs={}, outputs=outputs)

    def _prove(self) -> None:
        if not self._answers:
            note = f"this benchmark_model has no --{_OUTPUTS}: what it computed can't be seen"
            self.collected.parity = DeviceParity(verdict="not-run", note=note)
            return
        places = sorted(self._answers)
        asked = Golden(steps=tuple(self._golden.steps[i] for i in places), labels=self._golden.labels[places])
        produced = Golden(steps=tuple(self._answers[i] for i in places), labels=asked.labels)
        self.collected.prove(self._bundle, asked, produced, self._accelerator)
        self.collected.accuracy = None  # on so few texts it says nothing


def _check_settings(settings: Settings) -> None:
    for asked, option in (
        (settings.sustained_secs, "--sustained"),
        (settings.energy, "--energy"),
        (settings.pin_cores, "--pin-cores"),
    ):
        if asked:
            raise RefusedError(f"{option} needs Python on the device: benchmark_model can't do it")


def _outputs_of(signatures: Sequence[Signature], name: str) -> dict[str, tuple[np.dtype[np.generic], tuple[int, ...]]]:
    found = next((signature for signature in signatures if signature.name == name), signatures[0])
    return {spec.name: (np.dtype(spec.dtype).newbyteorder("<"), spec.shape) for spec in found.outputs}


def _escaped(text: str) -> str:
    return text.replace(":", "::")


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)
