"""The options of `edgekit bench`, by what they decide."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgekit.measurement import Settings


@dataclass(frozen=True, kw_only=True)
class PlaceOptions:
    """Where bundles run."""

    device: Annotated[
        list[str] | None,
        typer.Option(help="local, ssh:user@host[:port], adb:SERIAL, or a name of devices.toml.", show_default="local"),
    ] = None
    accelerator: Annotated[
        list[str] | None, typer.Option(help="cpu, gpu, nnapi, npu, edgetpu, coreml.", show_default="cpu")
    ] = None
    use_gpu: Annotated[bool, typer.Option("--use-gpu", help="The same as --accelerator gpu.")] = False
    use_nnapi: Annotated[bool, typer.Option("--use-nnapi", help="The same as --accelerator nnapi.")] = False

    def accelerators(self) -> list[str]:
        """All that were named, by either option; the CPU where none was."""
        from edgekit.cli.output import split_list

        aliases = [name for name, wanted in (("gpu", self.use_gpu), ("nnapi", self.use_nnapi)) if wanted]
        return [*split_list(self.accelerator or []), *aliases] or ["cpu"]


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """How each is measured, and by which runtime."""

    num_threads: Annotated[int, typer.Option(min=1, help="Threads of the runtime.")] = 1
    num_runs: Annotated[int, typer.Option(min=1, help="Inferences, at least.")] = 50
    warmup_runs: Annotated[int, typer.Option(min=0, help="Inferences before, at least; on until it is stable.")] = 1
    min_secs: Annotated[float, typer.Option(min=0, help="Seconds of measuring, at least.")] = 1.0
    max_secs: Annotated[float, typer.Option(min=0.001, help="Seconds of measuring, at most.")] = 150.0
    cold_starts: Annotated[int, typer.Option(min=0, help="Fresh processes to time from start to first answer.")] = 3
    real_lengths: Annotated[
        bool, typer.Option(help="Feed real texts through the signature they belong to; else the first signature only.")
    ] = True
    context_length: Annotated[
        list[str] | None,
        typer.Option(help="Of models that write: tokens of the prompt.", show_default="16,64,256,1024, as they fit"),
    ] = None
    op_profile: Annotated[bool, typer.Option("--op-profile", help="Also the time of each operator.")] = False
    energy: Annotated[bool, typer.Option("--energy", help="Also energy, where the device can tell.")] = False
    pin_cores: Annotated[list[str] | None, typer.Option(help="Cores to stay on: 0,2-3.")] = None
    sustained: Annotated[str, typer.Option(help="Go on for so long (10m) and keep the curve of latency.")] = "0"
    cooldown: Annotated[str, typer.Option(help="Wait so long (60s) before each measurement.")] = "0"
    interleave: Annotated[bool, typer.Option("--interleave", help="Run in turns, A B A B …, and print ratios.")] = False
    compute_units: Annotated[
        str, typer.Option(help="What --accelerator coreml may use: cpu, cpu+gpu, cpu+ane, all (on a Mac).")
    ] = "all"
    rounds: Annotated[int, typer.Option(min=2, help="Turns of each, with --interleave.")] = 5
    runtime: Annotated[
        str | None,
        typer.Option(help="litert, litert-compiled, onnxruntime-qnn, …; else the device's first that fits."),
    ] = None
    xnnpack: Annotated[
        bool, typer.Option("--xnnpack/--no-xnnpack", help="TFLite files on the CPU: XNNPACK, or TFLite's own kernels.")
    ] = True
    delegate: Annotated[
        str, typer.Option(help="Library of an external TFLite delegate on the device: PATH[:key=value,…].")
    ] = ""
    openvino_device: Annotated[
        str, typer.Option(help="What OpenVINO compiles for with --accelerator npu: NPU, GPU, CPU.")
    ] = "NPU"
    benchmark_model: Annotated[
        str | None, typer.Option(help="Google's benchmark_model for a phone without Python: a path or https address.")
    ] = None

    def settings(self) -> "Settings":
        """As measurements keep them; a usage error for what none of them can be."""
        from edgekit.cli.measuring import parse_cores, parse_duration, parse_lengths, parse_openvino, parse_units
        from edgekit.measurement import Settings

        return Settings(
            num_threads=self.num_threads,
            num_runs=self.num_runs,
            min_secs=self.min_secs,
            max_secs=max(self.max_secs, self.min_secs),
            warmup_runs=self.warmup_runs,
            cold_starts=self.cold_starts,
            pin_cores=parse_cores(self.pin_cores or [], "--pin-cores"),
            sustained_secs=parse_duration(self.sustained, "--sustained"),
            cooldown_secs=parse_duration(self.cooldown, "--cooldown"),
            op_profile=self.op_profile,
            real_lengths=self.real_lengths,
            context_lengths=parse_lengths(self.context_length or [], "--context-length"),
            energy=self.energy,
            compute_units=parse_units(self.compute_units),
            xnnpack=self.xnnpack,
            delegate=self.delegate,
            openvino_device=parse_openvino(self.openvino_device),
            rounds=self.rounds if self.interleave else 1,
        )


@dataclass(frozen=True, kw_only=True)
class VerdictOptions:
    """What is measured beside it, and what counts as failed."""

    beside_cpu: Annotated[
        bool, typer.Option(help="Measure each file that runs on an accelerator on the CPU as well, in the same run.")
    ] = True
    require_full_delegation: Annotated[
        bool, typer.Option("--require-full-delegation", help="Fail unless the accelerator took every operator.")
    ] = False
    allow_fallback: Annotated[
        bool, typer.Option("--allow-fallback", help="Do not fail where the accelerator was not used.")
    ] = False
    advise: Annotated[
        bool,
        typer.Option("--advise", help="Where it loses, falls back or is wrong: export what may help, and measure it."),
    ] = False
