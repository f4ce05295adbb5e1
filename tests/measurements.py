"""Measurements as devices give them, made up: for tests of what happens to a measurement afterwards."""

from typing import Any

import numpy as np

from edgekit.measurement import (
    Conditions,
    Coverage,
    DeviceFacts,
    DeviceParity,
    LeftBehind,
    Measurement,
    OperatorTime,
    Samples,
    Settings,
)

PI = DeviceFacts(
    address="ssh:pi@board",
    model="Raspberry Pi 4 Model B Rev 1.4",
    machine="aarch64",
    cores=4,
    memory_bytes=4_000_000_000,
    os="Debian GNU/Linux 12",
    python="3.11.2",
    runtimes={"litert": "2.3.0"},
    accelerators=("cpu",),
)


def latencies(median_ms: float = 3.0, *, count: int = 200, spread: float = 0.03, seed: int = 1) -> tuple[float, ...]:
    """Samples with a tail to the right, as latencies have."""
    random = np.random.default_rng(seed)
    return tuple(float(v) for v in median_ms * np.exp(spread * random.standard_gamma(2.0, count) - spread * 1.68))


def samples(median_ms: float = 3.0, *, count: int = 200, seed: int = 1, **changes: Any) -> Samples:
    made = {
        "cold_start_ms": (310.5, 298.25, 305.125),
        "load_ms": (21.5, 20.25, 20.75),
        "first_inference_ms": (median_ms * 3, median_ms * 2.5, median_ms * 2.75),
        "warmup_ms": (median_ms * 1.5, median_ms * 1.1),
        "latency_ms": latencies(median_ms, count=count, seed=seed),
        "steps": tuple(index % 8 for index in range(count)),
        "peak_memory_bytes": 48_000_000,
        "baseline_memory_bytes": 40_000_000,
    }
    return Samples(**made | changes)


def measurement(median_ms: float = 3.0, *, seed: int = 1, count: int = 200, **changes: Any) -> Measurement:
    made: dict[str, Any] = {
        "time": "2026-01-02T03:04:05+00:00",
        "bundle": "tiny.tflite-none",
        "bundle_sha256": "b" * 64,
        "model_sha256": "c" * 64,
        "model_size_bytes": 3_760_000,
        "target": "tflite",
        "scheme": "none",
        "runtime": "litert",
        "runtime_version": "2.3.0",
        "tool": "edgekit runner 2",
        "device": PI,
        "fingerprint": "f" * 16,
        "accelerator": "cpu",
        "coverage": Coverage(actual="XNNPACK", nodes=60, nodes_on_accelerator=60, partitions=1, share_of_time=1.0),
        "settings": Settings(),
        "samples": samples(median_ms, seed=seed, count=count),
        "before": Conditions(
            time="2026-01-02T03:04:00+00:00",
            temperatures_c={"cpu-thermal": 48.2},
            throttled=0,
            frequencies_mhz=(1500.0,) * 4,
            governor="performance",
            load_1min=0.1,
            free_memory_bytes=3_100_000_000,
        ),
        "after": Conditions(time="2026-01-02T03:04:09+00:00", temperatures_c={"cpu-thermal": 51.6}, throttled=0),
        "parity": DeviceParity(
            verdict="within-tolerance", steps=50, max_abs_difference=4.1e-6, tolerance=1.3e-4, labels_changed=0
        ),
        "accuracy": 0.9008,
        "operators": (
            OperatorTime(name="FULLY_CONNECTED", kind="FULLY_CONNECTED", count=12, ms=median_ms * 0.7),
            OperatorTime(name="SOFTMAX", kind="SOFTMAX", count=2, ms=median_ms * 0.2),
        ),
        "verdict": "valid",
        "evidence": ("50 outputs within tolerance; p50 stable over the last 100 runs",),
    }
    return Measurement(**made | changes)


def fallen_back(median_ms: float = 9.0, **changes: Any) -> Measurement:
    """What asked for the GPU and ran on the CPU in part."""
    left = (LeftBehind(operator="GATHER", count=2, reason="int64 indices"), LeftBehind(operator="CAST", count=3))
    coverage = Coverage(
        actual="CPU", nodes=60, nodes_on_accelerator=41, partitions=4, share_of_time=0.55, left_behind=left
    )
    evidence = ("gpu was asked for; 19 of 60 nodes ran on the CPU",)
    made = {"accelerator": "gpu", "coverage": coverage, "verdict": "fell-back", "evidence": evidence}
    return measurement(median_ms, **made | changes)


def sustained(**changes: Any) -> Measurement:
    """Ten minutes that got slower as the board got hot."""
    curve = tuple((10.0 * i, 3.0 + 1.5 / (1 + np.exp(6 - i / 5)), 50 + 30 * (1 - np.exp(-i / 15))) for i in range(60))
    made = {
        "samples": samples(curve=curve),
        "settings": Settings(sustained_secs=600),
        "verdict": "throttled",
        "evidence": ("bit 2 of get_throttled was set: throttled now", "p50 rose by 50 % in 600 s"),
    }
    return measurement(**made | changes)
