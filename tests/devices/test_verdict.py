"""Each verdict, from what it is made of, with its evidence."""

from typing import Any

import numpy as np
import pytest

from edgekit.devices.accelerators import fallen_back
from edgekit.devices.verdict import Facts, judge, relative
from edgekit.measurement import Conditions, Coverage, DeviceParity, LeftBehind, Samples

PROVEN = DeviceParity(verdict="within-tolerance", steps=6, max_abs_difference=1e-6, tolerance=1e-4, labels_changed=0)
QUIET = tuple((2 * np.exp(0.005 * np.random.default_rng(1).standard_normal(400))).tolist())
COOL = Conditions(time="t", temperatures_c={"cpu": 45.0}, frequencies_mhz=(1800.0,), load_1min=0.4, throttled=0)


def facts(**changes: Any) -> Facts:
    whole: dict[str, Any] = {
        "accelerator": "cpu",
        "coverage": Coverage(actual="XNNPACK", nodes=80, nodes_on_accelerator=77),
        "parity": PROVEN,
        "samples": Samples(latency_ms=QUIET),
        "before": COOL,
        "after": COOL,
        "cores": 4,
    }
    return Facts(**{**whole, **changes})


def hot(**changes: Any) -> Conditions:
    return COOL.model_copy(update=changes)


SLOWER = Samples(latency_ms=tuple(value * (1 + 0.2 * i / len(QUIET)) for i, value in enumerate(QUIET)))


def test_a_quiet_proven_measurement_is_valid_and_says_why() -> None:
    verdict, evidence = judge(facts())
    assert verdict == "valid"
    text = "; ".join(evidence)
    for words in ("6 steps", "1e-06", "400 samples", "45.0 °C", "%"):
        assert words in text


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        (
            {
                "parity": DeviceParity(
                    verdict="failed", steps=6, max_abs_difference=1.48, tolerance=1e-4, labels_changed=5
                )
            },
            "wrong-output",
            ["1.5", "0.0001", "5 of 6 labels"],
        ),
        ({"parity": DeviceParity(verdict="failed", steps=6, note="3 outputs are NaN")}, "wrong-output", ["3 outputs"]),
        (
            {"accelerator": "gpu", "coverage": Coverage(actual="CPU", nodes=80, nodes_on_accelerator=0)},
            "fell-back",
            ["gpu", "none of 80 nodes"],
        ),
        ({"accelerator": "nnapi", "coverage": Coverage(actual="unknown")}, "fell-back", ["nothing tells"]),
        ({"after": hot(throttled=0x4)}, "throttled", ["throttled", "0x4"]),
        ({"after": hot(throttled=0x10000)}, "throttled", ["under-voltage"]),
        ({"after": hot(thermal_status=3)}, "throttled", ["3 (severe)"]),
        ({"after": hot(temperatures_c={"cpu": 78.0}), "samples": SLOWER}, "throttled", ["45.0 to 78.0 °C", "slower"]),
        ({"after": hot(frequencies_mhz=(600.0,)), "samples": SLOWER}, "throttled", ["1800 to 600 MHz"]),
        (
            {"samples": Samples(latency_ms=QUIET, curve=tuple((i, 2 + 0.1 * i, 60.0) for i in range(8)))},
            "noisy",
            ["moved by +"],
        ),
        ({"samples": SLOWER}, "noisy", ["moved by +", "first quarter"]),
        ({"samples": Samples(latency_ms=tuple(reversed(SLOWER.latency_ms)))}, "noisy", ["moved by -"]),
        ({"samples": Samples(latency_ms=(*QUIET[:340], *(9.0,) * 60) * 1)}, "noisy", ["longer than the median"]),
        ({"samples": Samples(latency_ms=(1.0, 1.4) * 10)}, "noisy", ["interval"]),
        ({"samples": Samples(latency_ms=(2.0,) * 5)}, "noisy", ["only 5 samples"]),
        ({"before": hot(load_1min=6.5)}, "noisy", ["load 6.5 on 4 cores"]),
        ({"warm": False}, "noisy", ["warm-up"]),
        (
            {"parity": DeviceParity(verdict="not-run", note="no --output_filepath")},
            "unproven",
            ["no --output_filepath"],
        ),
        ({"fault": "it died of signal 11"}, "unproven", ["cut short: it died of signal 11"]),
    ],
)
def test_every_other_verdict_has_its_evidence(changes: dict[str, Any], verdict: str, words: list[str]) -> None:
    found, evidence = judge(facts(**changes))
    assert found == verdict, evidence
    for word in words:
        assert word in evidence[0] or any(word in sentence for sentence in evidence)


def test_bits_that_were_set_before_are_not_this_runs() -> None:
    earlier = hot(throttled=0x50000)
    assert judge(facts(before=earlier, after=earlier))[0] == "valid"


def test_heat_without_slowing_down_is_no_throttling() -> None:
    assert judge(facts(after=hot(temperatures_c={"cpu": 78.0})))[0] == "valid"


def test_the_gravest_decides_and_all_are_told() -> None:
    wrong = DeviceParity(verdict="failed", steps=6, note="NaN")
    verdict, evidence = judge(facts(parity=wrong, after=hot(throttled=0x4), warm=False, fault="it hung"))
    assert verdict == "wrong-output"
    assert len(evidence) == 4


def test_texts_of_different_lengths_are_no_noise() -> None:
    """Short texts through one signature, long ones through another: each is stable."""
    mixed = Samples(latency_ms=tuple(value * (1 if i % 2 else 8) for i, value in enumerate(QUIET)))
    assert judge(facts(samples=mixed))[0] == "noisy"
    groups = [i % 2 for i in range(len(QUIET))]
    assert judge(facts(samples=mixed, groups=groups))[0] == "valid"
    assert max(relative(mixed.latency_ms, groups)) < 1.05


def test_only_the_cpu_needs_no_proof_of_coverage() -> None:
    assert fallen_back("cpu", Coverage(actual="unknown")) == ""
    assert fallen_back("gpu", Coverage(actual="GPU", nodes=93, nodes_on_accelerator=76)) == ""


def test_an_accelerator_has_to_take_most_of_the_nodes() -> None:
    half = Coverage(actual="GPU", nodes=93, nodes_on_accelerator=46, note="adapter X")
    assert fallen_back("gpu", half) == (
        "gpu was asked for and took 46 of 93 nodes: most of it ran on the CPU: adapter X"
    )
    assert fallen_back("npu", Coverage(actual="CPU", nodes_on_accelerator=0)).endswith(
        "took no node, all ran on the CPU"
    )
    assert "nothing tells" in fallen_back("npu", Coverage(actual="unknown"))


def test_what_an_accelerator_took_is_told_whatever_the_verdict() -> None:
    left = (LeftBehind(operator="GATHER", count=2, reason="int64 indices"), LeftBehind(operator="CAST", count=1))
    partial = Coverage(actual="GPU", nodes=93, nodes_on_accelerator=90, partitions=2, left_behind=left)
    verdict, evidence = judge(facts(accelerator="nnapi", coverage=partial))
    assert verdict == "valid"
    assert evidence[-2] == (
        "nnapi (GPU) took 90 of 93 nodes in 2 partitions; left to the CPU: 2 GATHER (int64 indices), 1 CAST"
    )
    assert "deprecated since Android 15" in evidence[-1]
