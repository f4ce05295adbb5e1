"""What peers.py found: rows as JSON, the tables of the README, and the goals with what was reached."""

import statistics
from typing import Any

from peers_candidates import SHORTEST, Model
from peers_measure import Measured, Rates, median_by_turn
from peers_texts import Texts

from edgekit.report.markdown import markdown_table
from edgekit.report.numbers import human_size, milliseconds, or_absent, percent
from edgekit.statistics import ratio_of_medians, summarize

#: two of edgekit's goals, and how near counts as first
PADDED_AHEAD, ANY_AHEAD, NEAR = 9.0, 2.0, 0.02
PEAK_GOALS = {"longest": 0.80, "shortest": 0.70}
#: peers whose accuracy or cosine differs by no more are as good: a text of 3225, and what no ranking notices
_SAME_QUALITY = {"embedded": 0.0004, "minilm": 0.0001}


def row(one: Measured, measured: list[Measured], rated: Rates, model: Model, quality: float | None) -> dict[str, Any]:
    """All that is kept of a candidate; medians by turn, not every sample."""
    candidate = one.candidate
    told: dict[str, Any] = {
        "name": candidate.name,
        "edgekit": candidate.bundle is not None or candidate.name.startswith("edgekit"),
        "runtime": candidate.runtime,
        "scheme": candidate.scheme,
        "padded": candidate.peer.padded if candidate.peer else None,
        "error": candidate.error or None,
        "size_bytes": candidate.size_bytes,
        "quality": quality,
        "export_s": candidate.export_s,
        "export_cpu_s": candidate.export_cpu_s,
        "stages_s": candidate.stages_s,
        "proven": candidate.proven,
    }
    if candidate.error or not one.turns:
        return told
    summary = summarize([ms for turn in one.turns for ms in turn])
    told |= {"p50_ms": summary.p50_ms, "p90_ms": summary.p90_ms, "mean_ms": summary.mean_ms, "samples": summary.count}
    told |= {"p50_ms_by_turn": median_by_turn(one), "cold_ms": one.cold_ms, "peak_bytes": one.peak_bytes}
    told |= {"added_bytes": one.added_bytes, "parity": one.parity, "operators": one.operators}
    told["ratio"] = _ratio(one, measured)
    told["rows"] = {str(rows): _at_rows(one, rows, rated, model) for rows in sorted(set(one.rows))}
    told["usual_rows"] = int(statistics.median_low(one.rows))
    return told


def _ratio(one: Measured, measured: list[Measured]) -> dict[str, Any] | None:
    """This candidate's p50 over that of edgekit's: on the same runtime and in the same scheme, else its fastest."""
    ours = [other for other in measured if other.candidate.bundle and other.turns and not other.error]
    alike = [
        o for o in ours if (o.candidate.runtime, o.candidate.scheme) == (one.candidate.runtime, one.candidate.scheme)
    ]
    chosen = alike or sorted(ours, key=lambda other: statistics.median(median_by_turn(other)))
    if not chosen:
        return None
    ratio = ratio_of_medians(one.turns, chosen[0].turns)
    return {"to": chosen[0].candidate.name, "ratio": ratio.ratio, "low": ratio.low, "high": ratio.high}


def _at_rows(one: Measured, rows: int, rated: Rates, model: Model) -> dict[str, Any]:
    """The median at so many rows, its rate, and the share of the runtime's own peak where that was measured there."""
    samples = one.at_rows(rows)
    rate = model.operations(rows) / statistics.median(samples) / 1e6
    peaks = rated.get((one.candidate.runtime, one.candidate.scheme), {}).get(rows, [])
    share = rate / statistics.median(peaks) if peaks else None
    return {"median_ms": statistics.median(samples), "samples": len(samples), "gops": rate, "of_peak": share}


def table(
    model: Model, texts: Texts, threads: int, turns: int, passes: int, rows: list[dict[str, Any]], rated: Rates
) -> dict[str, Any]:
    """One table: a model at a number of threads."""
    peaks = {
        f"{runtime} {scheme}": {str(count): statistics.median(gops) for count, gops in found.items() if gops}
        for (runtime, scheme), found in rated.items()
    }
    tokens = sorted(texts.tokens)
    about = {"least": tokens[0], "median": statistics.median(tokens), "most": tokens[-1]}
    return {"model": model.name, "length": model.length, "threads": threads, "turns": turns, "passes": passes,
            "tokens": about, "peak_gops": peaks, "rows": rows}  # fmt: skip


def as_text(found: list[dict[str, Any]], goals: list[dict[str, Any]]) -> str:
    """The tables and the goals as the README shows them."""
    parts = []
    for one in found:
        tokens, quality = one["tokens"], "accuracy" if one["model"] == "embedded" else "cosine"
        what = "the embedded model" if one["model"] == "embedded" else "the pretrained MiniLM (22 M)"
        about = f"{tokens['least']}–{tokens['most']} tokens, median {tokens['median']:g}"
        threads = "one thread" if one["threads"] == 1 else f"{one['threads']} threads"
        headers = ["", "runtime", "scheme", "size", quality, "cold start", "p50", "p90", "mean", "memory", "export",
                   "p50 ÷ edgekit's", "of peak"]  # fmt: skip
        cells = [_cells(row, quality) for row in one["rows"]]
        parts.append(f"**{what}, {threads}** ({about}; padded ones to {one['length']})")
        parts.append(markdown_table(headers, cells))
    lines = [f"- {goal['goal']}: **{'met' if goal['met'] else 'not met'}**. {goal['evidence']}" for goal in goals]
    return "\n\n".join([*parts, "Goals:\n\n" + "\n".join(lines)])


def _cells(row: dict[str, Any], quality: str) -> list[str]:
    shown = (lambda value: f"{100 * value:.2f} %") if quality == "accuracy" else (lambda value: f"{value:.5f}")
    name = f"**{row['name']}**" if row["edgekit"] else row["name"] + (", padded" if row["padded"] else "")
    name += "" if row.get("proven", True) else " (written as outside its tolerance)"
    cells = [name, row["runtime"], row["scheme"], or_absent(row["size_bytes"], human_size)]
    cells.append(or_absent(row["quality"], shown))
    if "p50_ms" not in row:
        return [*cells, *["–"] * 5, _export(row), f"failed: {row['error']}", "–"]
    cells += [f"{statistics.median(row['cold_ms']):.0f} ms"]
    cells += [milliseconds(row[name]) for name in ("p50_ms", "p90_ms", "mean_ms")]
    cells.append(human_size(statistics.median(row["added_bytes"])))
    usual = row["rows"][str(row["usual_rows"])]
    share = f"{percent(usual['of_peak'], 0)} at {row['usual_rows']}" if usual["of_peak"] else "–"
    return [*cells, _export(row), _ratio_text(row["ratio"], row["name"]), share]


def _export(row: dict[str, Any]) -> str:
    return "–" if row["export_cpu_s"] is None else f"{row['export_cpu_s']:.0f} s"


def _ratio_text(ratio: dict[str, Any] | None, name: str) -> str:
    if ratio is None or ratio["to"] == name:
        return "1" if ratio else "–"
    return f"{ratio['ratio']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def note(document: dict[str, Any], command: str) -> str:
    """Date, machine, and what the columns mean."""
    return (
        f"Made by `{command}` on {document['date']} on {document['machine']}, which others used at the same time: "
        "ratios and shares, taken in turns, hold where times do not. Cold start: of a process, to its first answer. "
        "Times: tokens in, answer out, tokenizing left out. Memory: the most above what interpreter, runtime and texts "
        "take. Export: processor time, a peer's int8 with its float file; edgekit's is of one command for both "
        "schemes, with their proofs. Ratio: to edgekit on the same runtime in the same scheme, else to "
        "its fastest; 95 % interval. Of peak: the rate of the model's matrix products, as a share of what one "
        "fully-connected layer reached in that runtime in the same run at as many rows. Where the time goes by "
        "operator, and every turn: `benchmarks/results/peers.json`; plots: `benchmarks/results/peers-*.svg`."
    )


def goals(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The goals of the comparison, each with whether it was reached and by how much."""
    made = []
    for one in found:
        where = f"{one['model']}, {one['threads']} thread{'s' if one['threads'] > 1 else ''}"
        made.append({"goal": f"first within each runtime and scheme ({where})", **_firsts(one)})
        if one["model"] == "minilm" and one["threads"] == 1:
            made += [_padded_goal(one), _any_goal(one), *_peak_goals(one)]
    return made


def _firsts(one: dict[str, Any]) -> dict[str, Any]:
    """Where a peer is ahead of edgekit on its runtime and in its scheme, in size, quality, p50 or memory."""
    behind, counted = [], 0
    for ours in (row for row in one["rows"] if row["edgekit"]):
        kind = (ours["runtime"], ours["scheme"])
        peers = [r for r in one["rows"] if not r["edgekit"] and (r["runtime"], r["scheme"]) == kind and "p50_ms" in r]
        if "p50_ms" not in ours:
            behind.append(f"{ours['name']} failed")
            continue
        counted += 4 * len(peers)
        behind += [
            f"{ours['name']} behind {peer['name']} in {what}" for peer in peers for what in _behind(ours, peer, one)
        ]
    return {"met": not behind, "evidence": "; ".join(behind) or f"in all {counted} comparisons"}


def _behind(ours: dict[str, Any], peer: dict[str, Any], one: dict[str, Any]) -> list[str]:
    memory = [statistics.median(row["added_bytes"]) for row in (ours, peer)]
    ratio = peer["ratio"]
    told = []
    if ours["size_bytes"] > peer["size_bytes"] * (1 + NEAR):
        told.append(f"size ({human_size(ours['size_bytes'])}, {human_size(peer['size_bytes'])})")
    if ours["quality"] < peer["quality"] - _SAME_QUALITY[one["model"]]:
        told.append(
            f"{'accuracy' if one['model'] == 'embedded' else 'cosine'} ({ours['quality']:.4f}, {peer['quality']:.4f})"
        )
    if ratio["ratio"] < 1 - NEAR and ratio["high"] < 1:
        told.append(f"p50 (ratio {ratio['ratio']:.2f})")
    if memory[0] > memory[1] * (1 + NEAR):
        told.append(f"memory ({human_size(memory[0])}, {human_size(memory[1])})")
    return told


def _padded_goal(one: dict[str, Any]) -> dict[str, Any]:
    """edgekit's fastest TFLite beside every peer's TFLite, as its default export makes it."""
    ours = _fastest(row for row in one["rows"] if row["edgekit"] and row["runtime"] == "litert")
    peers = [r for r in one["rows"] if not r["edgekit"] and r["runtime"] == "litert" and "p50_ms" in r]
    return _ahead(f"{PADDED_AHEAD:g}× ahead in p50 of every peer's default TFLite (MiniLM)", ours, peers, PADDED_AHEAD)


def _any_goal(one: dict[str, Any]) -> dict[str, Any]:
    ours = _fastest(row for row in one["rows"] if row["edgekit"])
    best = _fastest(row for row in one["rows"] if not row["edgekit"])
    peers = [best] if best else []
    return _ahead(f"{ANY_AHEAD:g}× ahead of the best peer on any runtime (MiniLM)", ours, peers, ANY_AHEAD)


def _ahead(goal: str, ours: dict[str, Any] | None, peers: list[dict[str, Any]], wanted: float) -> dict[str, Any]:
    if ours is None or not peers:
        return {"goal": goal, "met": False, "evidence": "nothing was measured on one side"}
    ratios = [(ratio_of_medians(*_turns(peer, ours)).ratio, peer["name"]) for peer in peers]
    told = ", ".join(f"{name} {ratio:.1f}×" for ratio, name in sorted(ratios))
    return {"goal": goal, "met": min(ratios)[0] >= wanted, "evidence": f"{ours['name']} is ahead of: {told}"}


def _turns(peer: dict[str, Any], ours: dict[str, Any]) -> tuple[list[list[float]], list[list[float]]]:
    return [[ms] for ms in peer["p50_ms_by_turn"]], [[ms] for ms in ours["p50_ms_by_turn"]]


def _fastest(rows: Any) -> dict[str, Any] | None:
    return min((row for row in rows if "p50_ms" in row), key=lambda row: row["p50_ms"], default=None)


def _peak_goals(one: dict[str, Any]) -> list[dict[str, Any]]:
    """The share of the runtime's own peak, int8, at the longest texts and at the shortest."""
    ours = _fastest(r for r in one["rows"] if r["edgekit"] and (r["runtime"], r["scheme"]) == ("litert", "int8"))
    made = []
    for rows, wanted in ((str(one["length"]), PEAK_GOALS["longest"]), (str(SHORTEST), PEAK_GOALS["shortest"])):
        found = ours["rows"].get(rows, {}).get("of_peak") if ours else None
        told = f"{percent(found, 0)}" if found else "not measured: no text ran at so many rows"
        goal = f"{percent(wanted, 0)} of the runtime's own peak at {rows} tokens (MiniLM, TFLite int8)"
        made.append({"goal": goal, "met": bool(found and found >= wanted), "evidence": told})
    return made
