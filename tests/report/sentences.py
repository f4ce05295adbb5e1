"""Computes every sentence of a report's quantization part again, from nothing but the other numbers in its JSON."""

from collections import defaultdict
from typing import Any

import numpy as np

from edgekit.report.numbers import human_size, milliseconds, percent, significant

Json = dict[str, Any]
FLOAT16_MAX = 65504


def check_sentences(part: Json) -> list[str]:
    """Assert that each sentence says what its numbers say; the kinds that there were."""
    kinds = []
    for group in part["groups"]:
        for sentence in group["advice"]:
            _check_advice(group, sentence)
            kinds.append("advice")
        for sentence in group["slow"]:
            _check_slow(group, sentence)
            kinds.append("slow")
    modules = part["modules"]
    if modules:
        for sentence in modules["why"]:
            _check_why(modules, sentence)
            kinds.append("why")
        for sentence in modules["headroom"]:
            _check_headroom(modules, sentence)
            kinds.append("headroom")
    return kinds


def _row(group: Json, name: str) -> Json:
    return next(row for row in group["rows"] if row["bundle"] == name)


def _p50(row: Json) -> float:
    """From the raw samples where they are there."""
    samples = row["measurement"] and row["measurement"]["samples"]["latency_ms"]
    return float(np.median(samples)) if samples else float(row["latency"]["p50_ms"])


def _check_advice(group: Json, sentence: Json) -> None:
    evidence, row = sentence["evidence"], _row(group, sentence["subject"])
    assert sentence["subject"] == evidence["bundle"]
    assert human_size(row["size_bytes"]) in sentence["text"]
    timed = evidence["timed"]
    costs = {
        name: _row(group, name)["size_bytes"] * (_p50(_row(group, name)) if timed else 1)
        for name in evidence["candidates"]
    }
    assert costs == {name: np.float64(cost) for name, cost in evidence["candidates"].items()}
    assert min(costs, key=lambda name: costs[name]) == sentence["subject"]
    if timed:
        assert milliseconds(_p50(row)) in sentence["text"]
    if row["accuracy"]:
        a = row["accuracy"]
        change = 100 * (a["won"] - a["lost"]) / a["texts"]
        assert change >= -max(0.5, 100 / a["texts"]) == -evidence["most_lost_points"]
        assert f"changes by {change:+.2f} points" in sentence["text"]
        assert f"({a['low_points']:+.2f} to {a['high_points']:+.2f})" in sentence["text"]


def _check_slow(group: Json, sentence: Json) -> None:
    evidence, row = sentence["evidence"], _row(group, sentence["subject"])
    base = _row(group, evidence["float_bundle"])
    assert f"takes {_p50(row) / _p50(base):.2f}× the time of {base['bundle']}" in sentence["text"]
    whole = sum(each["ms"] for each in row["measurement"]["operators"])
    assert np.isclose(whole, sum(after for _, _, after in evidence["kinds"]))
    assert np.isclose(
        sum(each["ms"] for each in base["measurement"]["operators"]), sum(before for _, before, _ in evidence["kinds"])
    )
    after = {kind: ms for kind, _, ms in evidence["kinds"]}
    for named in ("outside_ms", "float_ms"):
        for kind, ms in evidence[named].items():
            assert ms <= after.get(kind, 0) * 1.000001
            told = f"{kind} ({milliseconds(ms)}, {percent(ms / whole, 0)} of its time)"
            assert (told in sentence["text"]) or ms < 0.02 * whole or len(evidence[named]) > 3
    if evidence["conversions_ms"] >= 0.02 * whole:
        share = percent(evidence["conversions_ms"] / whole, 0)
        assert f"take {milliseconds(evidence['conversions_ms'])} ({share} of its time)" in sentence["text"]


def _check_why(part: Json, sentence: Json) -> None:
    module = next(each for each in part["modules"] if each["name"] == sentence["subject"])
    evidence, text = sentence["evidence"], sentence["text"]
    costs: dict[str, dict[str, Json]] = defaultdict(dict)
    for each in part["modules"]:
        for cost in each["costs"]:
            costs[cost["scheme"]][each["name"]] = cost
    of_scheme = costs[evidence["scheme"]]
    mine = of_scheme[module["name"]]
    if mine["error"] or mine["non_finite"]:
        assert mine["error"] in text
        return
    share = mine["kl"] / sum(each["kl"] or 0 for each in of_scheme.values())
    assert np.isclose(share, evidence["share_of_kl"])
    assert share >= part["threshold"]
    assert f"{evidence['scheme']} here makes {percent(share, 0)} of what all modules lose" in text
    weight, seen = module["weight"], module["activation"]
    assert evidence.get("weight") == weight
    assert evidence.get("activation") == seen
    if "weight channel" in text:
        ratio = significant(weight["outlier_ratio"])
        assert f"{weight['outlier_channel']} of {weight['channels']} has {ratio}× the median range" in text
    if "fix" in text:
        fixed = 1 - weight["channel_noise"] / weight["tensor_noise"]
        assert f"fix {percent(fixed, 0)} of" in text
    if "rounded to int4" in text:
        assert (
            f"off by {percent(weight['int4_error'])} of their size, to int8 by {percent(weight['int8_error'])}" in text
        )
        assert weight["int4_error"] > weight["int8_error"]
    if "of its activations" in text:
        told = (
            f"channel {seen['outlier_channel']} of its activations has {significant(seen['outlier_ratio'])}× the median"
        )
        assert told in text
    if "of the weights" in text:
        whole = sum(each["elements"] for each in part["modules"])
        share = module["elements"] / whole
        assert f"holds {percent(share, 0) if share >= 0.01 else 'under 1 %'} of the weights" in text


def _check_headroom(part: Json, sentence: Json) -> None:
    evidence, text = sentence["evidence"], sentence["text"]
    suffix = "_norm" if sentence["subject"].endswith("norms") else "attention.scores"
    seen = {each["name"]: each["activation"] for each in part["modules"] if each["name"].endswith(suffix)}
    largest = {name: each["largest"] for name, each in seen.items() if each and each["largest"]}
    assert max(largest.values()) == evidence["largest"] == largest[evidence["module"]]
    headroom = FLOAT16_MAX / evidence["largest"]
    assert f"{significant(evidence['largest'])} in {evidence['module']}, {significant(headroom)}× below 65504" in text
    for name in evidence["near"]:
        assert name in text
        assert FLOAT16_MAX / largest[name] < 8
