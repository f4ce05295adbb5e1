"""What `sensitivity` and `search` share: options, preparation, progress, and where the work is done."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edgekit.checkpoint import Checkpoint
    from edgekit.export.quantize.sweep import RunBatches, Sweep

CheckpointArgument = Annotated[
    Path | None, typer.Argument(help="Folder of a checkpoint; without it the embedded model.", show_default=False)
]
TargetOption = Annotated[str, typer.Option(help="tflite, onnx or coreml.")]
EvalSamplesOption = Annotated[
    str, typer.Option(help="Validation texts to run through every candidate: a number, or all.")
]
CalibrationDataOption = Annotated[
    Path | None, typer.Option(help="Texts to calibrate int8 and int16x8 with; else the training data's.")
]
CalibrationSamplesOption = Annotated[int, typer.Option(min=1, help="How many texts to calibrate with.")]
EngineOption = Annotated[str, typer.Option(help="Where candidates are scored: local processes, or a ray cluster.")]
RayAddressOption = Annotated[
    str, typer.Option(help="Address of the Ray cluster for --engine ray; auto: the one that this machine is part of.")
]


def parse_samples(value: str) -> int | None:
    """A number of samples from 1, or None for `all`; a usage error for anything else."""
    if value == "all":
        return None
    if not value.isdigit() or int(value) < 1:
        raise typer.BadParameter(f"{value!r} is neither a number from 1 nor 'all'", param_hint="--eval-samples")
    return int(value)


def choose_engine(name: str, ray_address: str) -> "RunBatches":
    """The function that scores batches; a usage error for an unknown engine."""
    if name == "local":
        from edgekit.export.quantize.local_engine import run_batches

        return run_batches
    if name == "ray":
        from edgekit.extras import check_installed

        check_installed(("ray",), "--engine ray")
        from edgekit.export.quantize.ray_engine import run_batches_on_ray

        return partial(run_batches_on_ray, address=ray_address)
    raise typer.BadParameter(f"{name!r} is neither local nor ray", param_hint="--engine")


def open_checkpoint(path: Path | None) -> "Checkpoint":
    """The checkpoint that was named, or the embedded one, which is said on stderr."""
    from edgekit.checkpoint import embedded_checkpoint_path, load_checkpoint
    from edgekit.cli.output import stderr

    if path is None:
        stderr.print("No checkpoint given: taking the embedded model, language-id (40 languages of interface text).")
    return load_checkpoint(path or embedded_checkpoint_path())


def open_sweep(
    checkpoint: "Checkpoint",
    target: str,
    *,
    schemes: list[str],
    eval_samples: str,
    calibration_data: Path | None,
    num_calibration_samples: int,
) -> "Sweep":
    """Prepare the float32 file and the reference; says on stderr what it does."""
    from edgekit.cli.output import stderr
    from edgekit.export.quantize.calibration import choose_calibration
    from edgekit.export.quantize.sweep import prepare_sweep
    from edgekit.export.schemes import CALIBRATED

    samples = parse_samples(eval_samples)
    calibration = None
    if CALIBRATED & set(schemes):
        calibration = choose_calibration(checkpoint, data=calibration_data, samples=num_calibration_samples)
        for remark in calibration.record.remarks:
            stderr.print(f"edgekit: warning: {remark}", markup=False)

    def show(stage: str) -> None:
        stderr.print(f"{checkpoint.name}: {stage}", markup=False)

    return prepare_sweep(checkpoint, target, eval_samples=samples, calibration=calibration, on_stage=show)


class SweepProgress:
    """A bar of candidates on a terminal; elsewhere a line whenever a round is done."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        from edgekit.cli.output import stderr

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=stderr, transient=True)
        self._task: Any = None

    def __enter__(self) -> "SweepProgress":
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bars.stop()
        if kind is KeyboardInterrupt:
            self._bars.console.print("Interrupted; what is finished is kept: the same command goes on from there.")

    def show(self, what: str, done: int, total: int) -> None:
        """Say that `done` of `total` candidates are scored."""
        if self._task is None:
            self._task = self._bars.add_task(what, total=total)
        self._bars.update(self._task, description=what, completed=done, total=total)
        if not self._bars.console.is_terminal and done == total:
            self._bars.console.print(f"{what}: {done} candidates scored")
