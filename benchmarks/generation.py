"""Writing with edgekit beside its peers: one Llama-shaped model of 15.7 M weights, one thread and two, in turns.

    python benchmarks/generation.py                  everything, into the README
    python benchmarks/generation.py --check          one row again, compared with the saved one (what CI runs)
    python benchmarks/generation.py --environments   only install the peers, each into an environment of its own
    python benchmarks/generation.py --reuse          of files already made; --threads 1, --turns 3, --show: a part

All candidates have the same weights and go on from the same 64 tokens for 64 more, greedily; each turn A B C … A B C …
is a fresh process: edgekit's by its own runner, the others by generation_run.py as each one's own documentation shows.
"""

import argparse
import statistics
import sys
from typing import Any

import generation_models as models
import tables
from generation_candidates import ENVIRONMENTS, Candidate, candidates, export_ours, prepare
from generation_turns import NEW_TOKENS, PROMPT_TOKENS, Measured, copy_rate, make_prompt, take_turn
from peers_candidates import WORK as PEERS
from peers_candidates import make_environment

from edgekit.report.markdown import markdown_table
from edgekit.report.numbers import human_size, percent, significant
from edgekit.statistics import ratio_of_medians

COMMAND = "python benchmarks/generation.py"
TURNS = 5
GOAL = 0.95
CHECKED, CHECK_PEER = "edgekit, tflite int8-dynamic", "llama.cpp, q8_0"
CHECK_TURNS, CHECK_LIMIT = 3, 0.4  # on a machine that others use
HEADERS = [
    "candidate",
    "weights",
    "threads",
    "first token",
    "prefill tokens/s",
    "decode tokens/s",
    "of the best peer on its runtime (95 %)",
    "memory",
    "of the bandwidth",
    "same tokens",
]


def main() -> None:
    """Do what the options say."""
    options = _options()
    if options.environments:
        for name, packages in ENVIRONMENTS.items():
            print(f"{name}: {make_environment(name, packages) or 'ready'}", flush=True)
    elif options.check:
        check_one_row()
    else:
        measure_everything(options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--environments", action="store_true")
    parser.add_argument("--reuse", action="store_true", help="take files that are there")
    parser.add_argument("--show", action="store_true", help="print only; the README and the saved results stay")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--turns", type=int, default=TURNS)
    return parser.parse_args()


def measure_everything(options: argparse.Namespace) -> None:
    """Make all files, measure them in turns, and write the table."""
    everyone = candidates()
    prepare(everyone, reuse=options.reuse)
    prompt = make_prompt()
    copy_bytes_per_s = {threads: copy_rate(threads) for threads in (1, 2)}
    measured: dict[tuple[str, int], Measured] = {}
    for threads in map(int, options.threads.split(",")):
        for candidate in everyone:
            measured[candidate.name, threads] = Measured(error=candidate.error)
        for turn in range(options.turns):
            for candidate in everyone:
                take_turn(candidate, threads, prompt, measured[candidate.name, threads])
            print(f"{threads} threads: turn {turn + 1} of {options.turns}", file=sys.stderr, flush=True)
    rows = [row_of(candidate, key[1], measured, everyone, copy_bytes_per_s)
            for key in measured for candidate in everyone if candidate.name == key[0]]  # fmt: skip
    table = markdown_table(HEADERS, [_cells(row) for row in rows])
    print(table)
    if not options.show:
        tables.save_result("generation", COMMAND, {"rows": rows, "copy_bytes_per_s": copy_bytes_per_s})
        tables.put_in_readme("generation", table, note(rows, copy_bytes_per_s, options.turns))


def row_of(
    candidate: Candidate,
    threads: int,
    measured: dict[tuple[str, int], Measured],
    everyone: list[Candidate],
    copy_bytes_per_s: dict[int, float],
) -> dict[str, Any]:
    """What the table says of a candidate."""
    found = measured[candidate.name, threads]
    row: dict[str, Any] = {
        "candidate": candidate.name, "precision": candidate.precision, "runtime": candidate.runtime,
        "threads": threads, "weights_bytes": candidate.weights_bytes, "error": found.error,
    }  # fmt: skip
    if found.error or not found.decode_ms:
        return row
    first_ms, decode_ms = _median(found.first_ms), _median(found.decode_ms)
    row |= {
        "first_ms": first_ms,
        "prefill_per_s": 1000 * PROMPT_TOKENS / first_ms,
        "decode_per_s": 1000 / decode_ms,
        "memory_bytes": statistics.median(found.memory_bytes),
        "bandwidth_share": candidate.weights_bytes * 1000 / decode_ms / copy_bytes_per_s[threads],
        "decode_ms": found.decode_ms,
        "ids": found.ids,
    }
    if candidate.ours:
        row |= _beside_the_best(candidate, threads, measured, everyone)
    reference = measured.get(("transformers, float32", threads), Measured()).ids
    if found.ids and reference:
        row["same_tokens"] = sum(a == b for a, b in zip(found.ids, reference, strict=False))
    return row


def _beside_the_best(
    candidate: Candidate, threads: int, measured: dict[tuple[str, int], Measured], everyone: list[Candidate]
) -> dict[str, Any]:
    """Its decode rate over that of the fastest peer with the same runtime and precision, and of llama.cpp."""
    told = {}
    own = measured[candidate.name, threads]
    for key, runtime in (("best", candidate.runtime), ("llama", "llama.cpp")):
        peers = {each.name: measured[each.name, threads] for each in everyone if is_rival(each, candidate, runtime)}
        ran = {name: made for name, made in peers.items() if made.decode_ms and not made.error}
        if ran:
            best = min(ran, key=lambda name: _median(ran[name].decode_ms))
            ratio = ratio_of_medians(ran[best].decode_ms, own.decode_ms)
            told[key] = {"name": best, "ratio": ratio.ratio, "low": ratio.low, "high": ratio.high}
    return told


def is_rival(peer: Candidate, candidate: Candidate, runtime: str) -> bool:
    """Whether a peer is to be compared with: of the same precision on that runtime; PyTorch beside float32 of any."""
    alike = peer.runtime == runtime or (peer.runtime == "PyTorch" and runtime != "llama.cpp")
    return not peer.ours and alike and peer.precision == candidate.precision


def _median(turns: list[list[float]]) -> float:
    return statistics.median(ms for turn in turns for ms in turn)


def _cells(row: dict[str, Any]) -> list[str]:
    start = [row["candidate"], human_size(row["weights_bytes"]) if row["weights_bytes"] else "–", str(row["threads"])]
    if "decode_per_s" not in row:
        return [*start, f"not measured: {row['error']}", *[""] * 6]
    best = row.get("best")
    beside = "–"
    if best:
        interval = f"{best['ratio']:.2f} ({best['low']:.2f} to {best['high']:.2f}) × {best['name']}"
        beside = interval if best["ratio"] >= GOAL else f"**{interval}**"
    return [
        *start,
        f"{significant(row['first_ms'])} ms",
        significant(row["prefill_per_s"]),
        significant(row["decode_per_s"]),
        beside,
        human_size(row["memory_bytes"]),
        percent(row["bandwidth_share"], 0),
        f"{row['same_tokens']} of {NEW_TOKENS}" if "same_tokens" in row else "–",
    ]


def note(rows: list[dict[str, Any]], copy_bytes_per_s: dict[int, float], turns: int) -> str:
    """What stands under the table."""
    copies = " and ".join(f"{rate / 1e9:.1f} GB/s" for rate in copy_bytes_per_s.values())
    gaps = [
        f"{row['candidate'].removeprefix('edgekit, ')}: {row['llama']['ratio']:.2f} ({row['llama']['low']:.2f} to "
        f"{row['llama']['high']:.2f}) × {row['llama']['name']}"
        for row in rows
        if row.get("llama") and row["threads"] == 1
    ]
    shape = f"{models.CONFIG['num_layers']} layers, hidden size {models.CONFIG['hidden_size']}, 15.7 M random weights"
    return (
        f"Made by `{COMMAND}`: {shape} in Llama's shape, {PROMPT_TOKENS} tokens of prompt and {NEW_TOKENS} written "
        f"greedily, {turns} turns of each in fresh processes. Bandwidth: bytes of the weights × tokens/s over a copy "
        f"as measured ({copies} with one thread and two); caches of the processor may give more than memory. Same "
        "tokens: as transformers' float32; of random weights, quantized, few can be. LiteRT-LM tells only rates, by "
        "its own benchmark. Prefill: the prompt's tokens over the time to the first token. Peers of equal precision, "
        f"beside float32 also transformers. Bold: below {GOAL}. Beside llama.cpp, one thread: {'; '.join(gaps)}."
    )


def check_one_row() -> None:
    """Measure one of edgekit's rows and, where its peer is installed, the peer's, again: the ratio must be as saved."""
    saved = tables.load_result("generation")["rows"]["rows"]
    row = next(each for each in saved if each["candidate"] == CHECKED and each["threads"] == 1)
    everyone = [each for each in candidates() if each.name in (CHECKED, CHECK_PEER)]
    checkpoint = models.make_checkpoint()
    if not (models.WORK / "bundles").is_dir():
        export_ours(checkpoint.path, "tflite", "int8-dynamic")
    peer_there = (PEERS / "llama-cpp" / ".installed").is_file()
    prompt, measured = make_prompt(), {each.name: Measured() for each in everyone}
    for _ in range(CHECK_TURNS):
        for each in everyone:
            if each.ours or peer_there:
                take_turn(each, 1, prompt, measured[each.name])
    ours = measured[CHECKED]
    if ours.error:
        raise SystemExit(f"{CHECKED} can't be measured any more: {ours.error}")
    same_machine = tables.machine() == tables.load_result("generation")["machine"]  # others may round otherwise
    if same_machine and ours.ids != row["ids"]:
        raise SystemExit(f"{CHECKED} writes other tokens than the saved ones: {ours.ids[:8]}, not {row['ids'][:8]}")
    if peer_there and row.get("llama"):
        ratio = ratio_of_medians(measured[CHECK_PEER].decode_ms, ours.decode_ms)
        if ratio.ratio < (1 - CHECK_LIMIT) * row["llama"]["ratio"]:
            raise SystemExit(f"{CHECKED} has {ratio.ratio:.2f} × {CHECK_PEER}; saved is {row['llama']['ratio']:.2f}")
    print(f"{CHECKED}: the saved tokens; {'the saved ratio' if peer_there else 'llama.cpp is not installed here'}")


if __name__ == "__main__":
    main()
