"""What has been measured of one bundle so far, whatever tool measures it; kept when a fault ends it early."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edgekit.bundle import Bundle, Parity
from edgekit.measurement import Accelerator, Coverage, DeviceParity, OperatorTime, Samples, WritingSamples
from edgekit.proof.accuracy import score_outputs
from edgekit.proof.golden import Golden
from edgekit.proof.parity import HALF_COSINE, HALF_TOLERANCE, compare_outputs

OnProgress = Callable[[str], None]


@dataclass(kw_only=True)
class WritingTurns:
    """Texts at one length of the context, so far."""

    context_length: int
    cache_bytes: int
    first_token_ms: list[float] = field(default_factory=list)
    decode_ms: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    decode_rounds: list[int] = field(default_factory=list)

    def add(self, first_ms: float, decode_ms: Sequence[float], turn: int) -> None:
        """Take one text."""
        self.first_token_ms.append(first_ms)
        self.decode_ms += decode_ms
        self.rounds.append(turn)
        self.decode_rounds += [turn] * len(decode_ms)

    def as_samples(self, turns: int) -> WritingSamples:
        """The samples as they are kept."""
        return WritingSamples(
            context_length=self.context_length,
            cache_bytes=self.cache_bytes,
            first_token_ms=tuple(self.first_token_ms),
            decode_ms=tuple(self.decode_ms),
            rounds=tuple(self.rounds) if turns > 1 else (),
            decode_rounds=tuple(self.decode_rounds) if turns > 1 else (),
        )


@dataclass(kw_only=True)
class Collected:
    """Grows while a session runs; ms and bytes as in Samples."""

    runtime_version: str = ""
    cold_start_ms: list[float] = field(default_factory=list)
    load_ms: list[float] = field(default_factory=list)
    cached_load_ms: list[float] = field(default_factory=list)
    first_inference_ms: list[float] = field(default_factory=list)
    warmup_ms: list[float] = field(default_factory=list)
    warm: bool = True
    latency_ms: list[float] = field(default_factory=list)
    transfer_ms: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    curve: list[tuple[float, float, float | None]] = field(default_factory=list)
    writing: dict[int, "WritingTurns"] = field(default_factory=dict)
    baseline_memory_bytes: int | None = None
    peak_memory_bytes: int | None = None
    energy_mj: list[float] = field(default_factory=list)
    coverage: Coverage = field(default_factory=lambda: Coverage(actual="unknown", note="it ended before it could tell"))
    operators: tuple[OperatorTime, ...] = ()
    parity: DeviceParity = field(default_factory=lambda: DeviceParity(verdict="not-run", note="it ended too early"))
    accuracy: float | None = None
    fault: str = ""

    def as_samples(self) -> Samples:
        """The samples as they are kept."""
        turns = len(set(self.rounds))
        return Samples(
            cold_start_ms=tuple(self.cold_start_ms),
            load_ms=tuple(self.load_ms),
            cached_load_ms=tuple(self.cached_load_ms),
            first_inference_ms=tuple(self.first_inference_ms),
            warmup_ms=tuple(self.warmup_ms),
            latency_ms=tuple(self.latency_ms),
            transfer_ms=tuple(self.transfer_ms),
            steps=tuple(self.steps),
            rounds=tuple(self.rounds) if turns > 1 else (),
            curve=tuple(self.curve),
            writing=tuple(self.writing[number].as_samples(turns) for number in sorted(self.writing)),
            peak_memory_bytes=self.peak_memory_bytes,
            baseline_memory_bytes=self.baseline_memory_bytes,
            energy_mj_per_inference=sum(self.energy_mj) / len(self.energy_mj) if self.energy_mj else None,
        )

    def prove(self, bundle: Bundle, golden: Golden, produced: Golden, accelerator: Accelerator) -> None:
        """Compare outputs of that device with the golden ones, by the tolerances that the bundle was exported with.

        GPUs and NPUs compute float32 files in float16 or bfloat16: what misses float32's tolerance there is held to
        float16's, and that is said.
        """
        promised = bundle.manifest.parity
        relative = (promised.tolerance or 0.0) / max(1.0, promised.max_abs_reference or 0.0)
        labels, cosine = promised.labels_changed_tolerance, promised.cosine_tolerance or 0.0
        parity = compare_outputs(golden, produced, relative, labels, cosine)
        if parity.verdict == "failed" and accelerator != "cpu" and relative < HALF_TOLERANCE:
            half = compare_outputs(golden, produced, HALF_TOLERANCE, labels, min(cosine, HALF_COSINE))
            if half.verdict != "failed":
                parity = half.model_copy(update={"note": f"the {accelerator} computes in half precision, not float32"})
        self.parity = device_parity(parity)
        if (golden.labels >= 0).any() and parity.max_abs_difference is not None:
            self.accuracy = score_outputs(golden, produced, bundle.manifest.accuracy.population).accuracy


class Session(Protocol):
    """One bundle on one device: every method starts fresh processes there and adds to `collected`.

    All raise RunnerError where the file can't be run, DeviceError where the device can't.
    """

    collected: Collected
    tool: str

    def place(self) -> None:
        """Bring everything there."""

    def cold_start(self) -> None:
        """Time one start."""

    def measure(self, turn: int) -> None:
        """Take the samples of one turn; the first also proves the outputs."""

    def profile(self) -> None:
        """Ask for the time by operator."""


def device_parity(parity: Parity) -> DeviceParity:
    """What of a parity belongs into a measurement."""
    return DeviceParity(
        verdict=parity.verdict,
        steps=parity.steps,
        max_abs_difference=parity.max_abs_difference,
        tolerance=parity.tolerance,
        labels_changed=parity.labels_changed,
        note=parity.note,
    )
