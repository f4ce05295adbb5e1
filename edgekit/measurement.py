"""The Measurement: raw samples of one bundle on one device with one accelerator, and what they are worth.

Durations are in milliseconds, sizes in bytes, temperatures in degrees Celsius, frequencies in MHz, shares in [0, 1].
Every number that is shown can be computed again from `Samples`.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Verdict = Literal["valid", "throttled", "noisy", "fell-back", "wrong-output", "unproven"]
VERDICTS: tuple[Verdict, ...] = ("valid", "throttled", "noisy", "fell-back", "wrong-output", "unproven")
Accelerator = Literal["cpu", "gpu", "nnapi", "npu", "edgetpu", "coreml"]
ACCELERATORS: tuple[Accelerator, ...] = ("cpu", "gpu", "nnapi", "npu", "edgetpu", "coreml")


#: what Core ML may use of a Mac's or an iPhone's units, with the accelerator coreml
ComputeUnits = Literal["cpu", "cpu+gpu", "cpu+ane", "all"]
COMPUTE_UNITS: tuple[ComputeUnits, ...] = ("cpu", "cpu+gpu", "cpu+ane", "all")
#: which device OpenVINO compiles for, with the accelerator npu: NPU is Intel's; CPU runs the same path without one
OpenvinoDevice = Literal["CPU", "GPU", "NPU"]
OPENVINO_DEVICES: tuple[OpenvinoDevice, ...] = ("CPU", "GPU", "NPU")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DeviceFacts(_Record):
    """What a device says of itself; None or empty where it does not say.

    `address` is what the user types: `local`, `ssh:user@host`, `adb:SERIAL`. `runtimes` maps a runtime (litert,
    tflite-runtime, onnxruntime, benchmark_model) to its version there, `environments` one that has an environment of
    its own to the interpreter of that. `python` is the path of the interpreter that the runner is started with
    otherwise: that of the environment made by `edgekit devices setup`, else the system's.
    """

    address: str
    state: str = "ready"
    advice: str = ""
    model: str = ""
    soc: str = ""
    machine: str = ""
    cores: int | None = None
    memory_bytes: int | None = None
    os: str = ""
    python: str | None = None
    runtimes: dict[str, str] = {}
    environments: dict[str, str] = {}
    accelerators: tuple[str, ...] = ()
    cpu_flags: tuple[str, ...] = ()


class Conditions(_Record):
    """What a device was like at one moment; None or empty where it does not say.

    `throttled` are `vcgencmd get_throttled`'s bits (0–3 now, 16–19 since boot); `thermal_status` is Android's, 0 to 6.
    """

    time: str
    temperatures_c: dict[str, float] = {}
    throttled: int | None = None
    thermal_status: int | None = None
    frequencies_mhz: tuple[float, ...] = ()
    governor: str | None = None
    load_1min: float | None = None
    battery_percent: float | None = None
    charging: bool | None = None
    free_memory_bytes: int | None = None


class WritingSamples(_Record):
    """Texts of a model that writes, at one length of the context: `context_length` is the prompt's, in tokens.

    `first_token_ms` is from the prompt to the scores of what comes after it, for each text; `decode_ms` from one token
    to the next; `rounds` tells in which turn each of `first_token_ms`, `decode_rounds` in which each of `decode_ms` was
    measured (empty: there was one). `cache_bytes` is what the keys and values of one text take.
    """

    context_length: int
    cache_bytes: int
    first_token_ms: tuple[float, ...] = ()
    decode_ms: tuple[float, ...] = ()
    rounds: tuple[int, ...] = ()
    decode_rounds: tuple[int, ...] = ()


class Samples(_Record):
    """Everything that was measured, unrounded and in order.

    `cold_*` have one entry a fresh process: from its start to the loaded file, of loading alone, and of the first
    inference; `cached_load_ms` has one for each further process whose runtime found its own cache of an earlier load
    (empty where it keeps none). `warmup_ms` and `latency_ms` are single inferences, timed as the runtimes' own tools
    do: the run of a file whose inputs are in place. `transfer_ms` is what writing the inputs and reading the outputs
    took beside each of `latency_ms` (0 where the runtime does both inside its run). `steps` tells which golden step
    each of `latency_ms` ran, `rounds` in which turn of A B A B it was measured (empty: there was one). `curve` holds
    (seconds since the start, median ms of a window, temperature or None) of `--sustained`.

    Of a model that writes `writing` has one entry for each length of the context, `latency_ms` all of their times from
    one token to the next, and `steps` the number of their entry.
    """

    cold_start_ms: tuple[float, ...] = ()
    load_ms: tuple[float, ...] = ()
    cached_load_ms: tuple[float, ...] = ()
    first_inference_ms: tuple[float, ...] = ()
    warmup_ms: tuple[float, ...] = ()
    latency_ms: tuple[float, ...] = ()
    transfer_ms: tuple[float, ...] = ()
    steps: tuple[int, ...] = ()
    rounds: tuple[int, ...] = ()
    curve: tuple[tuple[float, float, float | None], ...] = ()
    writing: tuple[WritingSamples, ...] = ()
    peak_memory_bytes: int | None = None
    baseline_memory_bytes: int | None = None
    energy_mj_per_inference: float | None = None


class OperatorTime(_Record):
    """Time of one kind of operator (or one node) in one inference, from the runtime's own profile."""

    name: str
    kind: str
    count: int
    ms: float


class LeftBehind(_Record):
    """Operators that the accelerator did not take, and why, where it says."""

    operator: str
    count: int
    reason: str = ""


class Coverage(_Record):
    """What really ran where: `actual` names it as the runtime does ("XNNPACK", "QNN"); None: it can't be told."""

    actual: str
    nodes: int | None = None
    nodes_on_accelerator: int | None = None
    partitions: int | None = None
    share_of_time: float | None = None
    left_behind: tuple[LeftBehind, ...] = ()
    note: str = ""


class Settings(_Record):
    """How it was measured, as asked for on the command line.

    `xnnpack` False runs TFLite files with TFLite's own kernels on the CPU. `delegate` is PATH[:key=value,…] of an
    external TFLite delegate on the device. `rounds`: the turns of each candidate in A B A B ….

    `context_lengths`, in tokens, are for models that write (none: a few that fit); `num_runs` counts tokens there.
    """

    num_threads: int = 1
    num_runs: int = 50
    min_secs: float = 1.0
    max_secs: float = 150.0
    warmup_runs: int = 1
    cold_starts: int = 3
    pin_cores: tuple[int, ...] = ()
    sustained_secs: float = 0.0
    cooldown_secs: float = 0.0
    op_profile: bool = False
    real_lengths: bool = True
    energy: bool = False
    compute_units: ComputeUnits = "all"
    xnnpack: bool = True
    delegate: str = ""
    openvino_device: OpenvinoDevice = "NPU"
    rounds: int = 1
    context_lengths: tuple[int, ...] = ()


class DeviceParity(_Record):
    """Outputs on that device beside the golden ones, as in `Parity`; `verdict` is not-run where they can't be had."""

    verdict: Literal["within-tolerance", "failed", "not-run"]
    steps: int = 0
    max_abs_difference: float | None = None
    tolerance: float | None = None
    labels_changed: int | None = None
    note: str = ""


class Measurement(_Record):
    """One bundle on one device with one accelerator.

    `evidence` are the sentences behind the verdict; `fingerprint` identifies device and tools (two measurements are
    comparable where it is equal); `bundle_sha256` is that of the bundle's manifest, `model_sha256` that of its file.
    `fault` is the line that says what cut the measurement short, "" where nothing did.
    """

    schema_version: Literal[1] = 1
    id: str = ""
    time: str
    bundle: str
    bundle_sha256: str
    model_sha256: str
    model_size_bytes: int
    target: str
    scheme: str
    runtime: str
    runtime_version: str
    tool: str
    device: DeviceFacts
    fingerprint: str
    accelerator: Accelerator
    coverage: Coverage
    settings: Settings
    samples: Samples
    before: Conditions
    after: Conditions
    parity: DeviceParity
    accuracy: float | None = None
    operators: tuple[OperatorTime, ...] = ()
    verdict: Verdict
    evidence: tuple[str, ...] = ()
    fault: str = ""
